"""Elasticsearch indexes with a ``dense_vector`` field (experimental)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nudge_rag.common.packages import import_package
from nudge_rag.stores.base import Capabilities, Similarity
from nudge_rag.stores.checks import warn_experimental
from nudge_rag.stores.location import StoreLocation
from nudge_rag.stores.lucene import LARGEST_K, ROUNDING, Hit, LuceneStore, one_index, vector_mapping

__all__ = ["ElasticsearchStore"]

# dot_product fields hold unit vectors only, whose inner product is their cosine.
SIMILARITY: dict[str, Similarity] = {
    "cosine": "cosine",
    "dot_product": "cosine",
    "max_inner_product": "dot",
    "l2_norm": "l2",
}
# The scores that the same similarity has in a search through the index; rounding must not make one negative.
SCRIPTS: dict[Similarity, str] = {
    "cosine": "Math.max(0, (1 + cosineSimilarity(params.query, {field})) / 2)",
    "dot": "double dot = dotProduct(params.query, {field}); return dot > 0 ? 1 + dot : 1 / (1 - dot);",
    "l2": "1 / (1 + Math.pow(l2norm(params.query, {field}), 2))",
}


class ElasticsearchStore(LuceneStore):
    """Adapter for an index with a ``dense_vector`` field of floats. ``where`` is a query clause or a list of them.

    Scores are larger-is-better: cosine, inner product or minus the squared distance, from the ``_score`` that the
    documentation of the field's ``similarity`` parameter gives each (see `nudge_rag.stores.lucene.similarities`).
    Fields with ``dot_product`` keep unit vectors only, and are read and written as such. Since Elasticsearch 9.2
    vectors are no part of ``_source``, and those of cosine fields come back to within 1e-6 of each length of about 1:
    they are asked for as ``fields``, which earlier servers answer as well.

    Experimental: no running Elasticsearch has answered this adapter yet. Opening one warns.

    Args:
        client: an ``elasticsearch.Elasticsearch``; of an AsyncElasticsearch, a client of the same nodes is made.
        index: the index's name, or an alias of one index.
        vector_field: the field of vectors; may be left out if the index has one.
        similarity: how the application ranks; needed if the field is not indexed, and has no similarity itself.
        exact: score every document instead of searching the index.

    Raises:
        TypeError: anything but a client.
        ValueError: no such field, another type or element type, a missing similarity, an alias of several indexes.

    Example:
        >>> ElasticsearchStore("http://localhost:9200", "docs")
        Traceback (most recent call last):
        ...
        TypeError: expected an Elasticsearch client, got str
    """

    name = "elasticsearch"

    def __init__(
        self,
        client: Any,
        index: str,
        *,
        vector_field: str | None = None,
        similarity: Similarity | None = None,
        exact: bool = False,
    ) -> None:
        if not all(hasattr(client, part) for part in ("msearch", "bulk", "indices", "options")):
            raise TypeError(f"expected an Elasticsearch client, got {type(client).__name__}")
        warn_experimental("Elasticsearch")
        self.client = synchronous(client)
        concrete, known = one_index(self.client.indices.get(index=index), index)
        field, mapping = vector_mapping(known["mappings"].get("properties", {}), vector_field, "dense_vector")
        element = mapping.get("element_type", "float")
        if element != "float":
            raise ValueError(f"vectors in {field!r} must be float, they are {element}")
        if "dims" not in mapping:
            raise ValueError(f"field {field!r} holds no vectors yet")
        self._indexed = bool(mapping.get("index", True))
        metric = mapping.get("similarity", "cosine") if self._indexed else None
        ranked = SIMILARITY[metric] if metric else similarity
        if ranked not in SCRIPTS or similarity not in (None, ranked):
            own = f"ranks by {ranked}" if metric else "is not indexed"
            raise ValueError(f"field {field!r} {own}, similarity must be given so; it is {similarity!r}")
        self._exact = exact or not self._indexed
        super().__init__(
            index=concrete,
            index_uuid=str(known["settings"]["index"]["uuid"]),
            vector_field=field,
            dimension=int(mapping["dims"]),
            capabilities=Capabilities(
                ranked,
                keeps_norms=metric != "dot_product",
                exact_search=self._exact,
                persistent=True,
                rounding=ROUNDING if metric in ("cosine", "dot_product") else 0.0,
                experimental=True,
            ),
        )

    @classmethod
    def from_url(cls, location: StoreLocation) -> ElasticsearchStore:
        """The index that ``elasticsearch://`` names."""
        package = import_package("elasticsearch", "elasticsearch://", "elasticsearch")
        client = package.Elasticsearch(location.address(9200), api_key=location.options.get("api_key"))
        return cls(client, location.options["index"], vector_field=location.options.get("vector"))

    @property
    def _with_vector(self) -> dict[str, Any]:
        return {"_source": False, "fields": [self.vector_field]}

    def _vector_of(self, hit: Hit) -> Any:
        return hit["fields"][self.vector_field]

    def _search(self, body: Mapping[str, Any]) -> Any:
        return self.client.search(index=self.index, body=dict(body))

    def _searches(self, bodies: Sequence[Mapping[str, Any]]) -> Sequence[Any]:
        lines = [line for body in bodies for line in ({"index": self.index}, body)]
        responses: Sequence[Any] = self.client.msearch(searches=lines)["responses"]
        return responses

    def _stream(self, body: Mapping[str, Any], batch_size: int) -> Iterable[Hit]:
        from elasticsearch.helpers import scan

        hits: Iterable[Hit] = scan(self.client, query=dict(body), size=batch_size, index=self.index)
        return hits

    def _send(self, lines: Sequence[Mapping[str, Any]]) -> Any:
        return self.client.bulk(operations=lines, refresh=True)

    def _question(self, query: list[float], k: int, where: list[Mapping[str, Any]]) -> dict[str, Any]:
        if self._exact:
            quoted = self.vector_field.replace("\\", "\\\\").replace("'", "\\'")
            source = SCRIPTS[self.capabilities.similarity].format(field=f"'{quoted}'")
            script = {"source": source, "params": {"query": query}}
            return {"query": {"script_score": {"query": self._nodes(*where), "script": script}}}
        candidates = min(max(10 * k, 100), LARGEST_K)
        knn = {"field": self.vector_field, "query_vector": query, "k": k, "num_candidates": candidates}
        return {"knn": {**knn, "filter": where} if where else knn}


def synchronous(client: Any) -> Any:
    """``client``, or if it is an asynchronous one, a synchronous client of the same nodes with the same headers."""
    package = import_package("elasticsearch", "ElasticsearchStore", "elasticsearch")
    if not isinstance(client, package.AsyncElasticsearch):
        return client
    nodes = [node.config for node in client.transport.node_pool.all()]
    return package.Elasticsearch(nodes).options(headers=dict(client._headers))
