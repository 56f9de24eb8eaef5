"""Every LangChain store, before any nudge: the framework's own retriever and ours give the same answers.

Ours answers twice: as it is, and through an overlay whose vectors are those that the store holds, which changes nothing
but takes every answer from the library's adapter instead of the framework's search.
"""

from __future__ import annotations

import asyncio
import itertools
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_nudge import NudgeRetriever, embedding_store

from nudge_rag import Nudge
from nudge_rag.solvers import ValidationCurve
from tests.integrations.conftest import LangChainWorld, node_id
from tests.integrations.test_langchain import make_vectorstore
from tests.support.builders.registry import here

KINDS = {
    "in-memory": "in-memory",
    "chroma": "chroma",
    "chroma-cosine": "chroma",
    "chroma-ip": "chroma",
    "qdrant-Cosine": "qdrant",
    "qdrant-Dot": "qdrant",
    "qdrant-Euclid": "qdrant",
    "lancedb": "lance",
    "postgres": "postgres",
    "postgres-v2": "postgres",
    "faiss": "faiss",
    "milvus": "milvus",
    "duckdb": "duckdb",
    "sqlite-vec": "sqlite-vec",
    "redis-langchain": "redis-langchain",
    "redis-langchain-IP": "redis-langchain",
    "redis-langchain-L2": "redis-langchain",
}
N = 48
QUERY = "question 3 about 7"
NAMES = ("O'Neil", 'the "best"', "50% off", "snow_man", "back\\slash", "Zoë")
COLUMNS = {"number": "integer", "price": "double precision", "even": "boolean", "name": "text", "day": "text"}
COLUMNS |= {"rare": "text"}


def metadata_of(number: int) -> dict[str, Any]:
    """Numbers, booleans, text that needs quoting, dates and numbers as text, and a key that most nodes lack."""
    found = {"number": number, "price": number / 4, "even": number % 2 == 0, "name": NAMES[number % len(NAMES)]}
    found |= {"day": f"2025-01-{number % 28 + 1:02d}", "digits": str(number)}
    return found | ({"rare": "yes"} if number % 5 == 0 else {})


# ---- filters: what they are called, in the store's own form, and what they mean ----------------------------------


