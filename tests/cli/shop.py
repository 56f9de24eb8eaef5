"""A small application for the command line to work on: text files, a CSV of clicks, and an embedding model."""

from __future__ import annotations

import csv
import json
import sys
import zlib
from pathlib import Path

import numpy as np

DIMENSION = 96
# Users ask with the second word for what the texts call by the first.
TOPICS = {
    "refund": "money back", "invoice": "bill", "parcel": "package", "password": "login secret", "courier": "driver",
    "voucher": "coupon", "warranty": "guarantee", "outage": "downtime", "subscription": "membership", "basket": "cart",
    "newsletter": "mailing", "address": "location",
}  # fmt: skip
KINDS = ("policy", "form", "deadline", "exception")
PHRASES = ("how do I get my", "where is the", "question about", "need help with", "problem:", "tell me about")


def embed(texts):
    """Hashed words, as unit vectors: an embedding model that needs no download and knows no synonyms."""
    vectors = np.zeros((len(texts), DIMENSION), dtype=np.float32)
    for row, text in enumerate(texts):
        for word in text.lower().split():
            digest = zlib.crc32(word.encode())
            vectors[row, digest % DIMENSION] += 1 if digest & 1024 else -1
        vectors[row, zlib.crc32(text.encode()) % DIMENSION] += 0.01  # no text is the zero vector
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def texts():
    """Node id to its text."""
    return {
        f"{topic}-{kind}": f"Page 1\n{topic} {kind}\nThis page explains the {kind} for every {topic} of our customers."
        for topic in TOPICS
        for kind in KINDS
    }


def write_files(folder):
    """The folder of texts, and the clicks: query, node_id, grade."""
    (folder / "texts").mkdir(parents=True)
    for node, text in texts().items():
        (folder / "texts" / f"{node}.txt").write_text(text, encoding="utf-8")
    write_clicks(folder / "clicks.csv")


def write_clicks(path, phrases=PHRASES):
    """A query for each node and phrase; fewer phrases make what searches for each query quicker."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["query", "node_id", "grade"])
        for topic, synonym in TOPICS.items():
            for kind in KINDS:
                for phrase in phrases:
                    rows.writerow([f"{phrase} {synonym} {kind}", f"{topic}-{kind}", 1])


def read_folder(folder):
    files = sorted(Path(folder).glob("*.txt"))
    return {file.stem: file.read_text(encoding="utf-8") for file in files}


def index_in_chroma(documents, path):
    import chromadb

    collection = chromadb.PersistentClient(path=str(path)).create_collection("docs", metadata={"hnsw:space": "cosine"})
    vectors = embed(list(documents.values())).tolist()
    collection.add(ids=list(documents), documents=list(documents.values()), embeddings=vectors)


def index_in_postgres(documents, uri):
    import psycopg

    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute(f"CREATE TABLE docs (id text PRIMARY KEY, text text, embedding vector({DIMENSION}))")
        for (node, text), vector in zip(documents.items(), embed(list(documents.values())), strict=True):
            connection.execute("INSERT INTO docs VALUES (%s, %s, %s)", (node, text, str(vector.tolist())))


def index_in_duckdb(documents, path):
    import duckdb

    with duckdb.connect(str(path)) as connection:
        connection.execute(f"CREATE TABLE docs (id VARCHAR, text VARCHAR, embedding FLOAT[{DIMENSION}])")
        rows = zip(documents, documents.values(), embed(list(documents.values())).tolist(), strict=True)
        connection.executemany("INSERT INTO docs VALUES (?, ?, ?)", [list(row) for row in rows])


def rebuild(folder):
    """The index is built anew from the same texts, under new ids."""
    import duckdb

    renamed = {f"v2-{node}": text for node, text in texts().items()}
    rows = [json.dumps({"_id": node, "text": text}) for node, text in renamed.items()]
    (folder / "v2-texts.jsonl").write_text("\n".join(rows), encoding="utf-8")
    with duckdb.connect(str(folder / "shop.duckdb")) as connection:
        connection.execute("DELETE FROM docs")
        vectors = embed(list(renamed.values())).tolist()
        again = [list(row) for row in zip(renamed, renamed.values(), vectors, strict=True)]
        connection.executemany("INSERT INTO docs VALUES (?, ?, ?)", again)


if __name__ == "__main__":
    folder, target = sys.argv[1:]
    index = index_in_postgres if target.startswith("postgresql:") else index_in_chroma
    index(read_folder(folder), target)
