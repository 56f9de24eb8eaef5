"""Iceberg and Delta tables as their own libraries write them: refused as folders, read by the list of their files."""

from __future__ import annotations

import json
import string
import struct
from pathlib import Path

import numpy as np
import pyarrow
import pytest

WHY = "in the environment of `make test-lake`"
deltalake = pytest.importorskip("deltalake", reason=WHY)
pytest.importorskip("pyiceberg", reason=WHY)
pyroaring = pytest.importorskip("pyroaring", reason=WHY)
from pyiceberg.catalog.sql import SqlCatalog  # noqa: E402

from nudge_rag import rollback  # noqa: E402
from nudge_rag.journal.push import push_vectors  # noqa: E402
from nudge_rag.stores import ParquetStore  # noqa: E402

VECTORS = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
IDS = [f"n{row}" for row in range(40)]
NODES = pyarrow.table({"id": IDS, "embedding": pyarrow.array(VECTORS.tolist(), pyarrow.list_(pyarrow.float32()))})
WITHOUT = [name for name in IDS if name != "n3"]


def ids_of(store):
    return sorted(name for names, _ in store.scan() for name in names)


@pytest.fixture
def delta(tmp_path):
    for part in (NODES.slice(0, 20), NODES.slice(20)):
        deltalake.write_deltalake(tmp_path / "delta", part, mode="append")
    return deltalake.DeltaTable(tmp_path / "delta")


@pytest.fixture(params=["1", "2"])
def iceberg(request, tmp_path):
    """A table of that version of the format."""
    catalog = SqlCatalog("c", uri=f"sqlite:///{tmp_path}/c.db", warehouse=f"file://{tmp_path}/warehouse")
    catalog.create_namespace("ns")
    table = catalog.create_table("ns.docs", NODES.schema, properties={"format-version": request.param})
    for part in (NODES.slice(0, 20), NODES.slice(20)):
        table.append(part)
    yield table
    catalog.close()


def files_of(table):
    return [task.file.file_path for task in table.scan().plan_files()]


def test_a_delta_table_is_read_by_its_list(delta, tmp_path):
    folder = tmp_path / "delta"
    with pytest.raises(ValueError, match=r"is a Delta table.*DeltaTable\(path\)\.file_uris\(\)"):
        ParquetStore(folder)
    assert ids_of(ParquetStore(delta.file_uris())) == sorted(IDS)
    delta.delete("id = 'n3'")  # this library writes the file anew, the old one stays in the folder
    assert len(list(folder.glob("*.parquet"))) == 3
    assert ids_of(ParquetStore(delta.file_uris())) == sorted(WITHOUT)
    delta.create_checkpoint()
    delta.optimize.compact()
    store = ParquetStore(delta.file_uris(), beside=tmp_path / "ours")
    before = store.read(WITHOUT)
    push_vectors(store, WITHOUT[:3], before[:3], before[:3] + 1)
    assert store.read(WITHOUT[:3]).tobytes() == (before[:3] + 1).tobytes()
    assert rollback(store).exact
    assert store.read(WITHOUT).tobytes() == before.tobytes()
    assert deltalake.DeltaTable(folder).version() == delta.version()
    with pytest.raises(ValueError, match=r"part-.*parquet is a part of the Delta table .*delta: its log says"):
        ParquetStore(next(folder.glob("*.parquet")))


def test_a_partition_of_a_delta_table_is_refused(tmp_path):
    table = NODES.append_column("lang", pyarrow.array(["de", "en"] * 20))
    deltalake.write_deltalake(tmp_path / "delta", table, partition_by=["lang"])
    with pytest.raises(ValueError, match="lang=de is a part of the Delta table"):
        ParquetStore(tmp_path / "delta" / "lang=de")
    assert ids_of(ParquetStore(deltalake.DeltaTable(tmp_path / "delta").file_uris())) == sorted(IDS)


