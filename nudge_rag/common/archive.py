"""A folder with a JSON manifest and an npz of arrays, written so that a crash leaves the old folder or the new one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import sys
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag.common import files
from nudge_rag.errors import CorruptArchiveError

__all__ = [
    "CorruptArchiveError",
    "encode_arrays",
    "encode_manifest",
    "is_number",
    "parse_arrays",
    "parse_folder",
    "parse_manifest",
    "parse_npz",
    "read_folder",
    "sha256_of",
    "write_folder",
    "write_manifest",
]

FORMAT = 1
MANIFEST, ARRAYS = "manifest.json", "arrays.npz"
# New arrays of a folder that has some already: its manifest decides which are the ones that belong to it.
NEWER_ARRAYS = "arrays.npz.new"
CHECKSUM = "manifest_sha256"

Array = np.ndarray[Any, np.dtype[Any]]


def write_folder(folder: Path, manifest: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Write ``arrays`` and then ``manifest`` (which holds their checksum) to ``folder``, each atomically and synced.

    A folder without a manifest is not a version: the manifest is written last. Where either cannot be written, what was
    in the folder before stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = encode_arrays(arrays)
    checksum = sha256_of(content)
    overwrites = (folder / MANIFEST).exists()
    if overwrites:
        _settle(folder)
    target = folder / (NEWER_ARRAYS if overwrites else ARRAYS)
    try:
        files.write_synced(target, content)
        write_manifest(folder, {**manifest, "format": FORMAT, "arrays_sha256": checksum})
    except BaseException:
        if not _names(folder, checksum):
            target.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()  # only where it is empty
        raise
    if overwrites:
        files.put_in_place(target, folder / ARRAYS)


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Replace the manifest of ``folder`` atomically, with a checksum of its own."""
    files.write_synced(folder / MANIFEST, encode_manifest(manifest))


def encode_manifest(manifest: Mapping[str, Any]) -> bytes:
    """JSON of ``manifest`` with its format and a checksum of its own."""
    content = {name: value for name, value in manifest.items() if name != CHECKSUM} | {"format": FORMAT}
    content[CHECKSUM] = _manifest_checksum(content)
    return json.dumps(content, indent=1, ensure_ascii=False).encode("utf-8", "surrogatepass")


def encode_arrays(arrays: Mapping[str, Array]) -> bytes:
    """An uncompressed npz of ``arrays``."""
    buffer = BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy's stub takes allow_pickle for an array here
    return buffer.getvalue()


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """Manifest and arrays of ``folder``; nothing in it is ever unpickled.

    Raises:
        FileNotFoundError: there is no such folder.
        CorruptArchiveError: what is missing in it, malformed or does not match its checksum.
    """
    if not folder.exists():
        raise FileNotFoundError(f"there is no folder {str(folder)!r}")
    manifest, newer = _content(folder / MANIFEST), folder / NEWER_ARRAYS
    if newer.exists():
        with contextlib.suppress(CorruptArchiveError):
            return parse_folder(folder, manifest, _content(newer))
    return parse_folder(folder, manifest, _content(folder / ARRAYS))


def parse_folder(folder: Path, manifest: bytes, arrays: bytes) -> tuple[dict[str, Any], dict[str, Array]]:
    """What `read_folder` reads, from the contents of both files; ``folder`` is for messages.

    Raises:
        CorruptArchiveError: as `read_folder`.
    """
    parsed = parse_manifest(folder / MANIFEST, manifest)
    return parsed, parse_arrays(folder / ARRAYS, parsed, arrays)


def parse_arrays(place: object, manifest: Mapping[str, Any], content: bytes) -> dict[str, Array]:
    """Arrays that belong to ``manifest``; ``place`` is for messages.

    Raises:
        CorruptArchiveError: they do not match its checksum, or are not what `encode_arrays` writes.
    """
    if manifest.get("arrays_sha256") != sha256_of(content):
        raise CorruptArchiveError(f"{place} does not match the checksum in its manifest")
    try:
        return parse_npz(content)
    except Exception as error:  # zipfile and numpy raise nearly anything
        raise CorruptArchiveError(f"{place} is not what nudge-rag writes: {error}") from error


