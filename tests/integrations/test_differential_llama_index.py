"""LlamaIndex: the framework's own retriever and ours answer alike before any nudge, in every store and by every option.

Each case asks both. Ours is asked twice: as it is, and under an overlay that moves no node anywhere, so that the search
of ours answers instead of the framework's. If the framework fails, or a difference is listed below, the answer must be
the one that a few lines of Python give: the framework's ranking without filters, filtered.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import operator
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.indices.query.embedding_utils import get_top_k_mmr_embeddings
from llama_index.core.indices.vector_store.retrievers import VectorIndexRetriever
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.schema import IndexNode, NodeRelationship, QueryBundle, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters, SimpleVectorStore
from llama_index.retrievers.nudge import NudgeRetriever, embedding_store

from nudge_rag import Nudge, ValidationCurve
from tests.integrations.conftest import LlamaIndexWorld, node_id, vector
from tests.integrations.test_llama_index import make_vector_store
from tests.support.builders.registry import here

KINDS = {
    "simple": "simple",
    "chroma": "chroma",
    "chroma-cosine": "chroma",
    "chroma-ip": "chroma",
    "qdrant-Cosine": "qdrant",
    "qdrant-Dot": "qdrant",
    "qdrant-Euclid": "qdrant",
    "lancedb": "lance",
    "postgres": "postgres",
    "postgres-hnsw": "postgres",
    "faiss": "faiss",
    "faiss-map": "faiss",
    "milvus": "milvus",
    "duckdb": "duckdb",
    "redis-llama-index": "redis-llama-index",
    "redis-llama-index-ip": "redis-llama-index",
    "redis-llama-index-l2": "redis-llama-index",
}
STORES = here(KINDS)
N = 40
TOP_K = 60  # more than there are nodes: a filter shows all that it lets through
QUESTIONS = ("question 1 about 7", "question 2 about 30", "topic 12")
NAMES = ("O'Neil", "50%", "a:b", "back\\slash", 'quo"te', "plain", "", "Zoë")
REDIS = ("redis-llama-index", "redis-llama-index-ip", "redis-llama-index-l2")
FLAT = ("chroma", "chroma-cosine", "chroma-ip", "duckdb", "lancedb", *REDIS)  # their integrations take no lists
numbers = itertools.count()


def metadata(number: int, *, flat: bool) -> dict[str, Any]:
    made: dict[str, Any] = {
        "number": number,
        "weight": number / 4,
        "flag": number % 3 == 0,
        "parity": ("even", "odd")[number % 2],
        "digits": str(number),
        "date": f"2024-{number % 12 + 1:02}-15",
        "name": NAMES[number % len(NAMES)],
    }
    if not flat:
        made["tags"] = ["red", "blue", "green"][: number % 4]
    return made


def nodes_of(kind: str) -> list[TextNode]:
    nodes = []
    for number in range(N):
        values = metadata(number, flat=kind in FLAT)
        if kind in REDIS:
            values["flag"] = int(values["flag"])  # it takes no truth values
        node = TextNode(id_=node_id(number), text=f"topic {number}", metadata=values)
        node.excluded_embed_metadata_keys = list(values)
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=f"doc-{number % 5}")
        nodes.append(node)
    return nodes


def redis_store(kind: str, servers: Any) -> Any:
    from tests.support.builders.redis_llama_index import vector_store_on

    tags, numeric = ("id", "doc_id", "parity", "digits", "date", "name"), ("number", "weight", "flag")
    fields = {"tag": tags, "numeric": numeric, "text": ("text",)}
    metric = kind.removeprefix("redis-llama-index").removeprefix("-") or "cosine"
    return vector_store_on(servers.address("redis_llama_index"), 16, fields, distance_metric=metric)


def build_store(kind: str, folder: Any, servers: Any) -> Any:
    if kind in REDIS:
        return redis_store(kind, servers)
    if kind != "postgres-hnsw":
        return make_vector_store(kind, SimpleNamespace(), folder, servers)
    from llama_index.vector_stores.postgres import PGVectorStore

    from tests.support.builders.postgres import with_driver

    uri = servers.address("postgres")
    return PGVectorStore(
        connection_string=with_driver(uri, "psycopg2"),
        async_connection_string=with_driver(uri, "asyncpg"),
        table_name=f"differential{next(numbers)}",
        embed_dim=16,
        use_jsonb=True,
        use_halfvec=True,
        hnsw_kwargs={
            "hnsw_m": 16,
            "hnsw_ef_construction": 200,
            "hnsw_ef_search": 100,
            "hnsw_dist_method": "halfvec_cosine_ops",
        },
    )


@dataclass
class Place:
    """An index, and an overlay that leaves every second node where it is."""

    kind: str
    index: VectorStoreIndex
    still: Nudge
    opened: dict[bool, NudgeRetriever] = field(default_factory=dict)

    @cached_property
    def ranked(self) -> list[str]:
        """The framework's ranking without filters: no test changes what the index holds."""
        return told(VectorIndexRetriever(self.index, similarity_top_k=TOP_K).retrieve(QUESTIONS[0])).ids

    def filtered(self, filters: MetadataFilters, overlay: Nudge | None = None) -> NudgeRetriever:
        """Ours with these filters; those of a place share what they open, a dozen reads a time."""
        opened = self.opened.get(overlay is not None)
        if opened is None:
            opened = self.opened[overlay is not None] = NudgeRetriever(self.index, TOP_K, overlay=overlay)
        found = copy.copy(opened)
        found._filters = filters
        return found


