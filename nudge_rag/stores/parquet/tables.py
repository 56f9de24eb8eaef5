"""Tables that are more than their files: Iceberg, Delta and Hudi, whose metadata says which files and rows count."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import unquote

__all__ = ["check_above", "check_files", "check_folder"]

DELTA_LOG, HUDI_TIMELINE, ICEBERG_METADATA = "_delta_log", ".hoodie", "metadata"
METADATA_FILE = re.compile(r"[^/]*\.metadata\.json(\.gz)?")
# A commit, a compacted range of them (the last counts), or a checkpoint, by its number.
LOG_FILE = re.compile(r"(\d+)(?:\.(\d+)\.compacted)?\..*(json|parquet)")
# Of deltalake's own, compact() leaves a file alone that is large enough, whatever is deleted in it.
PURGE = "REORG TABLE ... APPLY (PURGE) in Spark, or DeltaTable(path).optimize.z_order([ID COLUMN]),"


def check_folder(inside: Iterable[str], root: str) -> None:
    """Check that a folder, with these paths in it, is no Iceberg or Delta table.

    Raises:
        ValueError: it is one; says which list of files to give instead.
    """
    for path in inside:
        if path == DELTA_LOG or path.startswith(f"{DELTA_LOG}/"):
            raise _delta_folder(root, root)
        if path == HUDI_TIMELINE or path.startswith(f"{HUDI_TIMELINE}/"):
            raise _hudi_folder(root, root)
        if re.fullmatch(f"{ICEBERG_METADATA}/{METADATA_FILE.pattern}", path):
            raise _iceberg_folder(root, root)


def check_above(filesystem: Any, path: str) -> None:
    """Check that a folder or file is in no Iceberg or Delta table.

    Raises:
        ValueError: it is; says which list of files to give instead.
    """
    for table, kind in _tables_above(filesystem, [path.rpartition("/")[0]]):
        raise FOLDERS[kind](path, table)


def check_files(filesystem: Any, paths: Sequence[str]) -> None:
    """Check that no file of a list belongs to a table whose metadata marks rows of it as deleted.

    Raises:
        ValueError: one does; says what applies the deletions.
    """
    for folder, kind in _tables_above(filesystem, sorted({path.rpartition("/")[0] for path in paths})):
        if kind == ICEBERG_METADATA:
            _check_iceberg(filesystem, folder)
        elif kind == HUDI_TIMELINE:
            raise _hudi_folder(folder, folder)
        else:
            _check_delta(filesystem, folder, [path for path in paths if path.startswith(f"{folder}/")])


def _delta_folder(root: str, table: str) -> ValueError:
    return ValueError(
        f"{root} is {_part_of('Delta', root, table)}: its log says which files count. Give the list"
        f" DeltaTable(path).file_uris(); if the table has deletion vectors, run {PURGE} first"
    )


def _iceberg_folder(root: str, table: str) -> ValueError:
    return ValueError(
        f"{root} is {_part_of('Iceberg', root, table)}: its metadata says which files count, and which rows of them are"
        " deleted. Give the list [task.file.file_path for task in table.scan().plan_files()]; if a task has"
        " delete_files, run rewrite_data_files first, which applies them"
    )


def _hudi_folder(root: str, table: str) -> ValueError:
    return ValueError(
        f"{root} is {_part_of('Hudi', root, table)}: its timeline says which files count, and older ones are there too."
        " Export a snapshot of the table (HoodieSnapshotExporter), and give that folder"
    )


FOLDERS = {DELTA_LOG: _delta_folder, HUDI_TIMELINE: _hudi_folder, ICEBERG_METADATA: _iceberg_folder}


def _part_of(kind: str, root: str, table: str) -> str:
    article = "an" if kind == "Iceberg" else "a"
    return f"{article} {kind} table" if root == table else f"a part of the {kind} table {table}"


def _tables_above(filesystem: Any, folders: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each table that holds one of the folders, and what it keeps its metadata in."""
    from pyarrow.fs import FileType

    above = dict.fromkeys(part for folder in folders for part in _ancestors(folder))
    kinds = [(folder, kind) for folder in above for kind in (DELTA_LOG, HUDI_TIMELINE, ICEBERG_METADATA)]
    found: list[Any] = []
    # Whoever may read the data alone is not asked for what is above it.
    with contextlib.suppress(OSError):
        found = filesystem.get_file_info([f"{folder}/{kind}" for folder, kind in kinds])
    for (folder, kind), info in zip(kinds, found, strict=False):
        if info.type == FileType.Directory and (kind != ICEBERG_METADATA or _metadata_files(filesystem, folder)):
            yield folder, kind