def _settle(folder: Path) -> None:
    """Finish or undo what a process left behind that died while it overwrote ``folder``."""
    newer = folder / NEWER_ARRAYS
    if newer.exists():
        if _names(folder, sha256_of(_content(newer))):
            files.put_in_place(newer, folder / ARRAYS)
        else:
            newer.unlink()


def _names(folder: Path, checksum: str) -> bool:
    """Whether the manifest of ``folder`` names arrays of that checksum."""
    manifest = folder / MANIFEST
    return manifest.exists() and f'"{checksum}"'.encode() in manifest.read_bytes()


def parse_manifest(path: object, content: bytes) -> dict[str, Any]:
    """A manifest whose checksum is right; ``path`` is for messages.

    Raises:
        CorruptArchiveError: it is not what `encode_manifest` writes.
    """
    try:
        parsed = json.loads(content.decode("utf-8", "surrogatepass"), object_pairs_hook=_without_duplicates)
        checksum = _manifest_checksum(parsed) if isinstance(parsed, dict) else None
    except (ValueError, RecursionError) as error:
        raise CorruptArchiveError(f"{path} is not a manifest: {error}") from error
    if checksum is None or parsed.get("format") != FORMAT:
        raise CorruptArchiveError(f"{path} is not a manifest of format {FORMAT}")
    if parsed.get(CHECKSUM) != checksum:
        raise CorruptArchiveError(f"{path} does not match its own checksum")
    return dict(parsed)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def parse_npz(content: bytes) -> dict[str, Array]:
    """Arrays of an npz as `numpy.savez` writes it.

    Nothing is unpickled or decompressed, and nothing is allocated on the word of a header: every number must be there.
    """
    with zipfile.ZipFile(BytesIO(content)) as archive:
        entries = archive.infolist()
        if len({entry.filename for entry in entries}) != len(entries):
            raise ValueError("a name is there twice")
        if sum(entry.file_size for entry in entries) > len(content):
            raise ValueError("it claims to hold more than it does")
        for entry in entries:
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{entry.filename!r} is compressed")
        return {entry.filename.removesuffix(".npy"): _parse_array(archive.read(entry)) for entry in entries}


def _parse_array(content: bytes) -> Array:
    stream = BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"an array of format {version}")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.kind not in "fiub":
        raise ValueError(f"an array of {dtype}")
    start = stream.tell()
    if math.prod(shape) * dtype.itemsize != len(content) - start:
        raise ValueError(f"an array of shape {shape} and {dtype} in {len(content) - start} bytes")
    if 0 in shape:
        return np.zeros(shape, dtype)
    order: Any = "F" if fortran else "C"
    return np.ndarray(shape, dtype, content, start, order=order).copy(order)


def _content(path: Path) -> bytes:
    try:
        return files.read_regular(path)
    except FileNotFoundError as error:
        raise CorruptArchiveError(f"{path} cannot be read: {error}") from error


def _manifest_checksum(manifest: Mapping[str, Any]) -> str:
    content = {name: value for name, value in manifest.items() if name != CHECKSUM}
    return sha256_of(json.dumps(content, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass"))


def is_number(value: Any) -> bool:
    """Whether a value that was read is a number that fits a float; a truth value is none, nor is NaN.

    Example:
        >>> [is_number(value) for value in (1, 0.5, True, "1", 10**400, float("inf"))]
        [True, True, False, False, False, False]
    """
    # Compared and not converted: a whole number in JSON may be too large for a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def sha256_of(content: bytes) -> str:
    """Hex digits of SHA-256."""
    return hashlib.sha256(content).hexdigest()
