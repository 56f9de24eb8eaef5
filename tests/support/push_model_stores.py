"""The model of `push_model` on every database that runs in this environment, written to by its own means."""

from __future__ import annotations

import gc

import chromadb
import duckdb
import faiss
import lancedb
import numpy as np
import psycopg
from langchain_chroma import Chroma as LangChainChroma
from langchain_community.vectorstores import LanceDB
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_nudge import embedding_store as langchain_store
from langchain_qdrant import QdrantVectorStore as LangChainQdrant
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.retrievers.nudge import embedding_store as llama_index_store
from llama_index.vector_stores.chroma import ChromaVectorStore
from llama_index.vector_stores.lancedb import LanceDBVectorStore
from llama_index.vector_stores.qdrant import QdrantVectorStore as LlamaIndexQdrant
from pymilvus import DataType, MilvusClient
from qdrant_client import QdrantClient, models

from nudge_rag.stores import (
    ChromaStore,
    DuckDBStore,
    FaissStore,
    InMemoryStore,
    LanceStore,
    MappingStore,
    MilvusStore,
    PgVectorStore,
    QdrantStore,
    SimpleStore,
    SQLiteVecStore,
)
from nudge_rag.stores.storages import ProcessStorage
from tests.support.builders import sqlite_vec
from tests.support.push_model import DIMENSION, IDS, Pushes

TABLE = "model"


class Mapping(Pushes):
    dtype = np.float64

    def make(self):
        self.storage = ProcessStorage()
        self.table = {node_id: vector.tolist() for node_id, vector in self.truth.items()}

    def connect(self):
        store = MappingStore(self.table, key="test")
        store.history = lambda: self.storage
        return store

    def put(self, node_id, vector):
        self.table[node_id] = vector.tolist()

    def take(self, node_id):
        self.table.pop(node_id)

    def held(self):
        return {node_id: np.array(vector) for node_id, vector in self.table.items()}


class Simple(Pushes):
    beside, dtype = True, np.float64

    def make(self):
        self.vector_store = SimpleVectorStore()
        for node_id, vector in self.truth.items():
            self.put(node_id, vector)

    def connect(self):
        return SimpleStore(self.vector_store)

    def put(self, node_id, vector):
        self.vector_store.add([TextNode(id_=node_id, embedding=vector.tolist())])

    def take(self, node_id):
        self.vector_store.data.embedding_dict.pop(node_id)

    def held(self):
        return {node_id: np.array(vector) for node_id, vector in self.vector_store.data.embedding_dict.items()}


class SimpleFile(Simple):
    """Each adapter loads the file anew, as does the application, which writes it whole."""

    # In the middle of a push, its process has the file's contents in memory: others wait for its end.
    waits = True

    def make(self):
        self.path = self.folder / "vectors.json"
        super().make()

    def connect(self):
        return SimpleStore.open(self.path)

    def loaded(self):
        return SimpleVectorStore.from_persist_path(str(self.path)) if self.path.exists() else SimpleVectorStore()

    def put(self, node_id, vector):
        vector_store = self.loaded()
        vector_store.add([TextNode(id_=node_id, embedding=vector.tolist())])
        vector_store.persist(str(self.path))

    def take(self, node_id):
        vector_store = self.loaded()
        vector_store.data.embedding_dict.pop(node_id)
        vector_store.persist(str(self.path))

    def held(self):
        return {node_id: np.array(vector) for node_id, vector in self.loaded().data.embedding_dict.items()}


class Given(Embeddings):
    """Embeds whatever there is as it is told."""

    vector: list[float]

    def embed_documents(self, texts):
        return [self.vector for _ in texts]

    def embed_query(self, text):
        return self.vector


class InMemory(Pushes):
    beside, dtype = True, np.float64

    def make(self):
        self.embedding = Given()
        self.vector_store = InMemoryVectorStore(self.embedding)
        for node_id, vector in self.truth.items():
            self.put(node_id, vector)

    def connect(self):
        return InMemoryStore(self.vector_store)

    def put(self, node_id, vector):
        self.embedding.vector = vector.tolist()
        self.vector_store.add_documents([Document(id=node_id, page_content="text")])

    def take(self, node_id):
        self.vector_store.delete([node_id])

    def held(self):
        return {node_id: np.array(entry["vector"]) for node_id, entry in self.vector_store.store.items()}


class Faiss(Pushes):
    beside = True

    class Holder:
        index = None

    def make(self):
        self.holder, self.ids = self.Holder(), {int(node_id): node_id for node_id in IDS}
        self.holder.index = faiss.IndexIDMap2(faiss.IndexFlatL2(DIMENSION))
        for node_id, vector in self.truth.items():
            self.put(node_id, vector)

    def connect(self):
        return FaissStore(self.holder.index, self.ids, held_by=(self.holder, "index"))

    def put(self, node_id, vector):
        self.holder.index.remove_ids(np.array([int(node_id)]))
        self.holder.index.add_with_ids(np.asarray(vector, dtype=np.float32)[None], np.array([int(node_id)]))

    def take(self, node_id):
        self.holder.index.remove_ids(np.array([int(node_id)]))

    def held(self):
        index = faiss.downcast_index(self.holder.index)
        labels = faiss.vector_to_array(index.id_map)
        return {str(label): index.reconstruct(int(label)) for label in labels}