def dictionaries(operators: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
    """Every operator with every value that it is listed with, for every key."""
    found = {}
    for (operator, values), key in itertools.product(
        operators.items(), ("number", "price", "even", "name", "day", "no")
    ):
        for value in values:
            found[f"{key} {operator} {value!r}"] = {key: {operator: value}}
    return found


SCALARS = (7, 7.0, "7", True, False, NAMES[0], NAMES[1], NAMES[2], NAMES[3], NAMES[4], NAMES[5], "2025-01-08", "")
ORDERED = (7, 6.5, "2025-01-08", "7")
LISTS = ([7, 9], [1.75, 2.25], [NAMES[0], NAMES[2]], ["7"], ["2025-01-08"])
LIKES = ("%O'N%", "50%%", "snow_man", "%", "", "zo%", "50\\% off")
NESTED: dict[str, Any] = {
    "and": {"$and": [{"even": True}, {"number": {"$gt": 5}}]},
    "or": {"$or": [{"number": {"$lt": 3}}, {"name": NAMES[2]}]},
    "or in and": {"$and": [{"$or": [{"number": 7}, {"number": 9}]}, {"even": False}]},
    "and in or": {"$or": [{"$and": [{"even": True}, {"number": {"$lt": 9}}]}, {"name": {"$in": [NAMES[1]]}}]},
    "contradiction": {"$and": [{"even": True}, {"even": False}]},
    "empty": {},
    "bad operator": {"number": {"$nope": 3}},
    "operator as field": {"$nope": [{"number": 3}]},
}
EQUALITIES = {f"{key} is {value!r}": {key: value} for key in ("number", "even", "name", "no") for value in SCALARS}
COMPARISONS = {"$eq": SCALARS, "$ne": SCALARS[:6], "$lt": ORDERED, "$lte": ORDERED, "$gt": ORDERED, "$gte": ORDERED}


def chroma_filters() -> dict[str, Any]:
    return EQUALITIES | dictionaries(COMPARISONS | {"$in": LISTS, "$nin": LISTS}) | NESTED


def postgres_filters() -> dict[str, Any]:
    operators = COMPARISONS | {"$in": (*LISTS, []), "$nin": (*LISTS, []), "$like": LIKES, "$ilike": LIKES}
    operators |= {"$between": ((3, 9), (0.5, 2.25), ("2025-01-03", "2025-01-09")), "$exists": (True, False)}
    more = {"two keys": {"even": True, "number": {"$lt": 9}}, "not": {"$not": {"even": True}}}
    more |= {"not of a list": {"$not": [{"even": True}, {"number": 7}]}, "no identifier": {"a b": 3}}
    return EQUALITIES | dictionaries(operators) | NESTED | more


def faiss_filters() -> dict[str, Any]:
    more: dict[str, Any] = {"two keys": {"even": True, "number": 8}, "not": {"$not": {"even": True}}}
    more["a list as value"] = {"name": [NAMES[0], NAMES[2]]}
    more["a function"] = lambda metadata: metadata["number"] % 3 == 0
    return EQUALITIES | dictionaries(COMPARISONS | {"$in": LISTS, "$nin": LISTS}) | NESTED | more


def functions() -> dict[str, Any]:
    return {
        "even": lambda document: document.metadata["even"],
        "by text": lambda document: document.page_content.endswith("7"),
        "by id": lambda document: document.id == node_id(9),
        "a key that some lack": lambda document: document.metadata.get("rare") == "yes",
        "nothing": lambda document: False,
        "not a boolean": lambda document: document.metadata["number"] % 3,
        "fails": lambda document: document.metadata["rare"] == "yes",
    } | {f"name {name!r}": (lambda document, name=name: document.metadata["name"] == name) for name in NAMES}


def qdrant_filters() -> dict[str, Any]:
    if "qdrant-Cosine" not in here(KINDS):
        return {}
    from qdrant_client import models

    def has(key: str, **condition: Any) -> Any:
        return models.FieldCondition(key=f"metadata.{key}", **condition)

    conditions = {
        f"{key} is {value!r}": has(key, match=models.MatchValue(value=value))
        for key in ("number", "even", "name", "digits", "no")
        for value in SCALARS
        if not isinstance(value, float)
    }
    conditions |= {
        f"{key} any": has(key, match=models.MatchAny(any=["7", NAMES[2]])) for key in ("name", "digits", "no")
    }
    conditions |= {
        f"{key} except": has(key, match=models.MatchExcept(**{"except": [NAMES[0]]})) for key in ("name", "no")
    }
    conditions |= {
        f"{key} {side} {value}": has(key, range=models.Range(**{side: value}))
        for key in ("number", "price", "name")
        for side in ("lt", "lte", "gt", "gte")
        for value in (7, 6.5)
    }
    conditions["empty"] = models.IsEmptyCondition(is_empty=models.PayloadField(key="metadata.rare"))
    found = {name: models.Filter(must=[condition]) for name, condition in conditions.items()}
    found |= {f"not {name}": models.Filter(must_not=[condition]) for name, condition in conditions.items()}
    some = list(conditions.values())
    found["should"] = models.Filter(should=some[:3])
    found["nested"] = models.Filter(must=[models.Filter(should=[some[0], models.Filter(must_not=some[3:5])])])
    return found


def milvus_filters() -> dict[str, Any]:
    texts = [f'name == "{name}"' for name in ("O'Neil", "50% off", "snow_man", "Zoë")]
    texts += [
        f"{key} {sign} {value}"
        for key in ("number", "price")
        for sign in ("==", "!=", "<", "<=", ">", ">=")
        for value in (7, 6.5)
    ]
    texts += ["even == true", "even == false", "number in [7, 9]", "number not in [7, 9]", 'name in ["O\'Neil", "Zoë"]']
    texts += ['name like "50%"', 'name like "%man"', 'name like "snow_man"', 'day > "2025-01-08"', 'digits == "7"']
    texts += ["number > 5 and even == true", "(number < 3 or number > 40) and not (even == true)", "number in []"]
    texts += ["number % 5 == 0", "not even == true", "nonsense ===", 'name == "', ""]
    return {text: text for text in texts}


def lance_filters() -> dict[str, Any]:
    fields, signs = ("metadata.number", "metadata.price"), ("=", "!=", "<", "<=", ">", ">=")
    texts = [" ".join(parts) for parts in itertools.product(fields, signs, ("7", "6.5"))]
    texts += ["metadata.even = true", "metadata.even IS FALSE", "metadata.number IN (7, 9)"]
    texts += ["metadata.number NOT IN (7)", "metadata.name = 'O''Neil'", "metadata.name LIKE '50%'"]
    texts += ["metadata.name LIKE '%man'", "metadata.name LIKE 's%'", "metadata.number > 5 AND metadata.even"]
    texts += ["(metadata.number < 3 OR metadata.number > 40) AND metadata.even"]
    texts += ["metadata.day BETWEEN '2025-01-03' AND '2025-01-09'", "metadata.digits = '7'", "NOT metadata.even"]
    texts += [
        "metadata.number > 5 AND metadata.even",
        "(metadata.number < 3 OR metadata.number > 40) AND metadata.even",
    ]
    texts += ["metadata.rare IS NULL", "metadata.rare = 'yes'", "no_such_column = 3", "nonsense ==="]
    return {text: text for text in texts}


def redis_filters() -> dict[str, Any]:
    """Redis has no filter on what its index does not name, and none on text that is not a whole word."""
    if "redis-langchain" not in here(KINDS):
        return {}
    from redisvl.query.filter import FilterExpression, Num, Tag, Text

    found: dict[str, Any] = {}
    for key, value in itertools.product(("number", "price", "even", "no"), (7, 6.5, 0, -1)):
        field = Num(key)
        found |= {f"{key} == {value}": field == value, f"{key} != {value}": field != value}
        found |= {f"{key} < {value}": field < value, f"{key} <= {value}": field <= value}
        found |= {f"{key} > {value}": field > value, f"{key} >= {value}": field >= value}
    for key, value in itertools.product(
        ("name", "day", "digits", "rare", "no"), (*NAMES, "2025-01-08", "7", "yes", "")
    ):
        found |= {f"{key} is {value!r}": Tag(key) == value, f"{key} is not {value!r}": Tag(key) != value}
    found |= {
        f"{key} in {values}": Tag(key) == values for key, values in itertools.product(("name", "digits"), LISTS[2:4])
    }
    found |= {f"between {how}": Num("number").between(3, 9, how) for how in ("both", "neither", "left", "right")}
    found |= {"some name": Tag("name") % "O*", "topic": Text("text") % "topic", "seven": Text("text") == "topic 7"}
    even, large, quoted = Num("even") == 1, Num("number") > 30, Tag("name") == NAMES[0]
    found |= {"and": even & large, "or": large | quoted, "or in and": even & (large | quoted)}
    found |= {"and in or": (even & large) | quoted, "contradiction": even & (Num("even") == 0)}
    found |= {"everything": FilterExpression("*"), "text": FilterExpression("@number:[7 9]")}
    return found | {
        "either text": FilterExpression("@number:[7 9] | @number:[40 41]"),
        "nonsense": FilterExpression("@number:["),
    }


MEANT: dict[str, tuple[Any, Callable[[dict[str, Any]], bool]]] = {}
for key, value in itertools.product(("number", "even", "name", "digits", "no"), SCALARS[:-1]):
    same = isinstance(value, bool)
    MEANT[f"{key} is {value!r}"] = (
        {key: value},
        lambda metadata, key=key, value=value: (
            key in metadata
            and isinstance(metadata[key], bool) == isinstance(value, bool)
            and isinstance(metadata[key], str) == isinstance(value, str)
            and metadata[key] == value
        ),
    )
MEANT["two keys"] = ({"even": True, "number": 8}, lambda metadata: metadata["number"] == 8)
FILTERS: dict[str, dict[str, Any]] = {
    "in-memory": functions(),
    "chroma": chroma_filters(),
    "qdrant-Cosine": qdrant_filters(),
    "lancedb": lance_filters(),
    "postgres": postgres_filters(),
    "postgres-v2": postgres_filters(),
    "faiss": faiss_filters(),
    "milvus": milvus_filters(),
    "redis-langchain": redis_filters(),
}
# One space or distance of a database is enough for its filters; of the others, a few.
SOME_FILTERS = {
    "chroma-cosine": "chroma",
    "chroma-ip": "chroma",
    "qdrant-Dot": "qdrant-Cosine",
    "qdrant-Euclid": "qdrant-Cosine",
    "redis-langchain-IP": "redis-langchain",
    "redis-langchain-L2": "redis-langchain",
}
UNFILTERED = ("duckdb", "sqlite-vec")
FILTER_OPTION = {"milvus": "expr"}
FILTERED_SEARCHES = {"mmr": {"k": 4, "fetch_k": 12}, "similarity_score_threshold": {"score_threshold": 0.1}}
SEARCHES: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"k={k}": ("similarity", {"k": k}) for k in (1, 2, 5, 10, 11, 17, N, N + 50)},
    "no k": ("similarity", {}),
    **{
        f"threshold {at}": ("similarity_score_threshold", {"score_threshold": at, "k": 9})
        for at in (0.0, 0.2, 0.45, 0.8, 1.0)
    },
    "threshold, no k": ("similarity_score_threshold", {"score_threshold": 0.1}),
    **{
        f"mmr {k} of {fetch_k}, {mult}": ("mmr", {"k": k, "fetch_k": fetch_k, "lambda_mult": mult})
        for k, fetch_k in ((3, 10), (6, 20), (8, 40))
        for mult in (0.0, 0.3, 1.0)
    },
    "mmr": ("mmr", {}),
}