def still_nudge(store: Any, ids: list[str], held: Any) -> Nudge:
    """A nudge that moves nothing."""
    curve = ValidationCurve(np.zeros(1), np.zeros(1), "nDCG@10")
    return Nudge(store, tuple(ids), held, held, 0.1, curve, True, "nothing moves", "none")


@pytest.fixture(scope="module")
def place_of(tmp_path_factory: pytest.TempPathFactory, servers: Any) -> Callable[[str], Place]:
    built: dict[str, Place] = {}

    def build(kind: str) -> Place:
        if kind not in built:
            folder = tmp_path_factory.mktemp(kind)
            context = StorageContext.from_defaults(vector_store=build_store(kind, folder, servers))
            index = VectorStoreIndex(nodes_of(kind), storage_context=context, embed_model=LlamaIndexWorld())
            ids = [node_id(number) for number in range(0, N, 2)]
            still = still_nudge(embedding_store(index), ids, embedding_store(index).read(ids))
            built[kind] = Place(kind, index, still)
        return built[kind]

    return build


def ways(place: Place) -> list[dict[str, Any]]:
    """Ours as it is, and under the overlay that moves nothing: what the retriever is given for each."""
    return [{}, {"overlay": place.still}]


@pytest.fixture
def place(request: pytest.FixtureRequest, place_of: Callable[[str], Place]) -> Place:
    request.node.user_properties.append(("store", KINDS[request.param]))
    return place_of(request.param)


# What a retriever answered, or the error that it raised.


@dataclass(frozen=True)
class Answer:
    ids: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    nodes: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    error: str | None = None


def told(found: list[Any]) -> Answer:
    nodes = [(type(one.node).__name__, one.node.get_content(), dict(one.node.metadata)) for one in found]
    return Answer([one.node_id for one in found], [one.score for one in found], nodes)


def ask(make: Callable[[], Any], question: str | QueryBundle) -> Answer:
    try:
        return told(make().retrieve(question))
    except Exception as error:
        return Answer(error=f"{type(error).__name__}: {error}")


def assert_same(ours: Answer, own: Answer) -> None:
    assert ours.error is None, ours.error
    assert ours.ids == own.ids
    np.testing.assert_allclose(ours.scores, own.scores, atol=2e-5)
    assert ours.nodes == own.nodes


# Filters.


def by(key: str, operator: str, value: Any) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)])


def joined(condition: str, *parts: MetadataFilters) -> MetadataFilters:
    """Single filters side by side; anything else nested."""
    flat = [part.filters[0] if len(part.filters) == 1 and part.condition == "and" else part for part in parts]
    return MetadataFilters(filters=flat, condition=condition)


