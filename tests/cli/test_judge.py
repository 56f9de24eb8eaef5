"""``--judge``: the application's own pipeline decides on the command line and in nights, over any kind of store."""

from __future__ import annotations

import sys

import pytest

from nudge_rag.cli.judging import load_judge
from nudge_rag.cli.outcome import UsageError
from tests.cli import shop
from tests.cli.conftest import FOLDER, Command

STORE = "duckdb://./shop.duckdb?table=docs&similarity=cosine"
PIPELINES = """
import shop

LEFT = 5


def plain(store):
    "Search by vectors, as the command does without a judge."
    return lambda question: list(store.search(shop.embed([question]), 10).ids[0])


def by_words(store):
    "A pipeline whose answers rest on words alone: no vectors can improve it."
    words = {node: set(text.lower().split()) for node, text in shop.texts().items()}
    return lambda question: sorted(words, key=lambda node: -len(words[node] & set(question.split())))[:10]


def breaking(store):
    raise RuntimeError("the reranker is away")
"""
LANG_CHAIN = """
import shop
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore


class Model(Embeddings):
    def embed_documents(self, texts):
        return shop.embed(texts).tolist()

    def embed_query(self, text):
        return shop.embed([text])[0].tolist()


store = InMemoryVectorStore(Model())
store.add_texts(list(shop.texts().values()), ids=list(shop.texts()))


def pipeline(store):
    retriever = store.as_retriever(search_kwargs={"k": 10})
    return lambda question: [document.id for document in retriever.invoke(question)]
"""
LLAMA_INDEX = """
import shop
from llama_index.core import VectorStoreIndex
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.schema import TextNode


class Model(BaseEmbedding):
    def _get_text_embedding(self, text):
        return shop.embed([text])[0].tolist()

    _get_query_embedding = _get_text_embedding

    async def _aget_query_embedding(self, query):
        return self._get_query_embedding(query)


store = VectorStoreIndex(
    [TextNode(id_=node, text=text) for node, text in shop.texts().items()], embed_model=Model()
)


def pipeline(store):
    return store.as_retriever(similarity_top_k=10)
"""


@pytest.fixture
def pipelines(tmp_path):
    shop.write_files(tmp_path)
    shop.index_in_duckdb(shop.read_folder(tmp_path / "texts"), tmp_path / "shop.duckdb")
    for name, code in (("pipelines", PIPELINES), ("chained", LANG_CHAIN), ("indexed", LLAMA_INDEX)):
        (tmp_path / f"{name}.py").write_text(code)
    return tmp_path


def tune(folder, store, judge, code, model="shop:embed"):
    arguments = ["tune", store, "clicks.csv", "--model", model, "--solver", "nudge-n", "--judge", judge]
    return Command(folder).answer(*arguments, code=code)


def test_the_pipeline_decides_and_not_the_vectors(pipelines):
    found = tune(pipelines, STORE, "pipelines:plain", 0)
    row = next(row for row in found["comparison"]["rows"] if (row["group"], row["metric"]) == ("all", "nDCG@10"))
    assert found["judgement"]["before"] == pytest.approx(row["before"], abs=0.002)  # ties
    assert found["judgement"]["after"] == pytest.approx(row["after"], abs=0.002)  # ties
    same = tune(pipelines, STORE, "pipelines:by_words", 1)
    assert same["improves"] is False
    assert same["judgement"]["before"] == same["judgement"]["after"]
    assert same["comparison"] == found["comparison"]


@pytest.mark.parametrize(("module", "model"), [("chained", "chained:Model"), ("indexed", "shop:embed")])
def test_a_frameworks_judge_gets_a_view_of_the_frameworks_store(pipelines, module, model):
    found = tune(pipelines, f"{module}:store", f"{module}:pipeline", 0, model)
    row = next(row for row in found["comparison"]["rows"] if (row["group"], row["metric"]) == ("all", "nDCG@10"))
    assert found["judgement"]["after"] == pytest.approx(row["after"], abs=0.002)  # ties


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        ("plain", "the judge must be a URL, a folder or module:object, got 'plain'"),
        ("pipelines:nothing", "the judge 'pipelines:nothing' cannot be imported"),
        ("pipelines:LEFT", "the judge pipelines:LEFT is a int and no function from a store to a retriever"),
    ],
)
def test_what_is_no_judge_is_named(pipelines, monkeypatch, judge, message):
    monkeypatch.chdir(pipelines)
    monkeypatch.syspath_prepend(str(FOLDER))
    with pytest.raises(UsageError, match=message):
        load_judge(judge, STORE, "shop:embed")
    monkeypatch.delitem(sys.modules, "pipelines", raising=False)


def test_a_judge_that_fails_is_an_error_and_not_a_no(pipelines):
    assert "the reranker is away" in tune(pipelines, STORE, "pipelines:breaking", 3)["message"]


def test_nights_are_gated_by_the_pipeline(pipelines):
    config = f'store = "{STORE}"\nmodel = "shop:embed"\nfolder = "nights"\npairs = ["clicks.csv"]\nsolver = "nudge-n"\n'
    (pipelines / "night.toml").write_text(config + 'judge = "pipelines:by_words"\n')
    closed = Command(pipelines).answer("nightly", "night.toml", code=1)
    assert closed["change"] == 0
    assert closed["pushed"] is False
    (pipelines / "night.toml").write_text(config + 'judge = "pipelines:plain"\nat_least = 0.05\n')
    open_gate = Command(pipelines).answer("nightly", "night.toml")
    assert (open_gate["pushed"], open_gate["compared_with"]) == (True, "originals")
    assert open_gate["change"] == pytest.approx(open_gate["means"]["new"] - open_gate["means"]["originals"])
    night = pipelines / "nights" / open_gate["night"]
    assert (night / "evaluation.html").read_text().count("originals") > 1
    (pipelines / "night.toml").write_text(config + 'judge = "pipelines:none"\n')
    assert "cannot be imported" in Command(pipelines).answer("nightly", "night.toml", "--dry-run", code=2)["message"]
