"""Two processes with one file: what the other has written to it is merged or refused, and never written over."""

from __future__ import annotations

import os
import stat
import threading

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import SimpleVectorStore

from nudge_rag.common import files
from nudge_rag.stores import FaissStore, InMemoryStore, SimpleStore, StoreError
from tests.support.builders.common import LangChainEmbeddings

IDS = ["a", "b", "c"]
ROWS = np.arange(1.0, 10).reshape(3, 3)


class Simple:
    """A SimpleVectorStore in a file, as a process sees it that knows nothing of ours."""

    def __init__(self, path, make=False):
        self.path = path
        self.store = SimpleVectorStore() if make else SimpleVectorStore.from_persist_path(str(path))

    def add(self, node, row):
        source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"doc of {node}")}
        self.store.add(
            [TextNode(id_=node, text=node, metadata={"of": node}, embedding=list(row), relationships=source)]
        )

    def delete(self, node):
        self.store.delete(f"doc of {node}")

    def save(self):
        self.store.persist(str(self.path))

    def known(self):
        data = self.store.data
        return {
            node: (vector, data.metadata_dict[node]["of"], data.text_id_to_ref_doc_id[node])
            for node, vector in data.embedding_dict.items()
        }

    def expected(self, node, row):
        return list(row), node, f"doc of {node}"

    def adapter(self):
        return SimpleStore(self.store, persist_path=self.path)


class InMemory:
    """An InMemoryVectorStore in a file, likewise."""

    def __init__(self, path, make=False):
        self.path, embeddings = path, LangChainEmbeddings()
        self.store = InMemoryVectorStore(embeddings) if make else InMemoryVectorStore.load(str(path), embeddings)

    def add(self, node, row):
        self.store.add_documents([Document(id=node, page_content=node, metadata={"of": node})])
        self.store.store[node]["vector"] = list(row)

    def delete(self, node):
        self.store.delete([node])

    def save(self):
        self.store.dump(str(self.path))

    def known(self):
        return {
            node: (entry["vector"], entry["text"], entry["metadata"]["of"]) for node, entry in self.store.store.items()
        }

    def expected(self, node, row):
        return list(row), node, node

    def adapter(self):
        return InMemoryStore(self.store, persist_path=self.path)


@pytest.fixture(params=[Simple, InMemory])
def framework(request, tmp_path):
    made = request.param(tmp_path / "store.json", make=True)
    for node, row in zip(IDS, ROWS, strict=True):
        made.add(node, row)
    made.save()
    return lambda: request.param(tmp_path / "store.json")


@pytest.mark.parametrize("known", [True, False], ids=["after our first write", "before it"])
def test_nodes_that_another_process_added_are_kept(framework, known):
    ours, theirs = framework(), framework()
    adapter = ours.adapter()
    if known:
        adapter.replace(["c"], ROWS[2:])
        theirs = framework()
    theirs.add("d", [0, 0, 1])
    theirs.save()
    adapter.replace(["a"], -ROWS[:1])
    for seen in (framework().known(), ours.known()):
        assert seen == {
            "a": ours.expected("a", -ROWS[0]),
            "b": ours.expected("b", ROWS[1]),
            "c": ours.expected("c", ROWS[2]),
            "d": ours.expected("d", [0, 0, 1]),
        }


def test_what_only_memory_has_stays_so_however_often_others_write(framework):
    ours = framework()
    adapter = ours.adapter()
    adapter.read(["a"])
    ours.delete("b")
    ours.add("c", [9, 9, 9])
    ours.add("unsaved", [1, 1, 1])
    expected = {
        "a": ours.expected("a", ROWS[0]),
        "c": ours.expected("c", [9, 9, 9]),
        "unsaved": ours.expected("unsaved", [1, 1, 1]),
    }
    for number in range(3):
        theirs = framework()
        theirs.add(f"new {number}", [0, 0, number + 1])
        theirs.save()
        adapter.read(["a"])
        expected[f"new {number}"] = ours.expected(f"new {number}", [0, 0, number + 1])
        assert ours.known() == expected
    adapter.replace(["a"], -ROWS[:1])
    expected["a"] = ours.expected("a", -ROWS[0])
    assert framework().known() == ours.known() == expected
    theirs = framework()
    theirs.delete("unsaved")
    theirs.save()
    del expected["unsaved"]
    adapter.read(["a"])
    assert ours.known() == expected


def test_what_memory_deleted_before_the_file_was_looked_at_stays_deleted(framework):
    ours, theirs = framework(), framework()
    adapter = ours.adapter()
    ours.delete("b")
    theirs.add("new", [0, 0, 1])
    theirs.save()
    assert adapter.matching(["a", "b", "c", "new"], None) == {"a", "c", "new"}
    adapter.replace(["a"], -ROWS[:1])
    assert set(framework().known()) == set(ours.known()) == {"a", "c", "new"}


def test_nodes_that_another_process_deleted_or_embedded_anew_stay_so(framework):
    ours = framework()
    adapter = ours.adapter()
    adapter.replace(["a"], -ROWS[:1])
    ours.add("unsaved", [1, 1, 1])
    theirs = framework()
    theirs.delete("b")
    theirs.add("c", [0, 1, 0])
    theirs.save()
    seen = -ROWS[0], ROWS[1], ROWS[2]
    assert adapter.replace_vectors_if(IDS, np.array(seen), ROWS + 1) == ["b", "c"]
    for known in (framework().known(), ours.known()):
        assert known == {
            "a": ours.expected("a", ROWS[0] + 1),
            "c": ours.expected("c", [0, 1, 0]),
            "unsaved": ours.expected("unsaved", [1, 1, 1]),
        }