class Lance(Pushes):
    beside = True

    def make(self):
        rows = [{"id": node_id, "vector": vector.tolist()} for node_id, vector in self.truth.items()]
        lancedb.connect(str(self.folder)).create_table(TABLE, rows)

    def table(self):
        return lancedb.connect(str(self.folder)).open_table(TABLE)

    def connect(self):
        return LanceStore(self.table())

    def connect_by_langchain(self):
        connection = lancedb.connect(str(self.folder))
        return langchain_store(LanceDB(connection, Given(), table_name=TABLE, mode="append"))

    def connect_by_llama_index(self):
        connection = lancedb.connect(str(self.folder))
        return llama_index_store(LanceDBVectorStore(connection=connection, table_name=TABLE))

    def put(self, node_id, vector):
        merge = self.table().merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        merge.execute([{"id": node_id, "vector": vector.tolist()}])

    def take(self, node_id):
        self.table().delete(f"id = '{node_id}'")

    def held(self):
        rows = self.table().to_arrow().to_pylist()
        return {row["id"]: np.array(row["vector"], dtype=np.float32) for row in rows}


class Chroma(Pushes):
    beside = True

    def make(self):
        self.client = chromadb.PersistentClient(path=str(self.folder))
        ids = list(self.truth)
        self.client.create_collection(TABLE, embedding_function=None).add(ids=ids, embeddings=list(self.truth.values()))

    def connect(self):
        return ChromaStore.open(self.folder, TABLE)

    def connect_by_langchain(self):
        self.collection()  # for one that there is: a switch may have died
        made = LangChainChroma(TABLE, Given(), client=self.client, create_collection_if_not_exists=False)
        return langchain_store(made)

    def connect_by_llama_index(self):
        return llama_index_store(ChromaVectorStore(chroma_collection=self.collection()))

    def collection(self):
        # Whoever finds none, since a switch died there, has it mended by opening the store.
        return self.connect().collection

    def put(self, node_id, vector):
        self.collection().upsert(ids=[node_id], embeddings=[vector])

    def take(self, node_id):
        self.collection().delete(ids=[node_id])

    def held(self):
        found = self.collection().get(include=["embeddings"])
        return dict(zip(found["ids"], np.asarray(found["embeddings"], dtype=np.float32), strict=True))


class Qdrant(Pushes):
    beside = True

    def make(self):
        self.client = QdrantClient(":memory:")
        size = models.VectorParams(size=DIMENSION, distance=models.Distance.DOT)
        self.client.create_collection("first", vectors_config=size)
        made = models.CreateAlias(collection_name="first", alias_name=TABLE)
        self.client.update_collection_aliases([models.CreateAliasOperation(create_alias=made)])
        for node_id, vector in self.truth.items():
            self.put(node_id, vector)

    def connect(self):
        return QdrantStore(self.client, TABLE)

    def connect_by_langchain(self):
        options = {"distance": models.Distance.DOT, "validate_collection_config": False}
        return langchain_store(LangChainQdrant(self.client, TABLE, Given(), **options))

    def connect_by_llama_index(self):
        return llama_index_store(LlamaIndexQdrant(TABLE, client=self.client))

    def put(self, node_id, vector):
        self.client.upsert(TABLE, [models.PointStruct(id=int(node_id), vector=vector.tolist())])

    def take(self, node_id):
        self.client.delete(TABLE, models.PointIdsList(points=[int(node_id)]))

    def held(self):
        points, _ = self.client.scroll(TABLE, limit=100, with_vectors=True)
        return {str(point.id): np.array(point.vector, dtype=np.float32) for point in points}

    def close(self):
        self.client.close()


class Milvus(Pushes):
    """Milvus Lite, one collection after the other in one file."""

    beside = True
    client, number = None, 0

    def make(self):
        if Milvus.client is None:
            Milvus.client = MilvusClient(str(self.address / "model.db"))
        Milvus.number += 1
        self.name, self.alias = f"nodes_{Milvus.number}", f"live_{Milvus.number}"
        schema = MilvusClient.create_schema()
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=16)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIMENSION)
        index = self.client.prepare_index_params()
        index.add_index("vector", index_type="FLAT", metric_type="L2")
        self.client.create_collection(self.name, schema=schema, index_params=index)
        self.client.create_alias(self.name, self.alias)
        for node_id, vector in self.truth.items():
            self.put(node_id, vector)

    def connect(self):
        return MilvusStore(self.client, self.alias)

    def put(self, node_id, vector):
        self.client.upsert(self.alias, [{"id": node_id, "vector": vector.tolist()}])

    def take(self, node_id):
        self.client.delete(self.alias, ids=[node_id])

    def held(self):
        rows = self.client.query(
            self.alias, filter="id != ''", output_fields=["id", "vector"], consistency_level="Strong"
        )
        return {row["id"]: np.array(row["vector"], dtype=np.float32) for row in rows}


