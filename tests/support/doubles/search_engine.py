"""Doubles of Elasticsearch and OpenSearch: the few endpoints that their integrations and adapters use.

Documents are in memory and every search is brute force. What is checked as the servers check it: unknown indexes, ids
and fields of a query, the dimension of a vector, zero and non-unit vectors. Scores are float32, as theirs.
"""

from __future__ import annotations

import copy
import operator
import uuid
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from tests.support.doubles.http import Double, Refused

# The scores that the documentation of each similarity gives.
SCORES = {
    "cosine": lambda q, v: (1 + cosine(q, v)) / 2,
    "dot_product": lambda q, v: (1 + q @ v) / 2,
    "max_inner_product": lambda q, v: 1 / (1 - q @ v) if q @ v < 0 else q @ v + 1,
    "l2_norm": lambda q, v: 1 / (1 + ((q - v) ** 2).sum()),
}
# Painless sources by what they compute; any other is refused.
SCRIPTS = {
    "Math.max(0, (1 + cosineSimilarity(params.query, 'F')) / 2)": lambda q, v: max(0, (1 + cosine(q, v)) / 2),
    "double dot = dotProduct(params.query, 'F'); return dot > 0 ? 1 + dot : 1 / (1 - dot);": SCORES[
        "max_inner_product"
    ],
    "1 / (1 + Math.pow(l2norm(params.query, 'F'), 2))": lambda q, v: 1 / (1 + np.linalg.norm(q - v) ** 2),
}
RANGES = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}
SPACES = {"cosinesimil": "cosine", "innerproduct": "max_inner_product", "l2": "l2_norm"}


def cosine(a: Any, b: Any) -> Any:
    return a @ b / np.sqrt((a @ a) * (b @ b))


@dataclass
class Index:
    name: str
    mappings: dict[str, Any]
    settings: dict[str, Any]
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    vectors: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)

    @property
    def properties(self) -> dict[str, Any]:
        found: dict[str, Any] = self.mappings.setdefault("properties", {})
        return found

    def vector_fields(self) -> list[str]:
        return [name for name, part in self.properties.items() if part.get("type") in ("dense_vector", "knn_vector")]


