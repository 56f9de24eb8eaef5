"""The model of `push_model` on Redis, whose packages are in an environment of their own."""

from __future__ import annotations

import itertools

import numpy as np
import redis
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_nudge import embedding_store
from langchain_redis import RedisConfig, RedisVectorStore

from nudge_rag.stores import RedisStore
from tests.support.push_model import DIMENSION, IDS, Pushes

numbers = itertools.count()


class Redis(Pushes):
    """An index over hashes; each run has one of its own on a server that others use too."""

    server = "redis_langchain"

    def make(self):
        self.name, self.url = f"model{next(numbers)}", f"redis://127.0.0.1:{self.address}"
        self.client = redis.Redis("127.0.0.1", self.address)
        kind = ("VECTOR", "FLAT", 6, "TYPE", "FLOAT32", "DIM", DIMENSION, "DISTANCE_METRIC", "L2")
        create = ("FT.CREATE", self.name, "ON", "HASH", "PREFIX", 1, f"{self.name}:", "SCHEMA", "text", "TEXT")
        self.client.execute_command(*create, "embedding", *kind)
        for node_id, vector in self.truth.items():
            self.put(node_id, vector)

    def connect(self):
        return RedisStore.open(self.url, self.name)

    def connect_by_langchain(self):
        options = {"redis_url": self.url, "key_prefix": self.name, "embedding_dimensions": DIMENSION}
        config = RedisConfig(index_name=self.name, distance_metric="L2", from_existing=True, **options)
        return embedding_store(RedisVectorStore(DeterministicFakeEmbedding(size=DIMENSION), config=config))

    def put(self, node_id, vector):
        content = np.asarray(vector, dtype=np.float32).tobytes()
        self.client.hset(f"{self.name}:{node_id}", mapping={"text": "text", "embedding": content})

    def take(self, node_id):
        self.client.delete(f"{self.name}:{node_id}")

    def held(self):
        found = {node_id: self.client.hget(f"{self.name}:{node_id}", "embedding") for node_id in IDS}
        return {node_id: np.frombuffer(row, dtype=np.float32) for node_id, row in found.items() if row is not None}

    def close(self):
        self.client.execute_command("FT.DROPINDEX", self.name, "DD")
        self.client.close()
