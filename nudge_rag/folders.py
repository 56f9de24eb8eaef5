"""A folder with a JSON manifest and an npz of arrays, written so that a crash leaves the old folder or the new one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["BrokenFolderError", "read_folder", "write_folder", "write_manifest"]

FORMAT = 1
MANIFEST, ARRAYS = "manifest.json", "arrays.npz"
CHECKSUM = "manifest_sha256"


class BrokenFolderError(ValueError):
    """Raised when a manifest or its arrays are missing, malformed, or do not belong together."""


def write_folder(folder: Path, manifest: Mapping[str, Any], arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write ``arrays`` and then ``manifest`` (which holds their checksum) to ``folder``, each atomically and synced.

    A folder without a manifest is not a version: the manifest is written last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    buffer = BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy's stub takes allow_pickle for an array here
    _write_synced(folder / ARRAYS, buffer.getvalue())
    write_manifest(folder, {**manifest, "format": FORMAT, "arrays_sha256": _sha256(buffer.getvalue())})


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Replace the manifest of ``folder`` atomically, with a checksum of its own."""
    content = {name: value for name, value in manifest.items() if name != CHECKSUM}
    content[CHECKSUM] = _manifest_checksum(content)
    _write_synced(folder / MANIFEST, json.dumps(content, indent=1, ensure_ascii=False).encode())


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    """Manifest and arrays of ``folder``; nothing in it is ever unpickled.

    Raises:
        BrokenFolderError: what is missing, malformed or does not match its checksum.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        content = (folder / ARRAYS).read_bytes()
    except (OSError, ValueError, RecursionError) as error:
        raise BrokenFolderError(f"{folder} cannot be read: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BrokenFolderError(f"{folder / MANIFEST} is not a manifest of format {FORMAT}")
    if manifest.get(CHECKSUM) != _manifest_checksum(manifest):
        raise BrokenFolderError(f"{folder / MANIFEST} does not match its own checksum")
    if manifest.get("arrays_sha256") != _sha256(content):
        raise BrokenFolderError(f"{folder / ARRAYS} does not match the checksum in its manifest")
    with np.load(BytesIO(content), allow_pickle=False) as arrays:
        return manifest, {name: arrays[name] for name in arrays.files}


def _manifest_checksum(manifest: Mapping[str, Any]) -> str:
    content = {name: value for name, value in manifest.items() if name != CHECKSUM}
    return _sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass"))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write_synced(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; Windows has no folder handles to sync."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
