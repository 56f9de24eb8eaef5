"""OpenSearch indexes with a ``knn_vector`` field (experimental)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nudge_rag.common.packages import import_package
from nudge_rag.stores.base import Capabilities, Similarity
from nudge_rag.stores.checks import check_synchronous, warn_experimental
from nudge_rag.stores.location import StoreLocation
from nudge_rag.stores.lucene import ROUNDING, Hit, LuceneStore, one_index, vector_mapping

__all__ = ["OpenSearchStore"]

SPACES: dict[str, Similarity] = {"cosinesimil": "cosine", "innerproduct": "dot", "l2": "l2"}
# Before it the scores of cosinesimil were another function of the cosine in each engine and in scripts
# (github.com/opensearch-project/documentation-website/issues/9077).
COSINE_SCORES_SINCE = (2, 19)


class OpenSearchStore(LuceneStore):
    """Adapter for an index with a ``knn_vector`` field of floats. ``where`` is a query clause or a list of them.

    Scores are larger-is-better: cosine, inner product or minus the squared distance, from the ``_score`` that the
    documentation of each space gives (see `nudge_rag.stores.lucene.similarities`). Filtered searches score every
    document that passes, which every engine can. The faiss engine keeps unit vectors only if the space is
    cosinesimil: these are read and written as such, to within 1e-6.

    Experimental: no running OpenSearch has answered this adapter yet. Opening one warns.

    Args:
        client: an ``opensearchpy.OpenSearch``.
        index: the index's name, or an alias of one index.
        vector_field: the field of vectors; may be left out if the index has one.
        exact: score every document instead of searching the index.

    Raises:
        TypeError: anything but a client, or an asynchronous one.
        ValueError: no such field, another type or data type, a model's field, a space that has no similarity here,
            cosinesimil before OpenSearch 2.19, an alias of several indexes.

    Example:
        >>> OpenSearchStore("http://localhost:9200", "docs")
        Traceback (most recent call last):
        ...
        TypeError: expected an OpenSearch client, got str
    """

    name = "opensearch"

    def __init__(self, client: Any, index: str, *, vector_field: str | None = None, exact: bool = False) -> None:
        if not all(hasattr(client, part) for part in ("msearch", "bulk", "indices")):
            raise TypeError(f"expected an OpenSearch client, got {type(client).__name__}")
        check_synchronous(client, "OpenSearch client")
        warn_experimental("OpenSearch")
        self.client = client
        concrete, known = one_index(client.indices.get(index=index), index)
        settings = known["settings"]["index"]
        field, mapping = vector_mapping(known["mappings"].get("properties", {}), vector_field, "knn_vector")
        kind = mapping.get("data_type", "float")
        if kind != "float" or "dimension" not in mapping:
            raise ValueError(f"vectors in {field!r} must be float and of a dimension that the mapping gives")
        method = mapping.get("method", {})
        self._space = _space(mapping, settings)
        if self._space not in SPACES:
            raise ValueError(f"OpenSearch space {self._space!r} is not one of {', '.join(SPACES)}")
        cosine = self._space == "cosinesimil"
        if cosine:
            _check_version(client)
        unit = cosine and method.get("engine", "faiss") == "faiss"
        self._exact = exact or str(settings.get("knn", "false")).lower() != "true"
        super().__init__(
            index=concrete,
            index_uuid=str(settings["uuid"]),
            vector_field=field,
            dimension=int(mapping["dimension"]),
            capabilities=Capabilities(
                SPACES[self._space],
                keeps_norms=not unit,
                exact_search=self._exact,
                persistent=True,
                rounding=ROUNDING if unit else 0.0,
                experimental=True,
            ),
        )

    @classmethod
    def from_url(cls, location: StoreLocation) -> OpenSearchStore:
        """The index that ``opensearch://`` names."""
        options = location.options
        package = import_package("opensearchpy", "opensearch://", "opensearch")
        login = (options["user"], options.get("password", "")) if "user" in options else None
        client = package.OpenSearch(location.address(9200), http_auth=login)
        return cls(client, options["index"], vector_field=options.get("vector"))

    @property
    def _with_vector(self) -> dict[str, Any]:
        return {"_source": [self.vector_field]}

    def _vector_of(self, hit: Hit) -> Any:
        return hit["_source"][self.vector_field]

    def _search(self, body: Mapping[str, Any]) -> Any:
        return self.client.search(body=dict(body), index=self.index)

    def _searches(self, bodies: Sequence[Mapping[str, Any]]) -> Sequence[Any]:
        lines = [line for body in bodies for line in ({"index": self.index}, body)]
        responses: Sequence[Any] = self.client.msearch(body=lines)["responses"]
        return responses

    def _stream(self, body: Mapping[str, Any], batch_size: int) -> Iterable[Hit]:
        from opensearchpy.helpers import scan

        hits: Iterable[Hit] = scan(self.client, query=dict(body), size=batch_size, index=self.index)
        return hits

    def _send(self, lines: Sequence[Mapping[str, Any]]) -> Any:
        return self.client.bulk(body=lines, params={"refresh": "true"})

    def _question(self, query: list[float], k: int, where: list[Mapping[str, Any]]) -> dict[str, Any]:
        if not self._exact and not where:
            return {"query": {"knn": {self.vector_field: {"vector": query, "k": k}}}}
        params = {"field": self.vector_field, "query_value": query, "space_type": self._space}
        script = {"source": "knn_score", "lang": "knn", "params": params}
        return {"query": {"script_score": {"query": self._nodes(*where), "script": script}}}


def _space(mapping: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """From the field's method, the field itself, or the index's settings, in which older versions keep it."""
    if "model_id" in mapping:
        raise ValueError("the field's index is made by a trained model, which vectors cannot be moved in")
    given = mapping.get("method", {}).get("space_type") or mapping.get("space_type")
    return str(given or settings.get("knn.space_type") or "l2")


def _check_version(client: Any) -> None:
    number = str(client.info()["version"]["number"])
    if tuple(map(int, number.split(".")[:2])) < COSINE_SCORES_SINCE:
        raise ValueError(f"cosinesimil is supported since OpenSearch 2.19, this is {number}")