EQUAL = [
    *[("number", 7), ("number", 7.0), ("weight", 2.5), ("parity", "even")],
    *[("digits", "9"), ("digits", 9), ("number", "9"), ("date", "2024-03-15"), ("ghost", "x"), ("ghost", 1)],
    *[("name", name) for name in NAMES],
]
ORDER = [("number", 30), ("weight", 2.5), ("date", "2024-06-15"), ("digits", "9"), ("number", "9"), ("parity", "f")]
MEMBERS = [
    *[("number", [3, 4]), ("parity", ["even"]), ("parity", ["even", "odd"]), ("name", ["O'Neil", "plain"])],
    *[("number", ["3", "4"]), ("digits", [3, 4]), ("name", ["50%", "a:b"]), ("ghost", ["x"]), ("weight", [2.5, 1.0])],
]
EVEN, LARGE, SEVEN = by("parity", "==", "even"), by("number", ">", 30), by("number", "==", 7)
FILTERS: dict[str, MetadataFilters] = {
    **{f"{key} == {value!r}": by(key, "==", value) for key, value in EQUAL},
    **{f"{key} != {value!r}": by(key, "!=", value) for key, value in EQUAL},
    **{f"{key} {sign} {value!r}": by(key, sign, value) for sign in (">", "<", ">=", "<=") for key, value in ORDER},
    **{
        f"{key} in {value!r}": by(key, "in", value) for key, value in [*MEMBERS, ("parity", []), ("parity", "even,odd")]
    },
    **{f"{key} nin {value!r}": by(key, "nin", value) for key, value in MEMBERS},
    **{f"tags contains {tag}": by("tags", "contains", tag) for tag in ("red", "green", "pink", "O'Neil")},
    **{f"tags {how} {tags}": by("tags", how, tags) for how in ("any", "all") for tags in (["blue"], ["red", "green"])},
    **{f"parity text_match {part!r}": by("parity", "text_match", part) for part in ("eve", "ven", "EVE", "x")},
    "name text_match '": by("name", "text_match", "'"),
    "parity text_match_insensitive": by("parity", "text_match_insensitive", "EVEN"),
    "ghost is_empty": by("ghost", "is_empty", None),
    "number is_empty": by("number", "is_empty", None),
    "and": joined("and", EVEN, LARGE),
    "or": joined("or", LARGE, SEVEN),
    "not": joined("not", EVEN),
    "not either": joined("not", LARGE, SEVEN),
    "or of and": joined("or", SEVEN, joined("and", EVEN, LARGE)),
    "and of or": joined("and", EVEN, joined("or", LARGE, SEVEN)),
    "or of quotes": joined("or", by("name", "==", "O'Neil"), by("name", "==", 'quo"te')),
    "and of a missing key": joined("and", EVEN, by("ghost", "!=", "x")),
    "no filters": MetadataFilters(filters=[]),
    "an injection": by("parity", "==", "x' OR '1'='1"),
    "an injection in a list": by("parity", "in", ["x') OR ('1'='1"]),
}
ORDERS = {">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le}
LISTS: dict[str, Callable[[Any, Any], bool]] = {
    "contains": lambda have, want: want in have,
    "any": lambda have, want: any(one in have for one in want),
    "all": lambda have, want: all(one in have for one in want),
    "text_match": lambda have, want: want in have,
    "text_match_insensitive": lambda have, want: want.lower() in have.lower(),
}
# Stores in which a missing key is unequal to every value, and a text is never equal to a number.
IN_PYTHON = ("simple", "faiss", "faiss-map")
MISSING_DIFFERS = (*IN_PYTHON, "chroma", "chroma-cosine", "chroma-ip")
# Stores in which two texts that read as numbers are compared as numbers.
TEXTS_AS_NUMBERS = ("postgres", "postgres-hnsw")


def pair(kind: str, have: Any, want: Any) -> tuple[Any, Any]:
    """Both sides of a comparison, as the store compares them."""
    if kind in IN_PYTHON or (isinstance(have, str) and isinstance(want, str) and kind not in TEXTS_AS_NUMBERS):
        return have, want
    try:
        return float(have), float(want)
    except ValueError:
        return str(have), str(want)


def passes_one(kind: str, sign: str, have: Any, want: Any) -> bool:
    if sign in ORDERS:
        return bool(ORDERS[sign](*pair(kind, have, want)))
    if sign in LISTS:
        return LISTS[sign](have, want)
    wanted = want.split(",") if sign in ("in", "nin") and isinstance(want, str) else want
    alike = any(operator.eq(*pair(kind, have, one)) for one in (wanted if sign in ("in", "nin") else [wanted]))
    return alike == (sign in ("==", "in"))


def passes(kind: str, filters: MetadataFilters, values: dict[str, Any]) -> bool:
    """What filters mean, in Python."""
    found = []
    for part in filters.filters:
        if isinstance(part, MetadataFilters):
            found.append(passes(kind, part, values))
        elif part.operator.value == "is_empty":
            found.append(values.get(part.key) in (None, "", []))
        elif part.key not in values:
            found.append(kind in MISSING_DIFFERS and part.operator.value in ("!=", "nin"))
        else:
            found.append(passes_one(kind, part.operator.value, values[part.key], part.value))
    if filters.condition == "or":
        return any(found)
    return not any(found) if filters.condition == "not" else all(found)


# Differences between the framework's answer and ours, by store and case, and why the framework is wrong there.
SMUGGLED = "the value is written into the query unquoted, and shows every node"
DIFFERENCES: dict[tuple[str, str], str] = {
    **{("lancedb", f"digits != {value!r}"): "!= is LIKE %9%, which leaves out 19 and 29 too" for value in ("9", 9)},
    ("lancedb", "name != 'back\\\\slash'"): "!= is LIKE, in which a backslash escapes",
    ("lancedb", "not"): "NOT is taken for AND",
    ("milvus", "not"): "NOT is written between filters, where one alone is not negated",
    ("milvus", "parity text_match 'ven'"): "TEXT_MATCH finds the beginning of a text only",
    ("milvus", "number is_empty"): "IS_EMPTY holds for every field that is no list",
}
for database in ("lancedb", "postgres", "postgres-hnsw"):
    DIFFERENCES[database, "an injection"] = SMUGGLED
for database in ("postgres", "postgres-hnsw"):
    DIFFERENCES[database, "an injection in a list"] = SMUGGLED
    DIFFERENCES[database, "parity in 'even,odd'"] = "IN takes a text for a list of its letters"

for database in REDIS:
    DIFFERENCES |= {(database, name): "NOT is taken for OR" for name in ("not", "not either")}

# Stores whose databases or integrations have fewer filters, and cases that no store in memory can compare.
REFUSING = ("chroma", "qdrant", "milvus", "redis")
BOTH_REFUSE = {(kind, f"number {sign} '9'") for kind in IN_PYTHON for sign in ORDERS}


def by_hand(place: Place, filters: MetadataFilters) -> list[str]:
    """The framework's ranking without filters, filtered by a few lines of Python."""
    rows = {node_id(number): metadata(number, flat=place.kind in FLAT) for number in range(N)}
    return [node for node in place.ranked if passes(place.kind, filters, rows[node])]


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("place", STORES, indirect=True)
def test_filters(place: Place, name: str) -> None:
    filters = FILTERS[name]
    own = ask(lambda: VectorIndexRetriever(place.index, similarity_top_k=TOP_K, filters=filters), QUESTIONS[0])
    for options in ways(place):
        ours = ask(partial(place.filtered, filters, **options), QUESTIONS[0])
        if (place.kind, name) in DIFFERENCES:
            assert own.error is None, list(options)
            assert own.ids != ours.ids == by_hand(place, filters), list(options)
        elif own.error is None:
            assert_same(ours, own)
        elif ours.error is None:
            assert ours.ids == by_hand(place, filters), f"the framework fails, and so do we: {list(options)}"
        else:
            assert (place.kind, name) in BOTH_REFUSE or place.kind.startswith(REFUSING), (list(options), ours.error)


# Everything but filters.


LOOP = asyncio.new_event_loop()  # connections belong to one loop
OVERLAID = pytest.mark.parametrize("overlaid", [False, True], ids=["plain", "overlay"])


def both(place: Place, overlaid: bool, **options: Any) -> tuple[Any, Any]:
    """The framework's own retriever of the index, and ours."""
    still = {"overlay": place.still} if overlaid else {}
    top_k = {"similarity_top_k": TOP_K, **options}
    return place.index.as_retriever(**top_k), NudgeRetriever(place.index, **top_k, **still)


@pytest.mark.parametrize("k", [1, 2, 7, N, TOP_K])
@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("place", STORES, indirect=True)
def test_questions_and_top_k(place: Place, question: str, k: int) -> None:
    """Asked by text and by embedding, in turn and asynchronously."""
    embedded = QueryBundle(question, embedding=vector(question))
    expected = [told(both(place, False, similarity_top_k=k)[0].retrieve(asked)) for asked in (question, embedded)]
    for options in ways(place):
        ours = NudgeRetriever(place.index, k, **options)
        for asked, own in zip((question, embedded), expected, strict=True):
            answers = [told(ours.retrieve(asked))]
            if place.kind != "milvus":  # its store was made without an asynchronous client
                answers.append(told(LOOP.run_until_complete(ours.aretrieve(asked))))
            for found in answers:
                assert_same(found, own)
                assert len(found.ids) == min(k, N)


SOME = [node_id(number) for number in range(0, N, 7)]
# What retrievers are given, and the numbers of the nodes that it means.
IDS: dict[str, tuple[dict[str, Any], Any]] = {
    "some nodes": ({"node_ids": SOME}, lambda number: number % 7 == 0),
    "one node": ({"node_ids": SOME[:1]}, lambda number: number == 0),
    "an unknown node": ({"node_ids": [node_id(10_000)]}, lambda number: False),
    "known and unknown": ({"node_ids": [*SOME, node_id(10_000)]}, lambda number: number % 7 == 0),
    "a document": ({"doc_ids": ["doc-2"]}, lambda number: number % 5 == 2),
    "two documents": ({"doc_ids": ["doc-2", "doc-0"]}, lambda number: number % 5 in (0, 2)),
    "an unknown document": ({"doc_ids": ["doc-9' OR '1'='1"]}, lambda number: False),
    "nodes of a document": ({"node_ids": SOME, "doc_ids": ["doc-2"]}, lambda n: n % 7 == 0 and n % 5 == 2),
    "even nodes": ({"node_ids": SOME, "filters": EVEN}, lambda number: number % 14 == 0),
    "large ones of a document": ({"doc_ids": ["doc-2"], "filters": LARGE}, lambda n: n % 5 == 2 and n > 30),
}
# Stores whose own retriever honours the ids that it is given; all others ignore them.
HONOURED = {"qdrant": ("node_ids", "doc_ids"), "milvus": ("node_ids", "doc_ids"), "simple": ("node_ids",)}


@pytest.mark.parametrize("k", [2, TOP_K])
@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("place", STORES, indirect=True)
def test_node_and_document_ids(place: Place, name: str, k: int) -> None:
    options, chosen = IDS[name]
    numbers_of = {node_id(number): number for number in range(N)}
    honoured = HONOURED.get(place.kind.partition("-")[0], ())
    own = None
    if all(option in (*honoured, "filters") for option in options):
        own = ask(lambda: VectorIndexRetriever(place.index, similarity_top_k=k, **options), QUESTIONS[0])
    for still in ways(place):
        ours = ask(partial(NudgeRetriever, place.index, k, **options, **still), QUESTIONS[0])
        assert ours.error is None, ours.error
        assert ours.ids == [node for node in place.ranked if chosen(numbers_of[node])][:k], list(still)
        if own is not None:
            assert_same(ours, own)


@pytest.mark.parametrize("option", ["node_ids", "doc_ids"])
@pytest.mark.parametrize("place", STORES, indirect=True)
def test_no_ids_at_all(place: Place, option: str) -> None:
    own = ask(lambda: VectorIndexRetriever(place.index, similarity_top_k=TOP_K, **{option: []}), QUESTIONS[0])
    for still in ways(place):
        assert_same(ask(partial(NudgeRetriever, place.index, TOP_K, **{option: []}, **still), QUESTIONS[0]), own)


# Their own search for MMR fails: it takes the truth of an array, or the list of a halfvec.
MMR_FAILS = ("chroma", "chroma-cosine", "chroma-ip", "postgres-hnsw")
DIVERSE = ("simple", "chroma", "chroma-cosine", "chroma-ip", "postgres", "postgres-hnsw", "milvus")


@OVERLAID
@pytest.mark.parametrize(
    "options",
    [{}, {"mmr_threshold": 0.2}, {"mmr_threshold": 0.9}, {"mmr_prefetch_k": 9}, {"mmr_prefetch_factor": 2.0}],
    ids=str,
)
@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("place", here({kind: KINDS[kind] for kind in DIVERSE}), indirect=True)
def test_maximal_marginal_relevance(place: Place, k: int, options: dict[str, Any], overlaid: bool) -> None:
    given = {"vector_store_query_mode": "mmr", "vector_store_kwargs": options, "similarity_top_k": k}
    own = ask(lambda: place.index.as_retriever(**given), QUESTIONS[0])
    ours = ask(lambda: both(place, overlaid, **given)[1], QUESTIONS[0])
    if own.error is None:
        assert_same(ours, own)
        return
    assert place.kind in MMR_FAILS, own.error
    depth = int(options.get("mmr_prefetch_k", k * options.get("mmr_prefetch_factor", 4)))
    ranked = told(place.index.as_retriever(similarity_top_k=max(depth, k)).retrieve(QUESTIONS[0])).ids
    vectors = {node_id(number): vector(f"topic {number}") for number in range(N)}
    _, expected = get_top_k_mmr_embeddings(
        vector(QUESTIONS[0]),
        [vectors[node] for node in ranked],
        similarity_top_k=k,
        embedding_ids=list(ranked),
        mmr_threshold=options.get("mmr_threshold"),
    )
    assert ours.ids == expected


MODES = ["mmr", "hybrid", "sparse", "text_search", "svm", "semantic_hybrid"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("place", STORES, indirect=True)
def test_other_query_modes_are_the_stores(place: Place, mode: str) -> None:
    given = {"vector_store_query_mode": mode, "similarity_top_k": 4}
    own = ask(lambda: place.index.as_retriever(**given), QUESTIONS[0])
    ours = ask(lambda: NudgeRetriever(place.index, **given), QUESTIONS[0])
    if mode == "mmr" and own.error is not None:
        assert place.kind in MMR_FAILS
    else:
        assert own == ours
    if place.kind not in DIVERSE or mode != "mmr":
        with pytest.raises(ValueError, match=f"an overlay cannot honour the query mode '{mode}'"):
            NudgeRetriever(place.index, overlay=place.still, **given)


@OVERLAID
@pytest.mark.parametrize("cutoff", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("place", STORES, indirect=True)
def test_postprocessors_see_the_frameworks_scores(place: Place, cutoff: float, overlaid: bool) -> None:
    kept = []
    for retriever in both(place, overlaid):
        found = retriever.retrieve(QUESTIONS[0])
        kept.append(told(SimilarityPostprocessor(similarity_cutoff=cutoff).postprocess_nodes(found)))
    assert_same(kept[1], kept[0])


STORE_OPTIONS: dict[str, list[dict[str, Any]]] = {
    "chroma": [
        {"where": {"number": {"$gt": 30}}},
        {"where_document": {"$contains": "topic 1"}},
        {"include": ["documents", "metadatas", "distances"]},
    ],
    "postgres": [{"hnsw_ef_search": 20}, {"ivfflat_probes": 2}],
    "postgres-hnsw": [{"hnsw_ef_search": 80}, {"ivfflat_probes": 2}],
    "lancedb": [{"where": "metadata.number > 30"}, {"query_type": "vector"}],
    "milvus": [{"string_expr": "number > 30"}],
    "duckdb": [{}],
}
UNSERVED: dict[str, list[dict[str, Any]]] = {
    "qdrant-Dot": [{"search_params": {"exact": True}}],
    "milvus": [{"milvus_partition_names": ["_default"]}, {"milvus_search_config": {"params": {"nprobe": 3}}}],
    "lancedb": [{"query_type": "fts"}],
}
CASES = [(kind, options) for kind in here({k: KINDS[k] for k in STORE_OPTIONS}) for options in STORE_OPTIONS[kind]]
UNSERVED_CASES = [(kind, options) for kind in here({k: KINDS[k] for k in UNSERVED}) for options in UNSERVED[kind]]


@OVERLAID
@pytest.mark.parametrize(("place", "options"), CASES, indirect=["place"], ids=str)
def test_vector_store_kwargs(place: Place, options: dict[str, Any], overlaid: bool) -> None:
    own, ours = both(place, overlaid, vector_store_kwargs=options)
    assert_same(told(ours.retrieve(QUESTIONS[1])), told(own.retrieve(QUESTIONS[1])))


@pytest.mark.parametrize(("place", "options"), UNSERVED_CASES, indirect=["place"], ids=str)
def test_vector_store_kwargs_that_an_overlay_cannot_honour(place: Place, options: dict[str, Any]) -> None:
    own = ask(lambda: place.index.as_retriever(similarity_top_k=5, vector_store_kwargs=options), "topic 3")
    ours = ask(lambda: NudgeRetriever(place.index, 5, vector_store_kwargs=options), "topic 3")
    assert ours == own
    with pytest.raises(ValueError, match=f"an overlay cannot honour .*{next(iter(options))}"):
        NudgeRetriever(place.index, overlay=place.still, vector_store_kwargs=options)


@pytest.mark.parametrize("place", STORES, indirect=True)
def test_threads(place: Place) -> None:
    if place.kind == "duckdb":
        pytest.skip("a DuckDB connection is not shared by threads, in the framework's own retriever either")
    own, ours = both(place, True, similarity_top_k=5)
    questions = [f"question {turn} about {number}" for turn in range(3) for number in range(0, N, 5)]
    expected = [told(own.retrieve(question)) for question in questions]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda question: told(ours.retrieve(question)), questions))
    for ours_found, own_found in zip(found, expected, strict=True):
        assert_same(ours_found, own_found)


@OVERLAID
def test_several_indexes_on_one_store(overlaid: bool) -> None:
    store = SimpleVectorStore()
    nodes = nodes_of("simple")
    indexes = [
        VectorStoreIndex(
            nodes[part::2],
            storage_context=StorageContext.from_defaults(vector_store=store),
            embed_model=LlamaIndexWorld(),
        )
        for part in range(2)
    ]
    for part, index in enumerate(indexes):
        ids = [node.node_id for node in nodes[:10]]
        still = still_nudge(embedding_store(index), ids, embedding_store(index).read(ids))
        ours = NudgeRetriever(index, TOP_K, **({"overlay": still} if overlaid else {}))
        found = told(ours.retrieve(QUESTIONS[0]))
        assert_same(found, told(index.as_retriever(similarity_top_k=TOP_K).retrieve(QUESTIONS[0])))
        assert set(found.ids) == {node.node_id for node in nodes[part::2]}


@OVERLAID
@pytest.mark.parametrize("kind", here({kind: KINDS[kind] for kind in ("simple", "chroma", "qdrant-Dot", "faiss")}))
def test_index_nodes_are_resolved(kind: str, tmp_path: Any, overlaid: bool) -> None:
    """An IndexNode stands for another retriever, which is asked in its place."""
    inner = VectorStoreIndex(nodes_of("simple")[:5], embed_model=LlamaIndexWorld()).as_retriever(similarity_top_k=2)
    object_node = IndexNode(id_=node_id(30), text="topic 30", index_id="inner", obj=inner)
    store = make_vector_store(kind, SimpleNamespace(), tmp_path, None)
    nodes = nodes_of(kind)[5:20]
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex(nodes, objects=[object_node], storage_context=context, embed_model=LlamaIndexWorld())
    ids = [nodes[0].node_id, object_node.node_id]
    still = still_nudge(embedding_store(index), ids, embedding_store(index).read(ids))
    place = Place(kind, index, still)
    own, ours = both(place, overlaid, similarity_top_k=3)
    question = "question 1 about 30"
    found = told(ours.retrieve(question))
    assert found == told(own.retrieve(question)) if not overlaid else found.ids
    assert set(found.ids) & {node.node_id for node in nodes_of("simple")[:5]}, "the inner retriever answered"
    assert found.ids == told(own.retrieve(question)).ids


def asynchronous_store(kind: str, servers: Any) -> Any:
    if kind == "qdrant":
        from llama_index.vector_stores.qdrant import QdrantVectorStore
        from qdrant_client import AsyncQdrantClient

        return QdrantVectorStore("nodes", aclient=AsyncQdrantClient(":memory:"))
    import redis.asyncio
    from llama_index.vector_stores.redis import RedisVectorStore

    schema = redis_store("redis-llama-index", servers).schema
    client = redis.asyncio.Redis(host="127.0.0.1", port=servers.address("redis_llama_index"))
    return RedisVectorStore(schema=schema, redis_client_async=client)


@OVERLAID
@pytest.mark.parametrize("kind", here({"qdrant": "qdrant", "redis-llama-index": "redis-llama-index"}))
def test_a_store_with_an_asynchronous_client_alone(kind: str, servers: Any, overlaid: bool) -> None:
    async def answers() -> tuple[Answer, Answer]:
        store = asynchronous_store(kind, servers)
        nodes = nodes_of(kind)
        for node in nodes:
            node.embedding = vector(node.text)
        await store.async_add(nodes)
        index = VectorStoreIndex.from_vector_store(store, embed_model=LlamaIndexWorld())
        options: dict[str, Any] = {}
        if overlaid:
            ids = [node.node_id for node in nodes[::2]]
            options["overlay"] = await asyncio.to_thread(
                lambda: still_nudge(embedding_store(index), ids, embedding_store(index).read(ids))
            )
        ours = NudgeRetriever(index, 5, filters=EVEN, **options)
        found = told(await ours.aretrieve(QUESTIONS[0]))
        own = told(await index.as_retriever(similarity_top_k=5, filters=EVEN).aretrieve(QUESTIONS[0]))
        assert len(found.ids) == 5
        return found, own

    assert_same(*LOOP.run_until_complete(answers()))


@pytest.mark.parametrize("kind", here({kind: KINDS[kind] for kind in ("simple", "chroma", "lancedb", "faiss-map")}))
def test_a_search_that_is_not_asynchronous_does_not_hold_up_the_event_loop(
    kind: str, place_of: Callable[[str], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The framework's own retriever runs such a search in the event loop; ours runs it in a thread."""
    place = place_of(kind)
    threads = []
    own = type(place.index.vector_store).query

    def watched(*arguments: Any, **options: Any) -> Any:
        threads.append(threading.current_thread())
        return own(*arguments, **options)

    monkeypatch.setattr(type(place.index.vector_store), "query", watched)
    LOOP.run_until_complete(NudgeRetriever(place.index).aretrieve(QUESTIONS[0]))
    assert threads
    assert threading.main_thread() not in threads


@OVERLAID
def test_a_retriever_is_copied_and_pickled(overlaid: bool, place_of: Callable[[str], Place]) -> None:
    place = place_of("simple")
    own, ours = both(place, overlaid, similarity_top_k=5)
    expected = told(own.retrieve(QUESTIONS[0]))
    assert_same(told(ours.retrieve(QUESTIONS[0])), expected)
    assert_same(told(copy.deepcopy(ours).retrieve(QUESTIONS[0])), expected)
    assert_same(told(pickle.loads(pickle.dumps(ours)).retrieve(QUESTIONS[0])), expected)