class DuckDB(Pushes):
    waits = True

    def make(self):
        self.connection = duckdb.connect()
        self.connection.execute(f"CREATE TABLE {TABLE} (id VARCHAR PRIMARY KEY, embedding FLOAT[{DIMENSION}])")
        for node_id, vector in self.truth.items():
            self.put(node_id, vector)

    def connect(self):
        return DuckDBStore(self.connection, TABLE)

    def put(self, node_id, vector):
        query = f"INSERT INTO {TABLE} VALUES (?, ?) ON CONFLICT DO UPDATE SET embedding = excluded.embedding"
        self.connection.execute(query, [node_id, vector.tolist()])

    def take(self, node_id):
        self.connection.execute(f"DELETE FROM {TABLE} WHERE id = ?", [node_id])

    def held(self):
        rows = self.connection.execute(f"SELECT id, embedding FROM {TABLE}").fetchall()
        return {row[0]: np.array(row[1], dtype=np.float32) for row in rows}

    def close(self):
        self.connection.close()


class SQLiteVec(Pushes):
    waits = True

    def make(self):
        self.connection = sqlite_vec.connect(self.folder / "nodes.db")
        self.connection.execute(f"CREATE TABLE {TABLE} (rowid INTEGER PRIMARY KEY, text TEXT)")
        columns = f"rowid INTEGER PRIMARY KEY, text_embedding float[{DIMENSION}]"
        self.connection.execute(f"CREATE VIRTUAL TABLE {TABLE}_vec USING vec0 ({columns})")
        for node_id, vector in self.truth.items():
            self.put(node_id, vector)

    def connect(self):
        return SQLiteVecStore(self.connection, TABLE)

    def put(self, node_id, vector):
        self.take(node_id)
        number, content = int(node_id), np.asarray(vector, dtype=np.float32).tobytes()
        with self.connection:
            self.connection.execute(f"INSERT INTO {TABLE} VALUES (?, 'text')", [number])
            self.connection.execute(f"INSERT INTO {TABLE}_vec (rowid, text_embedding) VALUES (?, ?)", [number, content])

    def take(self, node_id):
        with self.connection:
            for table in (TABLE, f"{TABLE}_vec"):
                self.connection.execute(f"DELETE FROM {table} WHERE rowid = ?", [int(node_id)])

    def held(self):
        rows = self.connection.execute(f"SELECT rowid, text_embedding FROM {TABLE}_vec").fetchall()
        return {str(row[0]): np.frombuffer(row[1], dtype=np.float32) for row in rows}

    def close(self):
        self.connection.close()


class Postgres(Pushes):
    beside, waits, server = True, True, "postgres"
    connection, opened = None, 0

    def make(self):
        if Postgres.connection is None:
            Postgres.connection = psycopg.connect(self.address, autocommit=True)
        for table in (TABLE, "nudge_rag_history"):
            self.connection.execute(f"DROP TABLE IF EXISTS {table}")
        self.connection.execute(f"CREATE TABLE {TABLE} (id text PRIMARY KEY, embedding vector({DIMENSION}))")
        for node_id, vector in self.truth.items():
            self.put(node_id, vector)

    def connect(self):
        # What lets writes die refers to the adapter that it stands in: such a circle keeps a connection open.
        Postgres.opened += 1
        if Postgres.opened % OPENED_BEFORE_COLLECTION == 0:
            gc.collect()
        return PgVectorStore(self.address, TABLE)

    def put(self, node_id, vector):
        query = f"INSERT INTO {TABLE} (id, embedding) VALUES (%s, %s)"
        query += " ON CONFLICT (id) DO UPDATE SET embedding = excluded.embedding"
        self.connection.execute(query, [node_id, str(vector.tolist())])

    def take(self, node_id):
        self.connection.execute(f"DELETE FROM {TABLE} WHERE id = %s", [node_id])

    def held(self):
        rows = self.connection.execute(f"SELECT id, embedding::real[] FROM {TABLE}").fetchall()
        return {row[0]: np.array(row[1], dtype=np.float32) for row in rows}


# Fewer than the connections that a server takes, of which other tests have some.
OPENED_BEFORE_COLLECTION = 25

QUICK = [Mapping, Simple, SimpleFile, InMemory, Faiss, Qdrant, SQLiteVec]
SLOW = [DuckDB, Postgres, Chroma, Lance, Milvus]
MODELS = [*QUICK, *SLOW]