def encode_deletion_vector(rows):
    """A deletion vector as the Delta protocol has it inline: a roaring bitmap of 64 bits in Z85."""
    bitmap = pyroaring.BitMap(rows).serialize()
    content = struct.pack("<iqi", 1681511377, 1, 0) + bitmap
    content += bytes(-len(content) % 4)
    signs = string.digits + string.ascii_lowercase + string.ascii_uppercase + ".-:+=^!/*?&<>()[]{}@%$#"
    numbers = struct.unpack(f">{len(content) // 4}I", content)
    text = "".join(signs[number // 85**power % 85] for number in numbers for power in range(4, -1, -1))
    return {"storageType": "i", "pathOrInlineDv": text, "sizeInBytes": len(content), "cardinality": len(rows)}


def test_a_delta_table_with_a_deletion_vector_is_refused_until_it_is_purged(tmp_path):
    """deltalake writes none, but reads them: the commit is another engine's, of the protocol's layout."""
    folder = tmp_path / "delta"
    deltalake.write_deltalake(folder, NODES, configuration={"delta.enableDeletionVectors": "true"})
    (commit,) = (folder / "_delta_log").glob("*.json")
    added = next(json.loads(line)["add"] for line in commit.read_text().splitlines() if '"add"' in line)
    removed = {"path": added["path"], "deletionTimestamp": added["modificationTime"], "dataChange": True}
    entries = [{"commitInfo": {"operation": "DELETE"}}, {"remove": removed}]
    entries.append({"add": added | {"deletionVector": encode_deletion_vector([3])}})
    (folder / "_delta_log" / f"{1:020d}.json").write_text("\n".join(map(json.dumps, entries)))
    table = deltalake.DeltaTable(folder)
    found = deltalake.QueryBuilder().register("t", table).execute("SELECT id FROM t ORDER BY id").read_all()
    assert pyarrow.table(found)["id"].to_pylist() == sorted(WITHOUT)
    with pytest.raises(ValueError, match=r"the Delta table .* has deletion vectors: rows of .* no longer count.*REORG"):
        ParquetStore(table.file_uris())
    table.optimize.compact()
    with pytest.raises(ValueError, match="has deletion vectors"):
        ParquetStore(deltalake.DeltaTable(folder).file_uris())
    table.optimize.z_order(["id"])
    assert ids_of(ParquetStore(deltalake.DeltaTable(folder).file_uris())) == sorted(WITHOUT)


def test_an_iceberg_table_is_read_by_its_list(iceberg, tmp_path):
    folder = Path(iceberg.location().removeprefix("file://"))
    with pytest.raises(ValueError, match=r"is an Iceberg table.*plan_files\(\)"):
        ParquetStore(folder)
    assert ids_of(ParquetStore(files_of(iceberg))) == sorted(IDS)
    iceberg.delete("id == 'n3'")  # this library writes the file anew, the old one stays in the folder
    assert len(list((folder / "data").glob("*.parquet"))) == 3
    with pytest.raises(ValueError, match="data is a part of the Iceberg table"):
        ParquetStore(folder / "data")
    store = ParquetStore(files_of(iceberg), beside=tmp_path / "ours")
    assert ids_of(store) == sorted(WITHOUT)
    before = store.read(WITHOUT)
    push_vectors(store, WITHOUT[:3], before[:3], before[:3] + 1)
    assert rollback(store).exact
    assert store.read(WITHOUT).tobytes() == before.tobytes()


def test_an_iceberg_table_with_files_of_deleted_rows_is_refused(iceberg):
    """This library writes none: the newest metadata says what other engines write into its summary."""
    files = files_of(iceberg)
    newest = Path(iceberg.metadata_location.removeprefix("file://"))
    content = json.loads(newest.read_text())
    summary = next(one for one in content["snapshots"] if one["snapshot-id"] == content["current-snapshot-id"])
    assert summary["summary"]["total-delete-files"] == "0"
    summary["summary"]["total-delete-files"] = "1"
    newest.write_text(json.dumps(content))
    if content["format-version"] == 1:  # which has no such files
        assert ids_of(ParquetStore(files)) == sorted(IDS)
        return
    with pytest.raises(ValueError, match=r"the Iceberg table .* has files of deleted rows.*rewrite_data_files"):
        ParquetStore(files)
