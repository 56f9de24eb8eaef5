"""Buckets on a server of S3, with nodes in Parquet files, and the ways to open them."""

from __future__ import annotations

import itertools

import boto3
import numpy as np
import pyarrow.fs
import pyarrow.parquet
import s3fs

from nudge_rag import open_store
from nudge_rag.stores import ParquetStore

VECTORS = np.random.default_rng(3).normal(size=(40, 4)).astype(np.float32)
IDS = [f"n{row}" for row in range(40)]
KEY, SECRET = "AKIAofnobody", "s3cretOfNobody"
# Of leases: the server is on this machine.
SETTLE = 0.05
VECTOR_TYPE = pyarrow.list_(pyarrow.float32())
numbers = itertools.count()


class Bucket:
    """A bucket with the nodes in two files, and the ways to open it."""

    def __init__(self, address, name):
        self.address, self.url = address, f"http://{address}"
        self.arrow = pyarrow.fs.S3FileSystem(
            endpoint_override=self.url, access_key=KEY, secret_key=SECRET, region="us-east-1"
        )
        self.client = boto3.client("s3")
        self.client.create_bucket(Bucket=name)
        self.docs = f"{name}/docs"
        for part in range(2):
            rows = slice(20 * part, 20 * part + 20)
            self.write(f"part-{part}.parquet", IDS[rows], VECTORS[rows])
        self.theirs = self.contents()

    def write(self, name, ids, vectors):
        table = pyarrow.table({"id": ids, "embedding": pyarrow.array(np.asarray(vectors).tolist(), VECTOR_TYPE)})
        with self.arrow.open_output_stream(f"{self.docs}/{name}") as stream:
            pyarrow.parquet.write_table(table, stream, row_group_size=7, compression="none")

    def contents(self):
        found = self.arrow.get_file_info(pyarrow.fs.FileSelector(self.docs, recursive=True))
        return {info.path: self.arrow.open_input_stream(info.path).read() for info in found if info.is_file}

    def open(self, way):
        if way == "pyarrow":
            return ParquetStore(self.docs, filesystem=self.arrow)
        if way == "s3fs":
            client = {"endpoint_url": self.url}
            return ParquetStore(self.docs, filesystem=s3fs.S3FileSystem(key=KEY, secret=SECRET, client_kwargs=client))
        if way == "uri with login":
            return ParquetStore(f"s3://{KEY}:{SECRET}@{self.docs}?scheme=http&endpoint_override={self.address}")
        if way == "uri":
            return ParquetStore(f"s3://{self.docs}")
        return open_store(f"parquet:///{self.docs}?filesystem=s3")
