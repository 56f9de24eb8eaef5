"""A double of one Pinecone index: the REST endpoints that the integrations and the adapter use, brute force."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tests.support.doubles.http import Double, Refused

SCORES = {
    "cosine": lambda q, v: q @ v / np.sqrt((q @ q) * (v @ v)),
    "dotproduct": lambda q, v: q @ v,
    "euclidean": lambda q, v: ((q - v) ** 2).sum(),
}


class Pinecone(Double):
    """Records by id, in one namespace. Updates are seen from the second read on: Pinecone is eventually consistent."""

    headers: ClassVar[dict[str, str]] = {"Content-Type": "application/json"}

    def __init__(self, metric: str, dimension: int) -> None:
        super().__init__()
        self.metric, self.dimension = metric, dimension
        self.records: dict[str, dict[str, Any]] = {}
        self.pending: list[tuple[int, str, list[float]]] = []

    def answer(self, method: str, path: str, options: dict[str, list[str]], body: Any) -> Any:
        match (method, path):
            case ("POST", "/describe_index_stats"):
                namespaces = {"__default__": {"vectorCount": len(self.records)}}
                kind = {"metric": self.metric, "dimension": self.dimension, "vectorType": "dense"}
                return {**kind, "namespaces": namespaces, "totalVectorCount": len(self.records), "indexFullness": 0}
            case ("POST", "/vectors/upsert"):
                for record in body["vectors"]:
                    self.records[record["id"]] = {**record, "values": self.accepted(record["values"])}
                return {"upsertedCount": len(body["vectors"])}
            case ("POST", "/vectors/update"):
                self.pending.append((1, body["id"], self.accepted(body["values"])))
                return {}
            case ("POST", "/vectors/delete"):
                for name in body["ids"]:
                    self.records.pop(name, None)
                return {}
            case ("GET", "/vectors/fetch"):
                if len(options["ids"]) > 100:
                    raise Refused(414, "URI too long")
                if any(len(name) > 512 for name in options["ids"]):
                    raise Refused(400, "vector ids have at most 512 characters")
                found = {name: self.records[name] for name in options["ids"] if name in self.records}
                answer = {"vectors": dict(found), "namespace": "", "usage": {"readUnits": 1}}
                self.settle()
                return answer
            case ("GET", "/vectors/list"):
                return self.listed(int(options["limit"][0]), options.get("paginationToken", [""])[0])
            case ("POST", "/query"):
                return self.query(body)
        raise Refused(404, f"the double has no {method} {path}")

    def accepted(self, values: list[float]) -> list[float]:
        if len(values) != self.dimension:
            raise Refused(400, f"Vector dimension {len(values)} does not match the dimension of the index")
        if self.metric == "cosine" and not any(values):
            raise Refused(400, "Dense vectors must contain at least one non-zero value")
        kept: list[float] = np.array(values, dtype=np.float32).tolist()
        return kept

    def settle(self) -> None:
        for reads, name, values in self.pending:
            if reads == 0 and name in self.records:
                self.records[name] = {**self.records[name], "values": values}
        self.pending = [(reads - 1, name, values) for reads, name, values in self.pending if reads > 0]

    def listed(self, limit: int, token: str) -> Any:
        names = sorted(self.records)[int(token or 0) :]
        more = {"pagination": {"next": str(int(token or 0) + limit)}} if len(names) > limit else {}
        return {"vectors": [{"id": name} for name in names[:limit]], "namespace": "", **more}

    def query(self, body: dict[str, Any]) -> Any:
        if not 0 < body["topK"] <= 10_000:
            raise Refused(400, "topK must be between 1 and 10000")
        asked = np.array(body["vector"], dtype=np.float64)
        kept = {n: r for n, r in self.records.items() if self.passes(r.get("metadata") or {}, body.get("filter") or {})}
        rows = {name: np.array(record["values"], dtype=np.float64) for name, record in kept.items()}
        scores = {name: float(np.float32(SCORES[self.metric](asked, row))) for name, row in rows.items()}
        ranked = sorted(scores, key=lambda name: scores[name], reverse=self.metric != "euclidean")[: body["topK"]]
        return {"matches": [{"id": name, "score": scores[name]} for name in ranked], "namespace": ""}

    def passes(self, metadata: dict[str, Any], where: dict[str, Any]) -> bool:
        """Equality, alone or under $eq, and $lt."""
        for key, given in where.items():
            ((operator, value),) = given.items() if isinstance(given, dict) else [("$eq", given)]
            if operator not in ("$eq", "$lt"):
                raise Refused(400, f"the double knows no filter {operator}")
            if not (metadata[key] < value if operator == "$lt" else metadata.get(key) == value):
                return False
        return True