# ---- what is known to differ, and why ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """Where ours answers otherwise, on purpose: the stores, the cases, the reason, and how it may differ."""

    kinds: str
    case: str
    reason: str
    may: Callable[[Any, Any], bool]
    overlay_only: bool = False


def failed(expected: Any, found: Any) -> bool:
    return isinstance(expected, type) and isinstance(found, list)


def stopped_early(expected: Any, found: Any) -> bool:
    return isinstance(expected, list) and found[: len(expected)] == expected and len(found) > len(expected)


def other(expected: Any, found: Any) -> bool:
    return isinstance(expected, list) and isinstance(found, list)


DIFFERENCES = [
    Difference(
        "qdrant-*", "*mmr*", "the integration's MMR fails on a vector without a name in local mode", failed, True
    ),
    Difference("lancedb", "*, mmr", "the integration's MMR filters after its search, whatever it is told", other),
    Difference("duckdb", "mmr*", "the integration has no MMR; ours reads the vectors", failed),
    Difference("sqlite-vec", "mmr*", "the integration has no MMR; ours reads the vectors", failed),
    Difference("faiss", "*", "without fetch_k it filters the 20 nearest alone; ours all", stopped_early),
    Difference("chroma*", "empty*", "Chroma refuses an empty filter; ours takes it for none", failed, True),
    Difference(
        "postgres-v2",
        "*",
        "the integration sends a parameter of another type than the column's; PostgreSQL reads ours as the column's",
        failed,
        True,
    ),
]


