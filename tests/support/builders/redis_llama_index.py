"""Redis through LlamaIndex, whose client library is another than LangChain can have."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import redis
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.vector_stores.redis import RedisVectorStore
from redisvl.schema import IndexSchema

from nudge_rag.stores import RedisStore
from tests.support.builders.common import DIMENSION, Built, LlamaIndexEmbedding, expected_vectors, node_rows
from tests.support.redis_server import start_server, storable

__all__ = ["BUILDERS", "start_server", "vector_store_on"]
numbers = itertools.count()


FIELDS = {"tag": ("id", "doc_id", "parity"), "numeric": ("even", "number"), "text": ("text",)}


def vector_store_on(
    port: int, dimension: int, kinds: dict[str, tuple[str, ...]] = FIELDS, **vector: Any
) -> RedisVectorStore:
    """A vector store with an index of its own, in which metadata can be filtered."""
    name = f"nodes{next(numbers)}"
    fields = [{"name": field, "type": kind} for kind, names in kinds.items() for field in names]
    attributes = {"dims": dimension, "algorithm": "flat", "distance_metric": "cosine", **vector}
    schema = {
        "index": {"name": name, "prefix": f"{name}/vector", "key_separator": "_"},
        "fields": [*fields, {"name": "vector", "type": "vector", "attrs": attributes}],
    }
    return RedisVectorStore(schema=IndexSchema.from_dict(schema), redis_client=redis.Redis("127.0.0.1", port))


def built(folder: Path, n: int, servers: Any, **options: Any) -> Built:
    port = servers.address("redis_llama_index")
    vector_store = vector_store_on(port, DIMENSION, **options)
    nodes = [TextNode(id_=node, text=text, metadata=storable(metadata)) for node, text, metadata in node_rows(n)]
    for node in nodes:
        node.excluded_embed_metadata_keys = ["number", "even"]
    context = StorageContext.from_defaults(vector_store=vector_store)
    VectorStoreIndex(nodes, storage_context=context, embed_model=LlamaIndexEmbedding())
    client = redis.Redis("127.0.0.1", port)
    prefix = f"{vector_store.index_name}/vector_"

    def contents() -> Any:
        keys = sorted(client.scan_iter(f"{prefix}*", count=1000))
        with client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hgetall(key)
            return [{k: v for k, v in row.items() if k != b"vector"} for row in pipe.execute()]

    return Built(
        RedisStore(client, vector_store.index_name, prefix=prefix),
        expected_vectors(n),
        contents,
        lambda: RedisStore.open(f"redis://127.0.0.1:{port}", vector_store.index_name, prefix=prefix),
        "@even:[1 1]",
        vector_store.delete_nodes,
    )


BUILDERS = {
    "redis-llama-index": (built, {}),
    "redis-llama-index-l2-hnsw": (built, {"algorithm": "hnsw", "distance_metric": "l2"}),
}
