"""From a LlamaIndex index or vector store to the adapter of its database."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.retrievers.nudge.databases.registry import DATABASES, database_of

from nudge_rag.journal.text_hashes import TextsOf
from nudge_rag.stores import EmbeddingStore, FaissStore, SimpleStore

__all__ = ["documents_of", "embedding_store", "texts_of", "vector_store_of"]


def vector_store_of(index_or_store: Any) -> Any:
    """The vector store inside an index; anything else as it is."""
    return index_or_store.vector_store if isinstance(index_or_store, VectorStoreIndex) else index_or_store


def embedding_store(index_or_store: Any, *, persist_path: str | Path | None = None) -> EmbeddingStore:
    """The `nudge_rag.stores.EmbeddingStore` of a `VectorStoreIndex` or of its vector store.

    Args:
        index_or_store: an index, a vector store, or an `EmbeddingStore`, which is returned as it is.
        persist_path: for SimpleVectorStore and the FAISS stores, the file that changes are written through to.

    Raises:
        TypeError: a store that is not supported, with the list of those that are.
        ValueError: ``persist_path`` for a store that keeps itself.
    """
    store = vector_store_of(index_or_store)
    if isinstance(store, SimpleVectorStore):
        return SimpleStore(store, persist_path=persist_path)
    if type(store).__name__ in ("FaissMapVectorStore", "FaissVectorStore"):
        # Functions of the module, so that a nudge of such a store is pickled with it.
        if hasattr(store, "_faiss_id_to_node_id_map"):
            ids = partial(_ids_in_map, store)
        else:
            _require_index(index_or_store)
            ids = partial(_ids_by_position, index_or_store)
        return FaissStore(store.client, ids, persist_path=persist_path, held_by=(store, "_faiss_index"))
    if persist_path is not None:
        raise ValueError(f"persist_path is for SimpleVectorStore and FAISS; {type(store).__name__} keeps its own data")
    if isinstance(store, EmbeddingStore):
        return store
    database = database_of(store)
    if database is not None:
        return database.make_adapter(store)
    if isinstance(store, BaseRetriever | BaseQueryEngine):
        raise TypeError(f"{type(store).__name__} asks an index: pass the VectorStoreIndex itself")
    raise TypeError(
        f"{type(store).__name__} is not supported; supported are {', '.join(DATABASES)}. For another store, implement"
        " the nudge_rag.stores.EmbeddingStore protocol and pass that"
    )


def texts_of(index_or_store: Any) -> TextsOf | None:
    """Node ids to their texts, as `nudge_rag.tune` and `nudge_rag.status` take it; None if there are none.

    SimpleVectorStore and FAISS keep no texts: those come from the docstore of the index, if an index is given.

    Example:
        >>> from llama_index.core import MockEmbedding
        >>> from llama_index.core.schema import TextNode
        >>> index = VectorStoreIndex([TextNode(text="some text", id_="n1")], embed_model=MockEmbedding(4))
        >>> texts_of(index)(["n1", "gone"])
        ['some text', None]
    """
    fetch = _nodes_by_id(index_or_store)
    if fetch is None:
        return None

    def texts(ids: list[str]) -> list[str | None]:
        node_of = fetch(ids)
        return [node_of[node_id].get_content() if node_id in node_of else None for node_id in ids]

    return texts


def documents_of(index_or_store: Any) -> TextsOf | None:
    """Node ids to the ids of their documents (``ref_doc_id``), as `nudge_rag.tune` takes it; None if unknown.

    Example:
        >>> from llama_index.core import MockEmbedding
        >>> from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
        >>> source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="document")}
        >>> node = TextNode(text="some text", id_="n1", relationships=source)
        >>> documents_of(VectorStoreIndex([node], embed_model=MockEmbedding(4)))(["n1", "gone"])
        ['document', None]
    """
    vector_store = vector_store_of(index_or_store)
    if isinstance(vector_store, SimpleVectorStore):
        known = vector_store.data.text_id_to_ref_doc_id
        # LlamaIndex writes "None" for a node without one.
        return lambda ids: [None if (name := known.get(node_id)) in (None, "None") else name for node_id in ids]
    fetch = _nodes_by_id(index_or_store)
    if fetch is None:
        return None

    def documents(ids: list[str]) -> list[str | None]:
        node_of = fetch(ids)
        return [node_of[node_id].ref_doc_id if node_id in node_of else None for node_id in ids]

    return documents


def _nodes_by_id(index_or_store: Any) -> Callable[[list[str]], dict[str, BaseNode]] | None:
    """Make the function that fetches nodes of an index or a vector store; None if neither keeps them."""
    vector_store = vector_store_of(index_or_store)
    database = database_of(vector_store)
    docstore: Any = getattr(index_or_store, "docstore", None)
    if database is None or not (database.stores_text or docstore is not None):
        return None

    def fetch(ids: list[str]) -> dict[str, BaseNode]:
        if not ids:
            return {}
        if database.stores_text:
            return database.nodes_by_id(vector_store, ids)
        nodes: list[BaseNode] = docstore.get_nodes(ids, raise_error=False)
        return {node.node_id: node for node in nodes}

    return fetch


def _ids_in_map(store: Any) -> dict[int, str]:
    return dict(store._faiss_id_to_node_id_map)


def _require_index(index: Any) -> None:
    """A FaissVectorStore knows positions only; the node ids are in the index that it belongs to."""
    if not isinstance(index, VectorStoreIndex):
        raise TypeError("a FaissVectorStore holds no node ids: pass the VectorStoreIndex that it belongs to")


def _ids_by_position(index: Any) -> dict[int, str]:
    return {int(position): node_id for position, node_id in index.index_struct.nodes_dict.items()}