def reason_for(kind: str, name: str, overlay: bool, expected: Any, found: Any) -> str | None:
    for one in DIFFERENCES:
        named = fnmatch(kind, one.kinds) and fnmatch(name, one.case) and overlay >= one.overlay_only
        if named and one.may(expected, found):
            return one.reason
    return None


def cases() -> list[Any]:
    found = []
    for kind in here(KINDS):
        for name, (search_type, options) in SEARCHES.items():
            found.append(pytest.param(kind, search_type, options, id=f"{kind}: {name}"))
        filters = FILTERS.get(SOME_FILTERS.get(kind, kind), {})
        chosen = list(filters.items())[:: 12 if kind in SOME_FILTERS else 1]
        option = FILTER_OPTION.get(kind, "filter")
        for name, given in chosen:
            found.append(pytest.param(kind, "similarity", {"k": 6, option: given}, id=f"{kind}: {name}"))
        for name, given in chosen[::9]:
            for search_type, options in (
                ("mmr", {"k": 4, "fetch_k": 12}),
                ("similarity_score_threshold", {"score_threshold": 0.1}),
            ):
                found.append(
                    pytest.param(kind, search_type, options | {option: given}, id=f"{kind}: {name}, {search_type}")
                )
    return found


# ---- stores, each built once ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stores(tmp_path_factory, servers):
    """Makes a store with all nodes at its first use."""
    made: dict[str, Any] = {}

    def get(kind: str) -> Any:
        if kind not in made:
            made[kind] = build(kind, tmp_path_factory.mktemp("differential"), servers)
        return made[kind]

    return get