def test_a_node_that_both_changed_is_refused(framework):
    ours = framework()
    adapter = ours.adapter()
    adapter.replace(["a"], -ROWS[:1])
    theirs = framework()
    theirs.add("c", [0, 1, 0])
    theirs.save()
    ours.add("c", [1, 0, 0])
    with pytest.raises(StoreError, match=r"another process has changed 1 node\(s\) of .*: 'c'; load the store anew"):
        adapter.replace(["a"], ROWS[:1])
    assert framework().known() == theirs.known()
    assert adapter.read(["a"]).tolist() == [list(-ROWS[0])]


def test_a_switch_keeps_what_another_process_added(framework):
    ours = framework()
    adapter = ours.adapter()
    adapter.create_copy("next").replace(IDS, -ROWS)
    theirs = framework()
    theirs.add("d", [0, 0, 1])
    theirs.save()
    adapter.switch("next")
    assert framework().known()["d"] == ours.expected("d", [0, 0, 1])
    assert framework().known()["a"] == ours.expected("a", -ROWS[0])
    adapter.switch("next")
    assert framework().known()["a"] == ours.expected("a", ROWS[0])


def test_a_faiss_index_that_another_process_wrote_is_refused(tmp_path):
    import faiss

    path = tmp_path / "index.faiss"
    index = faiss.IndexFlatL2(3)
    index.add(ROWS.astype(np.float32))
    faiss.write_index(index, str(path))
    ids = dict(enumerate(IDS))
    stores = [FaissStore.open(path, ids), FaissStore(faiss.read_index(str(path)), ids, persist_path=path)]
    stores[0].replace(["a"], -ROWS[:1])
    stores[0].replace(["a"], ROWS[:1])
    stores[1].replace(["b"], ROWS[1:2])
    theirs = faiss.read_index(str(path))
    theirs.add(np.ones((1, 3), dtype=np.float32))
    faiss.write_index(theirs, str(path))
    content = path.read_bytes()
    for store in stores:
        before = store.read(IDS)
        for call in (lambda store=store: store.replace(["a"], -ROWS[:1]), lambda: stores[0].create_copy("next")):
            with pytest.raises(StoreError, match="another process has written other nodes to"):
                call()
        assert path.read_bytes() == content
        assert store.read(IDS).tobytes() == before.tobytes()


def test_what_another_process_writes_while_the_file_is_replaced_is_merged(framework, monkeypatch):
    """He has the file open, and writes in place, just before another takes its name."""
    ours, theirs, put, written = framework(), framework(), files.put_in_place, []
    adapter = ours.adapter()
    theirs.add("d", [0, 0, 1])
    theirs.add("b", [1, 1, 1])

    def put_late(temporary, path):
        if not written:
            written.append(path)
            theirs.save()
        put(temporary, path)

    monkeypatch.setattr(files, "put_in_place", put_late)
    assert adapter.replace_vectors_if(["a", "b"], ROWS[:2], -ROWS[:2]) == ["b"]
    assert written == [ours.path]
    for known in (framework().known(), ours.known()):
        assert known == {
            "a": ours.expected("a", -ROWS[0]),
            "b": ours.expected("b", [1, 1, 1]),
            "c": ours.expected("c", ROWS[2]),
            "d": ours.expected("d", [0, 0, 1]),
        }
    assert [file.name for file in ours.path.parent.iterdir()] == ["store.json"]


def test_a_file_that_is_half_written_is_read_when_it_is_whole(framework):
    ours = framework()
    adapter = ours.adapter()
    adapter.replace(["c"], ROWS[2:])
    theirs = framework()
    theirs.add("a", [1, 1, 1])
    theirs.save()
    content = ours.path.read_text()
    ours.path.write_text(content[: len(content) // 2])
    writing = threading.Timer(0.2, ours.path.write_text, [content])
    writing.start()
    assert adapter.read(["a"]).tolist() == [[1, 1, 1]]
    writing.join()


def test_a_file_that_stays_damaged_is_refused(framework):
    ours = framework()
    adapter = ours.adapter()
    ours.path.write_text("{")
    os.utime(ours.path, (1, 1))  # nobody is writing to it
    with pytest.raises(StoreError, match=r"store.json cannot be read: .*; nothing was written"):
        adapter.replace(["a"], -ROWS[:1])
    assert ours.path.read_text() == "{"


@pytest.mark.parametrize("adapter", [SimpleStore, InMemoryStore])
def test_a_folder_is_no_file(adapter, tmp_path):
    store = SimpleVectorStore() if adapter is SimpleStore else InMemoryVectorStore(LangChainEmbeddings())
    with pytest.raises(ValueError, match=r"persist_path must name a file, .* is a folder"):
        adapter(store, persist_path=tmp_path)


def test_the_history_of_a_private_file_is_private(framework):
    ours = framework()
    ours.path.chmod(0o640)
    ours.adapter().history().write("0001/arrays", b"originals")
    folder = ours.path.with_name(ours.path.name + ".nudge-rag")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750