class SearchEngine(Double):
    """What both servers answer alike."""

    version: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.indexes: dict[str, Index] = {}
        self.scrolls: dict[str, tuple[list[Any], int]] = {}

    def answer(self, method: str, path: str, options: dict[str, list[str]], body: Any) -> Any:
        parts = [part for part in path.split("/") if part]
        match (method, parts):
            case (_, []):
                return {"version": {"number": self.version}, "cluster_uuid": "double"}
            case (_, ["_search", "scroll"]):
                return {"succeeded": True} if method == "DELETE" else self.next_page(body["scroll_id"])
            case (_, ["_msearch"]) | (_, [_, "_msearch"]):
                pairs = zip(body[::2], body[1::2], strict=True)
                return {"responses": [self.search(self.index(header["index"]), asked, {}) for header, asked in pairs]}
            case (_, ["_bulk"]) | (_, [_, "_bulk"]):
                return self.bulk(body, parts[0] if len(parts) == 2 else None)
            case ("PUT", [name]):
                settings = {"uuid": uuid.uuid4().hex, **(body.get("settings") or {}).get("index", {})}
                self.indexes[name] = Index(name, body.get("mappings") or {}, settings)
                return {"acknowledged": True}
            case ("GET" | "HEAD", [name]):
                index = self.index(name)
                return {index.name: {"mappings": index.mappings, "settings": {"index": index.settings}}}
            case (_, [name, "_search"]):
                return self.search(self.index(name), body, {name: given[-1] for name, given in options.items()})
            case ("POST", [name, "_delete_by_query"]):
                found = self.passing(self.index(name), body["query"])
                return {"deleted": sum(self.delete(self.index(name), node) for node in found), "failures": []}
            case (_, [name, "_refresh"]):
                return {"_shards": {"failed": 0}}
        raise Refused(400, f"the double has no {method} {path}")

    def index(self, name: str) -> Index:
        if name not in self.indexes:
            raise Refused(404, f"no such index [{name}]")
        return self.indexes[name]

    def bulk(self, lines: list[Any], default: str | None) -> Any:
        items, at = [], 0
        while at < len(lines):
            ((action, target),) = lines[at].items()
            index, node = self.index(target.get("_index", default)), target["_id"]
            item: dict[str, Any] = {"_index": index.name, "_id": node, "status": 200}
            try:
                if action == "update" and node not in index.documents:
                    raise Refused(404, f"[{node}]: document missing")
                if action == "delete":
                    item["status"] = 200 if self.delete(index, node) else 404
                else:
                    before = copy.deepcopy(index.documents[node]) if action == "update" else {}
                    given = lines[at + 1]["doc"] if action == "update" else lines[at + 1]
                    self.store(index, node, {**before, **given})
            except Refused as refused:
                item |= {"status": refused.status, "error": {"type": "refused", "reason": refused.reason}}
            items.append({action: item})
            at += 1 if action == "delete" else 2
        return {"errors": any("error" in next(iter(item.values())) for item in items), "items": items}

    def store(self, index: Index, node: str, source: dict[str, Any]) -> None:
        kept = dict(source)
        vectors = dict(index.vectors.get(node, {}))
        for name in index.vector_fields():
            if name in kept:
                vectors[name] = self.accepted(index.properties[name], np.array(kept.pop(name), dtype=np.float32))
        index.documents[node], index.vectors[node] = kept, vectors

    def delete(self, index: Index, node: str) -> bool:
        index.vectors.pop(node, None)
        return index.documents.pop(node, None) is not None

    def accepted(self, mapping: dict[str, Any], vector: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def hit(self, index: Index, node: str, score: Any, body: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    def ranked(self, index: Index, body: dict[str, Any]) -> list[tuple[str, float]]:
        raise NotImplementedError

    def search(self, index: Index, body: dict[str, Any], options: dict[str, str]) -> Any:
        size = int(options.get("size", body.get("size", 10)))
        if size > 10_000:
            raise Refused(400, "Result window is too large")
        found = self.ranked(index, body)
        hits = [self.hit(index, node, score, {**body, **options}) for node, score in found]
        if "scroll" in options:
            self.scrolls["scroll"] = (hits, size)
            return self.next_page("scroll")
        return self.response(hits[:size], len(hits))

    def next_page(self, scroll_id: str) -> Any:
        hits, size = self.scrolls[scroll_id]
        self.scrolls[scroll_id] = (hits[size:], size)
        return {"_scroll_id": scroll_id, **self.response(hits[:size], len(hits))}

    def response(self, hits: list[Any], total: int) -> Any:
        shards = {"total": 1, "successful": 1, "skipped": 0, "failed": 0}
        return {"timed_out": False, "_shards": shards, "hits": {"total": {"value": total}, "hits": hits}}

    def passing(self, index: Index, query: dict[str, Any] | None) -> list[str]:
        return [node for node in index.documents if query is None or self.matches(index, node, query)]

    def matches(self, index: Index, node: str, query: dict[str, Any]) -> bool:
        ((kind, given),) = query.items()
        if kind == "bool":
            known = {"filter", "must", "must_not", "should"}
            if set(given) - known:
                raise Refused(400, f"the double knows no {set(given) - known}")
            passes = {name: [self.matches(index, node, part) for part in listed(given.get(name))] for name in known}
            some = not passes["should"] or any(passes["should"])
            return all(passes["filter"] + passes["must"]) and some and not any(passes["must_not"])
        if kind == "ids":
            return node in given["values"]
        if kind == "exists":
            return given["field"] in index.vectors[node] or self.value(index, node, given["field"]) is not None
        if kind in ("term", "terms", "range"):
            ((path, wanted),) = given.items()
            value = self.value(index, node, path)
            if kind == "range":
                return value is not None and all(RANGES[name](value, bound) for name, bound in wanted.items())
            wanted = wanted["value"] if isinstance(wanted, dict) else wanted
            return value in wanted if kind == "terms" else type(value) is type(wanted) and value == wanted
        raise Refused(400, f"the double knows no query [{kind}]")

    def value(self, index: Index, node: str, path: str) -> Any:
        """A value of the document; whole strings are found under .keyword only, where dynamic mapping has them."""
        if path == "_id":
            return node
        name, keyword, _ = path.partition(".keyword")
        value: Any = index.documents[node]
        mapping: dict[str, Any] = index.mappings
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
            mapping = mapping.get("properties", {}).get(part, {})
        whole = bool(keyword) if mapping.get("type") != "keyword" else not keyword
        return value if whole or not isinstance(value, str) else None

    def scored(self, index: Index, name: str, nodes: list[str], score: Any, query: Any) -> list[tuple[str, float]]:
        asked = np.array(query, dtype=np.float64)
        if len(asked) != int(index.properties[name].get("dims") or index.properties[name]["dimension"]):
            raise Refused(400, "the query vector has a different number of dimensions")
        rows = {node: index.vectors[node][name] for node in nodes if name in index.vectors[node]}
        scores = {node: float(np.float32(score(asked, row.astype(np.float64)))) for node, row in rows.items()}
        return sorted(scores.items(), key=lambda pair: -pair[1])


class Elasticsearch(SearchEngine):
    """As of 9.2: vectors are no part of _source unless asked for as fields."""

    version = "9.2.0"
    headers: ClassVar[dict[str, str]] = {"X-Elastic-Product": "Elasticsearch", "Content-Type": "application/json"}

    def accepted(self, mapping: dict[str, Any], vector: np.ndarray) -> np.ndarray:
        if len(vector) != mapping["dims"]:
            raise Refused(400, "the [dense_vector] field has a different number of dimensions")
        norm = np.linalg.norm(vector)
        similarity = mapping.get("similarity", "cosine") if mapping.get("index", True) else None
        if similarity == "cosine" and norm == 0:
            raise Refused(400, "the [cosine] similarity does not support vectors with zero magnitude")
        if similarity == "dot_product" and abs(norm**2 - 1) > 1e-4:
            raise Refused(400, "the [dot_product] similarity can only be used with unit-length vectors")
        # A cosine field keeps a unit vector and its length, and multiplies them when it is asked.
        return (vector / norm) * norm if similarity == "cosine" else vector

    def hit(self, index: Index, node: str, score: Any, body: dict[str, Any]) -> dict[str, Any]:
        hit: dict[str, Any] = {"_index": index.name, "_id": node, "_score": score}
        if body.get("_source", True) not in (False, "false"):
            hit["_source"] = index.documents[node]
        fields = [name for name in body.get("fields", []) if name in index.vectors[node]]
        if fields:
            hit["fields"] = {name: index.vectors[node][name].tolist() for name in fields}
        return hit

    def ranked(self, index: Index, body: dict[str, Any]) -> list[tuple[str, float]]:
        if "knn" in body:
            knn = body["knn"]
            if knn["num_candidates"] > 10_000 or knn["k"] > knn["num_candidates"]:
                raise Refused(400, "[num_candidates] must be between [k] and 10000")
            mapping = index.properties[knn["field"]]
            if not mapping.get("index", True):
                raise Refused(400, "to perform knn search on a field, its mapping must have [index] set to [true]")
            self.accepted(mapping, np.array(knn["query_vector"]))
            nodes = self.passing(index, {"bool": {"filter": listed(knn.get("filter"))}})
            score = SCORES[mapping.get("similarity", "cosine")]
            return self.scored(index, knn["field"], nodes, score, knn["query_vector"])[: knn["k"]]
        if "script_score" in (body.get("query") or {}):
            given = body["query"]["script_score"]
            (name,) = index.vector_fields()
            source = given["script"]["source"].replace(f"'{name}'", "'F'")
            nodes = self.passing(index, given["query"])
            return self.scored(index, name, nodes, SCRIPTS[source], given["script"]["params"]["query"])
        return [(node, 0.0) for node in self.passing(index, body.get("query"))]


class OpenSearch(SearchEngine):
    """As of 3.0: vectors are in _source, as the engine keeps them."""

    version = "3.0.0"
    headers: ClassVar[dict[str, str]] = {"Content-Type": "application/json"}

    def accepted(self, mapping: dict[str, Any], vector: np.ndarray) -> np.ndarray:
        if len(vector) != mapping["dimension"]:
            raise Refused(400, "Vector dimension mismatch")
        method = mapping.get("method", {})
        if method.get("space_type") == "cosinesimil":
            if not vector.any():
                raise Refused(400, "zero vector is not supported when space type is [cosinesimil]")
            if method.get("engine", "faiss") == "faiss":
                return vector / np.linalg.norm(vector)
        return vector

    def hit(self, index: Index, node: str, score: Any, body: dict[str, Any]) -> dict[str, Any]:
        hit: dict[str, Any] = {"_index": index.name, "_id": node, "_score": score}
        wanted = body.get("_source", True)
        if wanted is not False:
            vectors = {name: row.tolist() for name, row in index.vectors[node].items()}
            source = {**index.documents[node], **vectors}
            hit["_source"] = {name: source[name] for name in wanted if name in source} if wanted is not True else source
        return hit

    def ranked(self, index: Index, body: dict[str, Any]) -> list[tuple[str, float]]:
        query = body.get("query")
        if query and "knn" in query:
            ((name, knn),) = query["knn"].items()
            if not 0 < knn["k"] <= 10_000:
                raise Refused(400, "[knn] requires k to be in the range (0, 10000]")
            method = index.properties[name].get("method", {})
            space = method.get("space_type") or index.settings.get("knn.space_type", "l2")
            nodes = self.passing(index, knn.get("filter"))
            return self.scored(index, name, nodes, SCORES[SPACES[space]], knn["vector"])[: knn["k"]]
        if query and "script_score" in query:
            script = query["script_score"]["script"]
            if (script["lang"], script["source"]) != ("knn", "knn_score"):
                raise Refused(400, "the double knows no other script")
            given, nodes = script["params"], self.passing(index, query["script_score"]["query"])
            score = SCORES[SPACES[given["space_type"]]]
            return self.scored(index, given["field"], nodes, score, given["query_value"])
        return [(node, 0.0) for node in self.passing(index, query)]


def listed(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [] if given is None else [given]