def build(kind: str, folder: Any, servers: Any) -> Any:
    world = SimpleNamespace(langchain=LangChainWorld())

    def number_by(naming: Any) -> None:
        world.rows = [(naming(i), f"topic {i}", metadata_of(i)) for i in range(N)]

    world.number_by = number_by
    number_by(node_id)
    if kind == "postgres-v2":
        store = postgres_v2(world, servers)
    elif kind.startswith("redis"):
        store = redis_by(kind, world, servers)
    else:
        store = make_vectorstore(kind, world, folder, servers)
    documents = [Document(id=node, page_content=text, metadata=metadata) for node, text, metadata in world.rows]
    if kind == "lancedb":  # a table has one schema
        for document in documents:
            document.metadata.setdefault("rare", None)
    if kind == "milvus":
        for document in documents:
            document.metadata.pop("rare", None)
    store.add_documents(documents)
    # Vectors as the store holds them: an overlay that changes nothing.
    adapter = embedding_store(store)
    ids = [row[0] for row in world.rows if int(row[1].split()[1]) % 3]
    held = adapter.read(ids)
    curve = ValidationCurve([0.0], [0.0], "nDCG@10")
    overlay = Nudge(adapter, tuple(ids), held, held, 0.1, curve, True, "nothing moves", "none")
    return SimpleNamespace(store=store, overlay=overlay, ids={row[1]: row[0] for row in world.rows}, opened={})


def redis_by(kind: str, world: Any, servers: Any) -> Any:
    from tests.support.builders.redis_langchain import vectorstore_on
    from tests.support.redis_server import storable

    world.rows = [(node, text, storable(metadata)) for node, text, metadata in world.rows]
    kinds = {"numeric": ("number", "price", "even"), "tag": ("name", "day", "digits", "rare")}
    fields = [{"name": name, "type": type_} for type_, names in kinds.items() for name in names]
    metric = kind.removeprefix("redis-langchain").removeprefix("-") or "COSINE"
    port = servers.address("redis_langchain")
    return vectorstore_on(port, world.langchain, 16, metadata_schema=fields, distance_metric=metric)


def postgres_v2(world: Any, servers: Any) -> Any:
    from langchain_postgres import Column, PGEngine, PGVectorStore

    from tests.support.builders.postgres import new_database, with_driver

    engine = PGEngine.from_connection_string(with_driver(new_database(servers), "psycopg"))
    engine.init_vectorstore_table("nodes", 16, metadata_columns=[Column(*column) for column in COLUMNS.items()])
    return PGVectorStore.create_sync(engine, world.langchain, "nodes", metadata_columns=list(COLUMNS))


# ---- answers ---------------------------------------------------------------------------------------------------------


DATABASE_ERRORS = ("sqlalchemy.exc", "psycopg", "redis.exceptions", "redisvl.exceptions")