def _ancestors(folder: str) -> list[str]:
    """The folder itself and those above it, the nearest first."""
    parts = folder.split("/")
    return ["/".join(parts[:length]) for length in range(len(parts), 0, -1) if parts[length - 1]]


def _metadata_files(filesystem: Any, table: str) -> list[str]:
    from pyarrow.fs import FileSelector

    found = filesystem.get_file_info(FileSelector(f"{table}/{ICEBERG_METADATA}"))
    return [info.path for info in found if METADATA_FILE.fullmatch(info.base_name)]


def _check_iceberg(filesystem: Any, table: str) -> None:
    """Check by the newest metadata of an Iceberg table that its current snapshot has no files of deleted rows."""
    contents = [content for path in _metadata_files(filesystem, table) for content in _objects(filesystem, path, False)]
    newest = max(contents, key=lambda content: int(content.get("last-updated-ms", 0)))
    current = newest.get("current-snapshot-id")
    summaries = [one.get("summary") or {} for one in newest.get("snapshots") or () if one["snapshot-id"] == current]
    if newest.get("format-version", 1) == 1 or not summaries:
        return
    if str(summaries[0].get("total-delete-files")) != "0":
        raise ValueError(
            f"the Iceberg table {table} has files of deleted rows, which no longer count, or does not say that it has"
            " none. Run rewrite_data_files first, which applies them, and give the files that plan_files() names then"
        )


def _check_delta(filesystem: Any, table: str, paths: Sequence[str]) -> None:
    """Check by the log of a Delta table that the last entry of none of the files has a deletion vector."""
    marked: dict[str, bool] = {}
    for path in _log_files(filesystem, table):
        for added in _added_files(filesystem, path):
            marked[f"{table}/{unquote(str(added['path']))}"] = bool(added.get("deletionVector"))
    deleted = [path for path in paths if marked.get(path)]
    if deleted:
        raise ValueError(
            f"the Delta table {table} has deletion vectors: rows of {deleted[0]} no longer count. Run {PURGE} first,"
            " and give the files that it has then"
        )


def _log_files(filesystem: Any, table: str) -> list[str]:
    """Commits and checkpoints in the order of their numbers; first the parts of checkpoints, which have none."""
    from pyarrow.fs import FileSelector

    numbered: list[tuple[int, bool, str]] = []
    for info in filesystem.get_file_info(FileSelector(f"{table}/{DELTA_LOG}", recursive=True)):
        if found := LOG_FILE.fullmatch(info.base_name):
            numbered.append((int(found[2] or found[1]), found[3] == "parquet", info.path))
        elif info.path.endswith(".parquet"):
            numbered.append((-1, True, info.path))
    return [path for _, _, path in sorted(numbered)]


def _added_files(filesystem: Any, path: str) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet

    if path.endswith(".json"):
        entries = [entry.get("add") for entry in _objects(filesystem, path, True)]
    else:
        table = pyarrow.parquet.read_table(path, filesystem=filesystem)
        entries = table["add"].to_pylist() if "add" in table.column_names else []
    return (entry for entry in entries if entry)


def _objects(filesystem: Any, path: str, has_lines: bool) -> list[dict[str, Any]]:
    """The JSON object in a file, or the one in each of its lines."""
    with filesystem.open_input_stream(path, compression=None) as stream:
        content = bytes(stream.read())
    try:
        text = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode()
        found = [json.loads(part) for part in (text.splitlines() if has_lines else [text]) if part.strip()]
        if not all(isinstance(entry, dict) for entry in found):
            raise ValueError("it holds something else than objects")
    except (ValueError, OSError, EOFError, RecursionError) as error:
        raise ValueError(f"{path} is no metadata of a table, or is damaged ({error})") from error
    return found
