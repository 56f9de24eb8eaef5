"""Parquet files: types of columns, what others do to them meanwhile, processes that die, tables that are refused."""

from __future__ import annotations

import datetime
import gzip
import json
import os
import pathlib
import shutil
import signal
import threading

import fsspec.implementations.local
import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet
import pytest
from fsspec.implementations.dirfs import DirFileSystem

from nudge_rag import reapply, rollback, status, switch
from nudge_rag.common import files
from nudge_rag.errors import CorruptArchiveError
from nudge_rag.journal.manifest import SIDE_BY_SIDE
from nudge_rag.journal.push import push_vectors
from nudge_rag.stores import ParquetStore, StoreError, UnknownIdError
from nudge_rag.stores.parquet import replacing
from nudge_rag.stores.parquet import store as store_module
from nudge_rag.stores.parquet.snapshots import SnapshotFolder
from nudge_rag.stores.urls import open_store

VECTORS = np.random.default_rng(0).normal(size=(40, 4))
IDS = [f"n{row}" for row in range(40)]
ONES = np.ones((1, 4))


def write(path, ids=IDS, vectors=VECTORS, kind=None, **more):
    """A file of these nodes; None among the vectors stays None."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = kind or pyarrow.list_(pyarrow.float32())
    rows = [None if vector is None else np.asarray(vector).tolist() for vector in vectors]
    table = pyarrow.table({"id": ids, "embedding": pyarrow.array(rows, kind), "number": range(len(rows)), **more})
    pyarrow.parquet.write_table(table, path, row_group_size=7)
    return table


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "docs"
    for part in range(2):
        rows = slice(20 * part, 20 * part + 20)
        write(place / f"part-{part}.parquet", IDS[rows], VECTORS[rows])
    return place


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


TYPES = {
    "list<float>": (pyarrow.list_(pyarrow.float32()), np.float32),
    "list<double>": (pyarrow.list_(pyarrow.float64()), np.float64),
    "large_list<float>": (pyarrow.large_list(pyarrow.float32()), np.float32),
    "fixed<float>": (pyarrow.list_(pyarrow.float32(), 4), np.float32),
    "fixed<double>": (pyarrow.list_(pyarrow.float64(), 4), np.float64),
    "list<half>": (pyarrow.list_(pyarrow.float16()), np.float16),
    "fixed<half>": (pyarrow.list_(pyarrow.float16(), 4), np.float16),
    "tensor": (pyarrow.fixed_shape_tensor(pyarrow.float32(), (4,)), np.float32),
}
ID_TYPES = [pyarrow.string(), pyarrow.large_string(), pyarrow.dictionary(pyarrow.int32(), pyarrow.string())]
ID_TYPES += [pyarrow.int64(), pyarrow.uint32()]


@pytest.mark.parametrize(
    ("name", "ids"),
    [*((name, ID_TYPES[0]) for name in TYPES), *(("list<float>", ids) for ids in ID_TYPES[1:])],
    ids=str,
)
def test_every_type_is_read_and_written_back_as_it_was(tmp_path, name, ids):
    kind, dtype = TYPES[name]
    names = [str(row) for row in range(40)]
    column = pyarrow.array(range(40) if pyarrow.types.is_integer(ids) else names).cast(ids)
    storage = getattr(kind, "storage_type", kind)
    vectors = pyarrow.array(VECTORS.astype(dtype).tolist(), storage)
    vectors = pyarrow.ExtensionArray.from_storage(kind, vectors) if storage is not kind else vectors
    metadata = {"note": "theirs"}
    table = pyarrow.table({"text": names, "id": column, "embedding": vectors}).replace_schema_metadata(metadata)
    pyarrow.parquet.write_table(table, tmp_path / "docs.parquet", row_group_size=15, compression="zstd")
    table, bytes_before = pyarrow.parquet.read_table(tmp_path / "docs.parquet"), contents(tmp_path)

    store = ParquetStore(tmp_path / "docs.parquet", similarity="dot")
    stored = VECTORS.astype(dtype).astype(np.float64 if dtype == np.float64 else np.float32)
    assert store.read(names).tobytes() == stored.tobytes()
    assert store.read(names).dtype == store.capabilities.dtype == stored.dtype
    moved = store.as_stored(VECTORS[:3] * 1.7)
    store.replace(names[30:33], moved)
    assert store.read(names[30:33]).tobytes() == moved.tobytes()
    assert store.read(names[:30]).tobytes() == stored[:30].tobytes()
    (path,) = store.files()
    assert path != str(tmp_path / "docs.parquet")
    again = pyarrow.parquet.read_table(path)
    assert again.schema.equals(table.schema, check_metadata=True)
    assert again.drop_columns("embedding").equals(table.drop_columns("embedding"))
    chunk = pyarrow.parquet.ParquetFile(path).metadata.row_group(0).column(0)
    assert chunk.compression == "ZSTD"
    assert bytes_before.items() <= contents(tmp_path).items()


@pytest.mark.parametrize("kind", [pyarrow.list_(pyarrow.float32()), pyarrow.list_(pyarrow.float32(), 4)], ids=str)
def test_rows_without_an_id_or_a_vector_are_no_nodes_and_stay(tmp_path, kind):
    ids = [None if row in (3, 9) else name for row, name in enumerate(IDS)]
    vectors = [None if row in (9, 11, 25) else vector.astype(np.float32) for row, vector in enumerate(VECTORS)]
    table = write(tmp_path / "docs.parquet", ids, vectors, kind)
    store = ParquetStore(tmp_path / "docs.parquet")
    there = [name for row, name in enumerate(IDS) if row not in (3, 9, 11, 25)]
    assert store.count() == 36
    assert [name for names, _ in store.scan(5) for name in names] == there
    assert store.matching(IDS, None) == set(there)
    assert store.search(VECTORS[:1], 100).ids[0].__len__() == 36
    with pytest.raises(UnknownIdError, match="'n11'"):
        store.replace(["n12", "n11"], np.ones((2, 4)))
    store.replace(["n12"], ONES)
    again = pyarrow.parquet.read_table(store.files()[0])
    assert [row for row in range(40) if again["embedding"][row] != table["embedding"][row]] == [12]
    assert again["id"].equals(table["id"])
    assert again["embedding"][12].as_py() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("embedding", [[1.0, 2.0], [1.0, 2.0, 3.0]], "the vector of node 'n1' has 3 numbers, others have 2"),
        ("embedding", [[1.0, 2.0], [1.0, None]], "the vector of node 'n1' lacks a number"),
        ("embedding", [[1, 2], [3, 4]], "must hold lists of float16, float32 or float64.*list<.*int64"),
        ("embedding", [b"0123", b"4567"], "must hold lists of float16, float32 or float64.*binary"),
        ("embedding", ["[1, 2]", "[3, 4]"], "must hold lists of float16, float32 or float64.*string"),
        ("id", [1.5, 2.5], "column 'id' must hold strings or integers, it holds double"),
        ("id", [b"a", b"b"], "column 'id' must hold strings or integers, it holds binary"),
        ("node", ["a", "b"], "there is no column 'id', the columns are node, embedding"),
    ],
)
def test_columns_that_hold_something_else_are_refused(tmp_path, column, values, message):
    columns = {"id": ["n0", "n1"], "embedding": [[1.0, 2.0], [3.0, 4.0]]} | {column: values}
    if column == "node":
        columns = {"node": values, "embedding": columns["embedding"]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "docs.parquet")
    with pytest.raises(ValueError, match=message):
        list(ParquetStore(tmp_path / "docs.parquet").scan())


def of_strings(path):
    pyarrow.parquet.write_table(pyarrow.table({"id": ["x"], "embedding": ["x"]}), path)


def damage(path, begin, end):
    """Write over some bytes of a file, or cut it off if there is no end."""
    whole = path.read_bytes()
    path.write_bytes(whole[:begin] + (b"" if end is None else bytes(end - begin) + whole[end:]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: write(path, kind=pyarrow.list_(pyarrow.float64())), "s, in other files (float|double)s: write"),
        (
            lambda path: write(path, IDS, VECTORS[:, :3], pyarrow.list_(pyarrow.float32(), 3)),
            r"\d numbers, .*other",
        ),
        (lambda path: pyarrow.parquet.write_table(pyarrow.table({"id": ["x"]}), path), "no column 'embedding'"),
        (lambda path: pyarrow.parquet.write_table(pyarrow.table({"embedding": [[1.0]]}), path), "no column 'id'"),
        (of_strings, "must hold lists of .* it holds string"),
        (lambda path: path.write_bytes(b""), "cannot be read as Parquet.* 0 bytes"),
        (lambda path: damage(path, 300, None), "cannot be read as Parquet.* magic bytes"),
        (lambda path: damage(path, 4, 200), "cannot be read"),
    ],
)
@pytest.mark.parametrize("name", ["part-0.parquet", "part-1.parquet"])
def test_a_file_that_does_not_fit_is_named(folder, change, message, name):
    if name == "part-0.parquet":
        shutil.copy(folder / name, folder / "part-2.parquet")
    change(folder / name)
    with pytest.raises((ValueError, OSError), match=rf"part-\d.parquet.*{message}") as raised:
        sum(len(names) for names, _ in ParquetStore(folder).scan())
    # Of two that do not fit each other, the second.
    assert (name if "other" not in str(raised.value) else "part-1.parquet") in str(raised.value)
    assert type(raised.value) in (ValueError, OSError)


def test_a_column_that_is_there_twice_is_refused(tmp_path):
    table = pyarrow.Table.from_arrays([pyarrow.array(["x"]), *2 * [pyarrow.array([[1.0]])]], ["id", *2 * ["embedding"]])
    pyarrow.parquet.write_table(table, tmp_path / "docs.parquet")
    with pytest.raises(ValueError, match="more than one column 'embedding', the columns are id, embedding, embedding"):
        ParquetStore(tmp_path / "docs.parquet")


@pytest.mark.parametrize("name", ["part-0.parquet", "part-3.parquet"])
@pytest.mark.parametrize("kind", [pyarrow.list_(pyarrow.float32()), pyarrow.list_(pyarrow.float32(), 4)], ids=str)
def test_files_without_a_vector_have_no_nodes(tmp_path, name, kind):
    """Their writer knew no type of a column that holds nothing; a file without rows may have the right one."""
    place = tmp_path / "docs"
    write(place / "part-1.parquet", kind=kind)
    pyarrow.parquet.write_table(pyarrow.table({"id": ["x", "y"], "embedding": pyarrow.nulls(2)}), place / name)
    for empty, type_of_theirs in (("part-00.parquet", pyarrow.list_(pyarrow.float32())), ("part-2.parquet", kind)):
        write(place / empty, pyarrow.array([], pyarrow.string()), [], type_of_theirs)
    store = ParquetStore(place)
    assert (store.count(), store.dimension) == (40, 4)
    assert [one for names, _ in store.scan() for one in names] == IDS
    copy = store.map_to_copy(np.negative, "turned")
    assert copy.read(IDS).tobytes() == (-VECTORS.astype(np.float32)).tobytes()
    (path,) = [path for path in copy.files() if path.endswith(name)]
    assert pyarrow.parquet.read_table(path)["id"].to_pylist() == ["x", "y"]


def test_columns_of_string_views_are_read_and_stay(tmp_path):
    views = pyarrow.array(IDS).cast(pyarrow.string_view())
    table = pyarrow.table({"id": views, "text": views, "embedding": VECTORS.tolist()})
    pyarrow.parquet.write_table(table, tmp_path / "docs.parquet")
    store = ParquetStore(tmp_path / "docs.parquet")
    store.replace(["n3"], ONES)
    assert store.read(["n2", "n3"]).tolist() == [VECTORS[2].tolist(), ONES[0].tolist()]
    (path,) = store.files()
    assert pyarrow.parquet.read_table(path).drop_columns("embedding").equals(table.drop_columns("embedding"))


def test_bad_arguments(folder, tmp_path):
    with pytest.raises(ValueError, match="similarity must be one of cosine, dot, l2, got 'l1'"):
        ParquetStore(folder, similarity="l1")
    with pytest.raises(ValueError, match=r"there is no Parquet file at .*nothing"):
        ParquetStore(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"there is no Parquet file at .*empty"):
        ParquetStore(tmp_path / "empty")
    with pytest.raises(TypeError, match="source must be a path, or a list of paths"):
        ParquetStore([])
    write(tmp_path / "twice.parquet", [*IDS[:39], "n7"])
    twice = ParquetStore(tmp_path / "twice.parquet")
    for call in (lambda: twice.read(["n7"]), lambda: twice.replace(["n7"], ONES)):
        with pytest.raises(ValueError, match="id 'n7' is more than once in parquet"):
            call()
    with pytest.raises(ValueError, match="too large for float16"):
        write(tmp_path / "half.parquet", kind=pyarrow.list_(pyarrow.float16()))
        ParquetStore(tmp_path / "half.parquet").replace(["n1"], ONES * 1e6)


def test_urls(folder, monkeypatch):
    write(folder / "part-2.parquet", ["x"], [[1.0, 2.0, 3.0, 4.0]], key=["y"], v=[[1.0, 2.0]])
    for part in range(2):
        (folder / f"part-{part}.parquet").unlink()
    store = open_store(f"parquet://{folder}?id=key&vector=v&similarity=l2")
    assert store.read(["y"]).tolist() == [[1, 2]]
    assert store.capabilities.similarity == "l2"
    assert open_store(f"parquet://{folder}?filesystem=file").count() == 1
    monkeypatch.chdir(folder.parent)
    assert open_store("parquet://./docs").key == open_store(f"parquet://{folder}").key != store.key
    with pytest.raises(StoreError, match="opens nowhere://"):
        open_store("parquet:///bucket/docs?filesystem=nowhere")
    with pytest.raises(ValueError, match="takes a path, after three slashes"):
        open_store("parquet://bucket")


def test_files_and_folders_that_begin_with_a_dot_or_a_line_are_not_data(folder):
    for name in ("_temporary/part-9.parquet", ".hidden.parquet", "_metadata.parquet"):
        write(folder / name, ["other"], [[0.0] * 4])
    (folder / "README.md").write_text("not Parquet")
    assert ParquetStore(folder).count() == 40


def test_hive_partitions_are_columns_and_stay_folders(tmp_path):
    place = tmp_path / "docs"
    write(place / "lang=de" / "a.parquet", IDS[:20], VECTORS[:20])
    write(place / "lang=en" / "a.parquet", IDS[20:], VECTORS[20:])
    store = ParquetStore(place)
    german = pyarrow.compute.field("lang") == "de"
    assert store.matching(IDS, german) == set(IDS[:20])
    store.replace(["n1"], ONES)
    assert store.matching(IDS, german) == set(IDS[:20])
    found = store.search(ONES, 3, where=german & (pyarrow.compute.field("number") < 5))
    assert found.ids[0][0] == "n1"
    assert set(found.ids[0]) <= set(IDS[:5])
    assert [path.split("/")[-2] for path in store.files()] == ["lang=de", "lang=en"]


def test_a_column_may_be_in_the_files_and_in_the_names_of_their_folders(tmp_path):
    """In two types, which Arrow does not merge: whole numbers of 64 bits, and of 32 in the names."""
    for row, year in enumerate((2024, 2025)):
        rows, place = slice(20 * row, 20 * row + 20), tmp_path / "docs" / "lang=a%2Fb" / f"year={year}"
        write(place / "part.parquet", IDS[rows], VECTORS[rows], year=pyarrow.array([year] * 20, pyarrow.int64()))
    store = ParquetStore(tmp_path / "docs")
    field = pyarrow.compute.field
    assert store.matching(IDS, (field("year") == 2025) & (field("lang") == "a/b")) == set(IDS[20:])
    store.replace(["n3"], ONES)
    assert store.matching(IDS, field("year") == 2024) == set(IDS[:20])
    assert store.read(["n3"]).tolist() == ONES.tolist()


def test_a_file_of_ours_that_somebody_deletes_counts_no_more(folder):
    """Its nodes have lost their nudge, as if they had been embedded again."""
    store, before = ParquetStore(folder), VECTORS.astype(np.float32)
    push_vectors(store, ["n3", "n25"], before[[3, 25]], before[[3, 25]] + 1)
    pathlib.Path(store.files()[0]).unlink()
    again = ParquetStore(folder)
    assert again.read(["n3", "n25"]).tobytes() == np.stack([before[3], before[25] + 1]).tobytes()
    assert (status(again).nudged, status(again).lost) == (("n25",), ("n3",))
    reapply(again)
    assert again.read(["n3", "n25"]).tobytes() == (before[[3, 25]] + 1).tobytes()
    assert rollback(again).exact
    assert ParquetStore(folder).read(IDS).tobytes() == before.tobytes()


def test_a_file_that_is_written_over_while_it_is_read_says_so(folder):
    """With one of the same layout, whose rows come after those that were read before."""
    (fragment, *_) = ParquetStore(folder).fragments()
    batches = fragment.batches(7)
    next(batches)
    write(folder / "part-0.parquet", IDS[:20], VECTORS[:20] + 1)
    with pytest.raises(StoreError, match=r"part-0\.parquet was changed or removed"):
        list(batches)


def test_nothing_of_the_users_is_ever_written_to(folder, tmp_path):
    before = contents(folder)
    store, originals = ParquetStore(folder), ParquetStore(folder).read(IDS)
    for mode in (None, SIDE_BY_SIDE):
        options = {} if mode is None else {"mode": mode}
        push_vectors(store, IDS[:5], originals[:5], originals[:5] + 1, **options)
        if mode is not None:
            switch(store)
        assert store.read(IDS[:5]).tobytes() == (originals[:5] + 1).astype(np.float32).tobytes()
        assert rollback(ParquetStore(folder)).exact
        assert store.read(IDS).tobytes() == originals.tobytes()
    assert contents(folder) == before
    assert store.history().names()
    # Beside the folder are only versions that somebody may still read.
    rewritten = list((tmp_path / "docs.nudge-rag").rglob("*.parquet"))
    assert len(rewritten) <= 4


def test_only_the_files_that_change_are_written_anew(folder):
    store = ParquetStore(folder)
    store.replace(["n3", "n4"], np.ones((2, 4)))
    one, two = store.files()
    assert ".nudge-rag/embedding/snapshots/" in one
    assert two == str(folder / "part-1.parquet")
    assert pyarrow.dataset.dataset(store.files()).count_rows() == 40


def test_a_side_by_side_push_compares_only_what_differs(folder, monkeypatch):
    store = ParquetStore(folder)
    originals = store.read(IDS)
    push_vectors(store, IDS[:5], originals[:5], originals[:5] + 1, mode=SIDE_BY_SIDE)
    (label,) = store.copy_labels()
    pairs = list(store.scan_beside(store.open_copy(label), 100))
    assert [name for names, _, _ in pairs for name in names] == IDS[:20]
    store.replace(["n30"], ONES)  # of a file that the copy shares no longer
    assert switch(store).caught_up == 1
    assert store.read(["n30", "n3"]).tolist() == [[1, 1, 1, 1], (originals[3] + 1).tolist()]
    assert rollback(store).exact
    assert store.read(["n30", "n3"]).tolist() == [[1, 1, 1, 1], originals[3].tolist()]


def test_a_switch_moves_nodes_of_a_file_that_a_pipeline_has_written_anew(folder):
    """Of which one has the vector that it had, and gets its nudge; another does not, and keeps its own."""
    store = ParquetStore(folder)
    originals = store.read(IDS)
    push_vectors(store, IDS[:2], originals[:2], originals[:2] + 1, mode=SIDE_BY_SIDE)
    newer = originals[:20].copy()
    newer[1] = 7
    write(folder / "part-0.parquet", IDS[:20], newer)
    switch(store)
    assert store.read(IDS[:3]).tolist() == [(originals[0] + 1).tolist(), [7, 7, 7, 7], originals[2].tolist()]
    assert rollback(store).exact
    assert store.read(IDS[:3]).tolist() == [originals[0].tolist(), [7, 7, 7, 7], originals[2].tolist()]


def test_a_file_that_a_pipeline_writes_anew_counts_again(folder):
    store = ParquetStore(folder)
    store.replace(["n3", "n25"], np.ones((2, 4)))
    newer = VECTORS[:20] + 5
    write(folder / "part-0.parquet", IDS[:20], newer)
    assert store.read(["n3", "n25"]).tolist() == [newer[3].astype(np.float32).tolist(), [1, 1, 1, 1]]
    write(folder / "part-2.parquet", ["new"], ONES)
    assert store.count() == 41
    assert store.search(ONES, 2).ids == [["n25", "new"]]
    (folder / "part-1.parquet").unlink()
    assert store.matching(["n25", "n3"], None) == {"n3"}


def test_rollback_leaves_what_a_pipeline_has_written_since(folder):
    store = ParquetStore(folder)
    originals = store.read(IDS)
    push_vectors(store, ["n3", "n25"], originals[[3, 25]], originals[[3, 25]] + 1)
    newer = VECTORS[:20] + 5
    write(folder / "part-0.parquet", IDS[:20], newer)
    with pytest.warns(UserWarning, match="1 node.* changed since the push"):
        receipt = rollback(ParquetStore(folder))
    assert list(receipt.changed_since) == ["n3"]
    assert ParquetStore(folder).read(["n3"]).tobytes() == newer[3:4].astype(np.float32).tobytes()
    assert ParquetStore(folder).read(["n25"]).tobytes() == originals[25:26].tobytes()


def test_a_pipeline_that_writes_in_the_middle_of_a_write_is_not_lost(folder, monkeypatch):
    store, newer = ParquetStore(folder), VECTORS[:20] + 5
    expected = store.read(["n3", "n25"])
    real, times = replacing.map_fragments, []

    def meanwhile(function, fragments, question, executor):
        found = list(real(function, fragments, question, executor))
        if function.__name__ == "change_file" and not times:
            times.append(1)
            write(folder / "part-0.parquet", IDS[:20], newer)
        return iter(found)

    monkeypatch.setattr(replacing, "map_fragments", meanwhile)
    assert store.replace_vectors_if(["n3", "n25"], expected, np.ones((2, 4))) == ["n3"]
    assert times == [1]
    assert store.read(["n3"]).tobytes() == newer[3:4].astype(np.float32).tobytes()
    assert store.read(["n25"]).tolist() == [[1, 1, 1, 1]]


def test_a_scan_of_files_that_change_in_the_middle_says_so(folder):
    batches = ParquetStore(folder).scan(5)
    next(batches)
    write(folder / "part-1.parquet", IDS[20:], VECTORS[20:] + 1)
    with pytest.raises(StoreError, match=r"part-1\.parquet was changed or removed while the store was read"):
        list(batches)


def test_a_file_that_a_pipeline_removes_in_the_middle_of_a_write_is_not_waited_for(folder, monkeypatch):
    """Others are written, as if it had never been there."""
    store = ParquetStore(folder)
    write(folder / "part-2.parquet", ["x"], ONES)
    wrapped, times = store_module.find_names, []

    def find(fragment, names):
        if not times:
            (folder / "part-2.parquet").unlink()
        times.append(fragment.path)
        return wrapped(fragment, names)

    monkeypatch.setattr(store_module, "find_names", find)
    store.replace(["n3"], ONES)
    assert len(times) > 3
    assert store.read(["n3"]).tolist() == ONES.tolist()
    assert store.count() == 40


def test_whoever_reads_while_others_write_sees_one_version(folder):
    store, other = ParquetStore(folder), ParquetStore(folder)
    store.replace(IDS, np.zeros((40, 4)))
    stop, seen = threading.Event(), set()

    def read():
        while not stop.is_set():
            seen.update({rows.tobytes() for rows in [other.read(IDS)]})

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 6):
        store.replace(IDS, np.full((40, 4), number))
    stop.set()
    reader.join()
    assert seen <= {np.full((40, 4), number, np.float32).tobytes() for number in range(6)}
    assert len(seen) > 1


def dying(step):
    """In a child: push, and die at the given call of those that change something on disk."""
    counted = [0]

    def around(method):
        def call(*arguments, **options):
            if counted[0] == step:
                os.kill(os.getpid(), signal.SIGKILL)
            counted[0] += 1
            found = method(*arguments, **options)
            if counted[0] == step:
                os.kill(os.getpid(), signal.SIGKILL)
            counted[0] += 1
            return found

        return call

    return around


@pytest.mark.parametrize("verb", ["replace", "switch", "map"])
def test_a_process_that_is_killed_leaves_the_old_version_or_the_new_one(folder, verb):
    """At every step of a write, before and after: what is read afterwards is one whole version."""
    before, moved = ParquetStore(folder).read(IDS), np.full((40, 4), 2.0, dtype=np.float32)
    theirs = contents(folder)
    for step in range(100):
        store = ParquetStore(folder)
        store.replace(IDS, before)
        if verb == "switch":
            store.create_copy("new").replace(IDS, moved)
        child = os.fork()
        if not child:
            try:
                around = dying(step)
                files.write_synced = around(files.write_synced)
                SnapshotFolder._delete_others = around(SnapshotFolder._delete_others)
                SnapshotFolder.new_folder = around(SnapshotFolder.new_folder)
                pyarrow.parquet.ParquetWriter.close = around(pyarrow.parquet.ParquetWriter.close)
                pyarrow.parquet.ParquetWriter.write_batch = around(pyarrow.parquet.ParquetWriter.write_batch)
                if verb == "replace":
                    store.replace(IDS, moved)
                elif verb == "switch":
                    store.switch("new")
                else:
                    store.map_to_copy(lambda vectors: np.full_like(vectors, 2.0), "new")
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        again = ParquetStore(folder)
        assert again.read(IDS).tobytes() in (before.tobytes(), moved.tobytes())
        if verb != "replace" and "new" in again.copy_labels():
            again.switch("new")
            assert again.read(IDS).tobytes() in (before.tobytes(), moved.tobytes())
            again.drop_copy("new")
        if not os.WIFSIGNALED(status):
            break
    assert step >= 4
    assert contents(folder) == theirs
    again.replace(["n1"], ONES)  # deletes what the dead have left
    again.replace(["n1"], ONES)
    assert len(list(folder.with_name("docs.nudge-rag").rglob("*.parquet"))) <= 4


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.update(format=2),
        lambda state: state.pop("views"),
        lambda state: next(iter(state["views"][""].values())).update(file="../../etc/passwd"),
        lambda state: next(iter(state["views"][""].values())).update(file="snapshots/../../x.parquet"),
        lambda state: next(iter(state["views"][""].values())).pop("size"),
        lambda state: state.update(views=[1]),
    ],
)
def test_a_damaged_list_of_files_is_said_to_be_damaged(folder, change):
    store = ParquetStore(folder)
    store.replace(["n1"], ONES)
    path = folder.with_name("docs.nudge-rag") / "embedding" / "state.json"
    state = json.loads(path.read_text())
    change(state)
    path.write_text(json.dumps(state))
    with pytest.raises(CorruptArchiveError, match=r"state\.json is damaged"):
        store.read(["n1"])


def test_a_folder_that_is_moved_takes_its_versions_along(folder, tmp_path):
    ParquetStore(folder).replace(["n1"], ONES)
    (tmp_path / "elsewhere").mkdir()
    for name in ("docs", "docs.nudge-rag"):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    moved = ParquetStore(tmp_path / "elsewhere" / "docs")
    assert moved.read(["n1"]).tolist() == [[1, 1, 1, 1]]
    assert moved.count() == 40


def test_two_columns_of_vectors_have_a_history_each(tmp_path):
    write(tmp_path / "docs.parquet", other=VECTORS.tolist())
    one, two = (ParquetStore(tmp_path / "docs.parquet", vector_column=name) for name in ("embedding", "other"))
    assert one.key != two.key
    one.history().write("a", b"1")
    assert two.history().names() == []


def test_a_list_of_files_is_read_and_written_to_beside(folder, tmp_path):
    paths = sorted(folder.iterdir(), reverse=True)
    reading = ParquetStore(paths)
    assert [name for names, _ in reading.scan() for name in names] == [*IDS[20:], *IDS[:20]]
    assert not reading.capabilities.side_by_side
    with pytest.raises(ValueError, match="a list of files has no folder beside it: give beside="):
        reading.replace(["n1"], ONES)
    writing = ParquetStore(paths, beside=tmp_path / "ours")
    writing.replace(["n1"], ONES)
    assert writing.read(["n1"]).tolist() == [[1, 1, 1, 1]]
    assert ParquetStore(paths[::-1], beside=tmp_path / "ours").read(["n1"]).tolist() == [[1, 1, 1, 1]]
    assert writing.key == ParquetStore(paths, beside=tmp_path / "ours").key


@pytest.mark.parametrize("inside", ["", "ours", "lang=de/ours"])
def test_a_folder_of_ours_that_would_count_as_theirs_is_refused(folder, inside):
    with pytest.raises(ValueError, match=r"is in .*docs, and its files would count as yours: begin its name with _ or"):
        ParquetStore(folder, beside=folder / inside)


@pytest.mark.parametrize("beside", ["_ours", "lang=de/.ours", "x.nudge-rag"])
def test_a_hidden_folder_in_theirs_may_be_ours(folder, beside):
    store = ParquetStore(folder, beside=folder / beside)
    store.replace(["n1"], ONES)
    assert (store.count(), store.read(["n1"]).tolist()) == (40, ONES.tolist())


def test_what_is_beside_a_folder_does_not_count_in_the_one_above(folder):
    ParquetStore(folder).replace(["n1"], ONES)
    above = ParquetStore(folder.parent)
    assert (above.count(), above.files()) == (40, [str(path) for path in sorted(folder.iterdir())])


def test_another_file_system_holds_everything(folder):
    """As on an object store: no locks of the operating system, and the history in files of that file system."""
    elsewhere = fsspec.implementations.local.LocalFileSystem()
    store = ParquetStore(str(folder), filesystem=elsewhere)
    originals = store.read(IDS)
    push_vectors(store, IDS[:5], originals[:5], originals[:5] + 1)
    again = ParquetStore(str(folder), filesystem=elsewhere)
    assert again.read(IDS[:5]).tobytes() == (originals[:5] + 1).tobytes()
    assert again.history().names("0001/")
    assert rollback(again).exact
    assert store.read(IDS).tobytes() == originals.tobytes()


def spelled(folder):
    """Ways to open one folder."""
    arrow, local = pyarrow.fs.LocalFileSystem(), fsspec.implementations.local.LocalFileSystem()
    (folder.parent / "link").symlink_to(folder)
    within = DirFileSystem(str(folder.parent), local)
    yield from ((place, None) for place in ("docs", "./docs/", "link", folder.as_uri(), f"local://{folder}"))
    for place in ("docs", "docs/../docs/", str(folder.parent / "link"), f"{folder.parent}//docs"):
        yield from ((place, filesystem) for filesystem in (arrow, local))
    yield folder.as_uri(), local
    yield "docs", pyarrow.fs.SubTreeFileSystem(str(folder.parent), arrow)
    yield from (("docs", within), ("docs", pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(within))))


def test_a_folder_has_one_history_however_it_is_spelled_and_by_whatever_file_system(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    store, before = ParquetStore(folder), VECTORS.astype(np.float32)
    push_vectors(store, ["n3"], before[3:4], before[3:4] + 1)
    found = [ParquetStore(place, filesystem=filesystem) for place, filesystem in spelled(folder)]
    assert len(found) == 17
    assert {(other.key, status(other).version, *other.files()) for other in found} == {
        (store.key, "0001", *store.files())
    }


def test_a_folder_for_what_is_written_is_on_the_file_system_that_was_given(folder):
    above = pyarrow.fs.SubTreeFileSystem(str(folder.parent), pyarrow.fs.LocalFileSystem())
    ParquetStore("docs", filesystem=above, beside="ours").replace(["n1"], ONES)
    assert (folder.parent / "ours").is_dir()
    assert ParquetStore(folder, beside=folder.parent / "ours").read(["n1"]).tolist() == ONES.tolist()


def test_hudi_tables_are_refused(folder):
    (folder / ".hoodie").mkdir()
    (folder / "de").mkdir()
    write(folder / "de" / "part.parquet")
    refusal = r"Hudi table.*: its timeline says which files count.*HoodieSnapshotExporter"
    for source in (folder, folder / "de", [folder / "part-0.parquet"]):
        with pytest.raises(ValueError, match=refusal):
            ParquetStore(source, beside=folder.parent / "ours")


def test_a_remote_file_system_is_no_local_folder():
    """fsspec's memory stands for a bucket: nothing is written to this machine's disk."""
    memory = fsspec.filesystem("memory")
    with memory.open("/bucket/docs/part-0.parquet", "wb") as file:
        table = pyarrow.table({"id": IDS, "embedding": VECTORS.astype(np.float32).tolist()})
        pyarrow.parquet.write_table(table, file)
    try:
        store = ParquetStore("/bucket/docs", filesystem=memory)
        store.replace(["n1"], ONES)
        assert store.read(["n1", "n2"]).tolist() == [[1, 1, 1, 1], VECTORS[2].astype(np.float32).tolist()]
        assert store.search(ONES, 1).ids == [["n1"]]
        assert open_store("parquet:///bucket/docs?filesystem=memory").read(["n1"]).tolist() == [[1, 1, 1, 1]]
    finally:
        memory.rm("/bucket", recursive=True)


def iceberg_metadata(version, deletions, at=1):
    """What an engine writes of a table whose current snapshot has this many files of deleted rows."""
    summary = {"operation": "append"} if deletions is None else {"total-delete-files": str(deletions)}
    snapshots = [{"snapshot-id": 6, "summary": {"total-delete-files": "3"}}, {"snapshot-id": 7, "summary": summary}]
    return {"format-version": version, "last-updated-ms": at, "current-snapshot-id": 7, "snapshots": snapshots}


def test_iceberg_tables_are_refused_as_folders(folder):
    (folder / "metadata").mkdir()
    metadata = folder / "metadata" / "v1.metadata.json"
    metadata.write_text(json.dumps(iceberg_metadata(2, 0)))
    with pytest.raises(ValueError, match=r"is an Iceberg table.*plan_files\(\).*rewrite_data_files"):
        ParquetStore(folder)
    (folder / "data" / "lang=de").mkdir(parents=True)
    (folder / "part-0.parquet").rename(folder / "data" / "lang=de" / "part-0.parquet")
    for part in ("data", "data/lang=de", "data/lang=de/part-0.parquet"):
        with pytest.raises(ValueError, match=rf"docs/{part} is a part of the Iceberg table .*docs: its metadata"):
            ParquetStore(folder / part)
    assert ParquetStore([folder / "data" / "lang=de" / "part-0.parquet"]).count() == 20


@pytest.mark.parametrize(
    ("version", "deletions", "is_read"), [(1, None, True), (2, 0, True), (2, 1, False), (2, None, False), (3, 1, False)]
)
@pytest.mark.parametrize("zipped", [False, True])
def test_files_of_iceberg_tables_are_read_if_no_rows_are_deleted(folder, version, deletions, is_read, zipped):
    (folder / "metadata").mkdir()
    # The newest counts, not the last by its name.
    (folder / "metadata" / "9.metadata.json").write_text(json.dumps(iceberg_metadata(2, 0 if deletions else 1)))
    content = json.dumps(iceberg_metadata(version, deletions, at=2)).encode()
    newest = folder / "metadata" / ("2.gz.metadata.json" if zipped else "2.metadata.json")
    newest.write_bytes(gzip.compress(content) if zipped else content)
    if is_read:
        assert ParquetStore([folder / "part-0.parquet"]).count() == 20
        return
    with pytest.raises(ValueError, match=r"the Iceberg table .* has files of deleted rows.*rewrite_data_files"):
        ParquetStore([folder / "part-0.parquet"])


def delta_log(folder, *commits):
    """Commits of a Delta table, each a list of entries."""
    log = folder / "_delta_log"
    log.mkdir(exist_ok=True)
    for number, entries in enumerate(commits, start=len(list(log.iterdir()))):
        (log / f"{number:020d}.json").write_text("\n".join(map(json.dumps, [{"commitInfo": {}}, *entries])) + "\n")
    return log


DELETED = {"storageType": "u", "pathOrInlineDv": "ab^-aqEH.-t@S}K{vb[*k^", "sizeInBytes": 40, "cardinality": 1}


def test_delta_tables_are_refused_as_folders_and_their_files_taken_unless_rows_are_deleted(folder):
    part = folder / "part-0.parquet"
    log = delta_log(folder, [{"protocol": {}}, {"add": {"path": "part-0.parquet", "deletionVector": None}}])
    with pytest.raises(ValueError, match=r"is a Delta table.*DeltaTable\(path\)\.file_uris\(\).*deletion vectors"):
        ParquetStore(folder)
    with pytest.raises(ValueError, match="is a part of the Delta table"):
        ParquetStore(part)
    assert ParquetStore([part]).count() == 20
    delta_log(folder, [{"remove": {"path": "part-0.parquet"}}, {"add": {"path": part.name, "deletionVector": DELETED}}])
    for listed in ([part], [folder / "part-1.parquet", part]):
        with pytest.raises(ValueError, match=r"has deletion vectors: rows of .*part-0.* no longer count.*REORG TABLE"):
            ParquetStore(listed)
    assert ParquetStore([folder / "part-1.parquet"]).count() == 20
    shutil.rmtree(log)
    assert ParquetStore(folder).count() == 40


def test_what_purges_deletion_vectors_makes_a_delta_table_readable_although_its_log_still_tells_of_them(folder):
    (folder / "a b").mkdir()
    (folder / "part-1.parquet").rename(folder / "a b" / "part-1.parquet")
    old, new = folder / "part-0.parquet", folder / "a b" / "part-1.parquet"
    delta_log(
        folder,
        [{"add": {"path": old.name, "deletionVector": DELETED}}],
        [{"remove": {"path": old.name, "deletionVector": DELETED}}, {"add": {"path": "a%20b/part-1.parquet"}}],
    )
    assert ParquetStore([new]).count() == 20
    delta_log(folder, [{"add": {"path": "a%20b/part-1.parquet", "deletionVector": DELETED}}])
    with pytest.raises(ValueError, match="has deletion vectors"):
        ParquetStore([new])


@pytest.mark.parametrize(
    "name", ["00000000000000000002.checkpoint.parquet", "00000000000000000002.checkpoint.0000000001.0000000001.parquet"]
)
def test_a_checkpoint_of_a_delta_table_counts_until_a_later_commit(folder, name):
    log = delta_log(folder, [], [{"add": {"path": "part-0.parquet"}}], [])
    checkpoint = pyarrow.table({"add": [None, {"path": "part-0.parquet", "deletionVector": DELETED}]})
    pyarrow.parquet.write_table(checkpoint, log / name)
    with pytest.raises(ValueError, match="has deletion vectors"):
        ParquetStore([folder / "part-0.parquet"])
    (log / f"{3:020d}.json").write_text(json.dumps({"add": {"path": "part-0.parquet"}}))
    assert ParquetStore([folder / "part-0.parquet"]).count() == 20
    shutil.rmtree(log)
    (log / "_sidecars").mkdir(parents=True)
    pyarrow.parquet.write_table(checkpoint, log / "_sidecars" / "3a0d65cd.parquet")
    with pytest.raises(ValueError, match="has deletion vectors"):
        ParquetStore([folder / "part-0.parquet"])


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\x1f\x8bno", b"\xff"])
def test_damaged_metadata_of_a_table_is_named(folder, content):
    log = delta_log(folder, [])
    (log / "00000000000000000001.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"00001\.json is no metadata of a table, or is damaged"):
        ParquetStore([folder / "part-0.parquet"])
    shutil.rmtree(log)
    (folder / "metadata").mkdir()
    (folder / "metadata" / "1.metadata.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"1\.metadata\.json is no metadata of a table, or is damaged"):
        ParquetStore([folder / "part-0.parquet"])


def test_a_login_that_would_be_part_of_every_path_is_refused_and_not_shown():
    with pytest.raises(ValueError, match="a login in a URI of memory:// would be part of every path") as raised:
        ParquetStore("memory://me:s3cretWord@bucket/docs")
    assert "s3cretWord" not in str(raised.value)
    with pytest.raises(ValueError, match="this is no URI of s3:// for pyarrow") as raised:
        ParquetStore(["s3://me:s3cretWord@bucket/docs?unknown=1"])
    assert "s3cretWord" not in str(raised.value)
    assert "s3cretWord" not in str(raised.value.__cause__ or raised.value.__context__ or "")


def test_a_file_system_that_tells_arrow_no_times_is_asked_for_them():
    """fsspec's memory knows when a file was written, and Arrow does not ask: a file as large as before is a new one."""
    memory = fsspec.filesystem("memory")

    def put(vectors, hours):
        table = pyarrow.table({"id": IDS, "embedding": vectors.astype(np.float32).tolist()})
        with memory.open("/bucket/docs/part-0.parquet", "wb") as file:
            pyarrow.parquet.write_table(table, file, compression="none", use_dictionary=False)
        memory.store["/bucket/docs/part-0.parquet"].modified += datetime.timedelta(hours=hours)
        return memory.info("/bucket/docs/part-0.parquet")["size"]

    try:
        size = put(VECTORS, 0)
        store = ParquetStore("/bucket/docs", filesystem=memory)
        store.replace(["n1"], ONES)
        assert put(VECTORS[::-1], 1) == size
        assert store.read(["n1"]).tolist() == VECTORS[-2:-1].astype(np.float32).tolist()
    finally:
        memory.rm("/bucket", recursive=True)


def test_large_files_are_read_in_pieces(tmp_path, monkeypatch):
    """Row groups of one file are shared out, in the order of the rows."""
    monkeypatch.setattr("nudge_rag.stores.parquet.counting.ROWS_PER_FRAGMENT", 14)
    write(tmp_path / "docs.parquet")
    fragments = ParquetStore(tmp_path / "docs.parquet").fragments()
    assert [fragment.groups for fragment in fragments] == [(0, 1), (2, 3), (4, 5)]
    assert [fragment.rows for fragment in fragments] == [14, 14, 12]
    assert [name for part in fragments for names, _ in part.batches(5) for name in names] == IDS