def answer(ask: Callable[[], list[Document]]) -> Any:
    """Documents with their metadata, in order; or the kind of error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = ask()
        except Exception as error:
            return DatabaseError if type(error).__module__.startswith(DATABASE_ERRORS) else type(error)
    return [(one.page_content, {key: rounded(value) for key, value in one.metadata.items()}) for one in found]


class DatabaseError(Exception):
    """Whatever the database refuses, through one library or another."""


def rounded(value: Any) -> Any:
    return round(value, 5) if isinstance(value, float) else value


@pytest.mark.parametrize(("kind", "search_type", "options"), cases())
def test_same_answers(kind, search_type, options, stores, request):
    made = stores(kind)
    name = request.node.callspec.id.partition(": ")[2]
    expected = answer(lambda: framework(kind, made.store, search_type, options))
    for overlay in (None, made.overlay):
        found = answer(lambda overlay=overlay: ours(made, search_type, options, overlay).invoke(QUERY))
        if found != expected:
            assert reason_for(kind, name, overlay is not None, expected, found), f"overlay: {overlay is not None}"


@pytest.mark.parametrize("kind", here(KINDS))
def test_ids_are_those_of_the_nodes(kind, stores):
    made = stores(kind)
    for overlay in (None, made.overlay):
        found = ours(made, "similarity", {"k": 7}, overlay).invoke(QUERY)
        assert [made.ids[document.page_content] for document in found] == [document.id for document in found]


# Options of a store's own search, and whether an overlay can honour them.
OWN_OPTIONS: dict[str, list[tuple[dict[str, Any], bool]]] = {
    "chroma": [({"where_document": {"$contains": "7"}}, True)],
    "qdrant-Cosine": [({"offset": 2}, False), ({"score_threshold": 0.4}, True), ({"consistency": 1}, False)],
    "milvus": [({"timeout": 5}, False), ({"param": {"metric_type": "L2"}}, False)],
    "faiss": [({"fetch_k": 5}, True), ({"score_threshold": 1.0}, True)],
    "lancedb": [({"query_type": "vector"}, False), ({"nothing": 1}, False)],
    "postgres": [({"nothing": 1}, False)],
    "postgres-v2": [({"nothing": 1}, False)],
    "in-memory": [({"nothing": 1}, False)],
    "duckdb": [({"nothing": 1}, False)],
    "sqlite-vec": [({"nothing": 1}, False)],
    "redis-langchain": [
        ({"distance_threshold": 0.5}, False),
        ({"distance_threshold": 0.05}, False),
        ({"return_metadata": False}, False),
        ({"sort_by": "number"}, False),
        ({"return_all": True}, False),
        ({"nothing": 1}, False),
    ],
}
OWN_CASES = [(kind, *case) for kind in here({kind: KINDS[kind] for kind in OWN_OPTIONS}) for case in OWN_OPTIONS[kind]]


@pytest.mark.parametrize(("kind", "options", "overlaid"), OWN_CASES, ids=str)
def test_options_of_the_stores_own_search(kind, options, overlaid, stores):
    made = stores(kind)
    expected = answer(lambda: framework(kind, made.store, "similarity", {"k": 6, **options}))
    assert answer(lambda: ours(made, "similarity", {"k": 6, **options}, None).invoke(QUERY)) == expected
    awaited = answer(lambda: asyncio.run(ours(made, "similarity", {"k": 6, **options}, None).ainvoke(QUERY)))
    assert awaited == expected
    if overlaid:
        assert answer(lambda: ours(made, "similarity", {"k": 6, **options}, made.overlay).invoke(QUERY)) == expected
    else:
        with pytest.raises(ValueError, match=f"{next(iter(options))} of search_kwargs cannot be honoured"):
            ours(made, "similarity", options, made.overlay)


MODES = {
    "similarity": {"k": 5},
    "mmr": {"k": 4, "fetch_k": 9},
    "similarity_score_threshold": {"k": 8, "score_threshold": 0.2},
}
QUERIES = [f"question {n} about {n * 5}" for n in range(6)]


@pytest.mark.parametrize("search_type", MODES)
@pytest.mark.parametrize("kind", here(KINDS))
def test_sync_async_batch_and_threads_are_one(kind, search_type, stores):
    made = stores(kind)
    for overlay in (None, made.overlay):
        retriever = ours(made, search_type, MODES[search_type], overlay)
        asked = [partial(retriever.invoke, query) for query in QUERIES]
        one_by_one = [answer(ask) for ask in asked]
        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(answer, asked)) == one_by_one
        awaited = [answer(partial(asyncio.run, retriever.ainvoke(query))) for query in QUERIES]
        assert awaited == one_by_one
        if isinstance(one_by_one[0], list):
            batches = (retriever.batch(QUERIES), asyncio.run(retriever.abatch(QUERIES)))
            assert [[answer(lambda found=found: found) for found in batch] for batch in batches] == [one_by_one] * 2


@pytest.mark.parametrize("name", MEANT)
@pytest.mark.parametrize("kind", here({kind: kind for kind in UNFILTERED}))
def test_filters_that_the_framework_ignores(kind, name, stores):
    given, means = MEANT[name]
    made = stores(kind)
    everything = made.store.similarity_search(QUERY, k=N)
    expected = [one.page_content for one in everything if means(one.metadata)][:6]
    for overlay in (None, made.overlay):
        found = ours(made, "similarity", {"k": 6, "filter": given}, overlay).invoke(QUERY)
        assert [one.page_content for one in found] == expected


def test_there_are_enough_cases():
    if len(here(KINDS)) == len(KINDS):
        assert len(cases()) + len(MEANT) * len(UNFILTERED) >= 1_500


def framework(kind: str, store: Any, search_type: str, options: dict[str, Any]) -> list[Document]:
    options = dict(options)
    if kind == "lancedb":
        options["prefilter"] = True  # otherwise it filters after it searched
    return store.as_retriever(search_type=search_type, search_kwargs=options).invoke(QUERY)


def ours(made: Any, search_type: str, options: dict[str, Any], overlay: Nudge | None) -> NudgeRetriever:
    """A retriever with these options, which it checks; those of a store share what they open, a dozen reads a time."""
    opened = made.opened.get(overlay is not None)
    if opened is None or search_type != "similarity":
        found = NudgeRetriever(vectorstore=made.store, search_type=search_type, search_kwargs=options, overlay=overlay)
        made.opened.setdefault(overlay is not None, found)
        return found
    found = opened.model_copy(update={"search_type": search_type, "search_kwargs": dict(options)})
    found.model_post_init(None)
    return found
