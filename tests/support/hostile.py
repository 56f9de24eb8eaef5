"""Records of pushes that nobody should have written: damaged at random, or made to harm."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag.common.archive import CHECKSUM, CorruptArchiveError, _manifest_checksum, parse_folder
from nudge_rag.journal.versions import Version, as_version

FOLDER = Path("nowhere") / "0001"


def outcome(manifest: bytes, arrays: bytes) -> Version | None:
    """What is read of a record; None where it is refused, with the one error that there is for that."""
    try:
        return as_version(FOLDER, *parse_folder(FOLDER, manifest, arrays))
    except CorruptArchiveError:
        return None


def signed(manifest: Any, arrays: bytes) -> bytes:
    """A manifest with the checksums that it would have had, had a push written it."""
    content = {**manifest, "arrays_sha256": hashlib.sha256(arrays).hexdigest()}
    content[CHECKSUM] = _manifest_checksum(content)
    return json.dumps(content, indent=1, ensure_ascii=False).encode("utf-8", "surrogatepass")


def flip(content: bytearray, rng: np.random.Generator) -> None:
    content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))


def overwrite(content: bytearray, rng: np.random.Generator) -> None:
    content[rng.integers(len(content))] = rng.integers(256)


def cut(content: bytearray, rng: np.random.Generator) -> None:
    del content[rng.integers(len(content)) :]


def insert(content: bytearray, rng: np.random.Generator) -> None:
    at = int(rng.integers(len(content) + 1))
    content[at:at] = rng.bytes(int(rng.integers(1, 9)))


def delete(content: bytearray, rng: np.random.Generator) -> None:
    at = int(rng.integers(len(content)))
    del content[at : at + int(rng.integers(1, 9))]


def splice(content: bytearray, rng: np.random.Generator) -> None:
    """A part of it over, or between, other parts."""
    start, at = (int(place) for place in rng.integers(len(content), size=2))
    part = content[start : start + int(rng.integers(1, 65))]
    content[at : at + int(rng.integers(2)) * len(part)] = part


DAMAGES = (flip, overwrite, cut, insert, delete, splice)


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """One to three damages, each of any kind, at any place."""
    changed = bytearray(content)
    for kind in rng.integers(len(DAMAGES), size=rng.integers(1, 4)):
        if changed:
            DAMAGES[kind](changed, rng)
    return bytes(changed)


def mutations(
    manifest: bytes, arrays: bytes, rounds: int, *, sign: bool = False, seed: int = 0
) -> Iterator[tuple[bytes, bytes]]:
    """A record damaged that often, the manifest and the arrays in turn; with checksums made to fit where ``sign``."""
    rng, true = np.random.default_rng(seed), outcome(manifest, arrays)
    assert true is not None
    for number in range(rounds):
        if number % 2:
            new = damaged(arrays, rng)
            yield (signed(true.manifest, new) if sign else manifest), new
        else:
            changed = damaged(manifest, rng)
            yield (signed_again(changed, arrays) if sign else changed), arrays


def signed_again(manifest: bytes, arrays: bytes) -> bytes:
    """The manifest with its checksum made to fit, where it can still be read at all."""
    try:
        parsed = json.loads(manifest.decode("utf-8", "surrogatepass"))
        return signed(parsed, arrays) if isinstance(parsed, dict) else manifest
    except (ValueError, RecursionError):
        return manifest


def same_record(found: Version, true: Version) -> bool:
    return found.manifest == true.manifest and all(
        getattr(found, n).tobytes() == getattr(true, n).tobytes() for n in ("originals", "before", "after")
    )


def assert_whole(version: Version) -> None:
    assert isinstance(str(version), str)
    assert len(set(version.ids)) == len(version.ids)
    for part in (version.originals, version.before, version.after):
        assert part.shape == (len(version.ids), version.dimension)
        assert np.isfinite(part).all()


def npz(arrays: dict[str, Any], **options: Any) -> bytes:
    buffer = BytesIO()
    np.savez(buffer, **arrays, **options)
    return buffer.getvalue()


def header(shape: str, descr: str = "'<f8'") -> bytes:
    """The start of an npy file that claims this shape."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def zipped(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def claiming(content: bytes, size: int) -> bytes:
    """A zip whose directory says that its first entry has that size."""
    changed = bytearray(content)
    at = changed.index(b"PK\x01\x02")
    changed[at + 20 : at + 28] = struct.pack("<II", size, size)
    return bytes(changed)


class Bomb:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('unpickled')",))


@functools.cache
def hostile_arrays() -> dict[str, bytes]:
    """Arrays under correct checksums, each wrong in its own way."""
    good = dict.fromkeys(("originals", "before", "after"), np.arange(18.0).reshape(6, 3))
    whole = npz(good)
    first = next(iter(good.values()))
    others = {name: part for name, part in good.items() if name != "after"}
    bad = {
        "after is missing": others,
        "NaN": {**good, "after": np.where(np.arange(first.size).reshape(first.shape) == 3, np.nan, first)},
        "infinite": {**good, "before": np.full_like(first, np.inf)},
        "float16": {**good, "after": first.astype(np.float16)},
        "int64": {**good, "after": first.astype(np.int64)},
        "complex": {**good, "after": first.astype(complex)},
        "strings": {**good, "after": first.astype(str)},
        "one row fewer": {**good, "after": first[1:]},
        "one column fewer": {**good, "after": first[:, 1:]},
        "flat": {**good, "after": first.ravel()},
        "three dimensions": {**good, "after": first[None]},
    }
    parts = {f"{name}.npy": npy(part) for name, part in good.items()}
    after = parts.pop("after.npy")
    raw = {
        "pickled objects": npz({**good, "after": np.array([Bomb()] * len(first), dtype=object)}),
        "a pickle": zipped({**parts, "after.npy": b"\x80\x04cbuiltins\nexec\n."}),
        "a header that claims terabytes": zipped({**parts, "after.npy": header("(1000000, 1000000)")}),
        "a header that claims more than an address": zipped({**parts, "after.npy": header("(10**30, 4)")}),
        "a header of huge numbers": zipped({**parts, "after.npy": header(f"({'9' * 3000}, 4)")}),
        "negative shape": zipped({**parts, "after.npy": header("(-6, -3)") + bytes(144)}),
        "a header that is a call": zipped({**parts, "after.npy": header("__import__('os').getcwd()")}),
        "a deep header": zipped({**parts, "after.npy": header("(" * 5000 + ")" * 5000)}),
        "a zip bomb": zipped({**parts, "after.npy": header("(1000, 10000)") + bytes(8 * 10**7)}, zipfile.ZIP_DEFLATED),
        "a directory that claims gigabytes": claiming(whole, 2**32 - 2),
        "path traversal": zipped({"../../after.npy": after, **parts}),
        "an absolute path": zipped({"/tmp/after.npy": after, **parts}),
        "nothing": b"",
        "an empty zip": zipped({}),
        "no zip": b"PK\x03\x04" + b"\0" * 100,
        "only zeros": bytes(len(whole)),
    }
    return raw | {name: npz(arrays) for name, arrays in bad.items()}


def npy(part: np.ndarray) -> bytes:
    buffer = BytesIO()
    np.save(buffer, part)
    return buffer.getvalue()


def hostile_manifests(good: dict[str, Any]) -> dict[str, Any]:
    """Manifests, still to be signed, each wrong in its own way."""
    ids = good["ids"]
    wrong: dict[str, tuple[str, Any]] = {
        "ids that are no strings": ("ids", [1, *ids[1:]]),
        "an id that is a list": ("ids", [["n0"], *ids[1:]]),
        "an id twice": ("ids", [ids[0], *ids[:-1]]),
        "ids in one string": ("ids", "abcdef"),
        "ids in an object": ("ids", dict.fromkeys(ids, 1)),
        "one id fewer": ("ids", ids[1:]),
        "ids that are nothing": ("ids", None),
        "a state of its own": ("state", "../../etc/passwd"),
        "a state that is a list": ("state", ["committed"]),
        "another dimension": ("dimension", 4),
        "a huge dimension": ("dimension", 10**18),
        "a dimension that is no number": ("dimension", "3"),
        "details that are a list": ("details", []),
        "a gamma that is a string": ("details", {"gamma": "0.1"}),
        "a huge gamma": ("details", {"gamma": 10**400}),
        "an infinite gamma": ("details", {"gamma": float("inf")}),
        "hashes that are a list": ("details", {"text_hashes": ["a"]}),
        "created that is a number": ("created", 3),
        "a store that is a string": ("store", "x"),
        "format 2": ("format", 2),
        "a format that is a string": ("format", "1"),
    }
    beside = {"mode": "side-by-side", "label": "nudge_0001_abcdef"}
    modes: dict[str, dict[str, Any]] = {
        "a mode of its own": {**beside, "mode": "beside"},
        "a mode that is a list": {**beside, "mode": ["side-by-side"]},
        "a mode that is nothing": {**beside, "mode": None},
        "side by side without a label": {"mode": "side-by-side"},
        "a label that is a statement": {**beside, "label": 'a"; DROP TABLE nodes; --'},
        "a label that leads elsewhere": {**beside, "label": "../../etc"},
        "a label that is a number": {**beside, "label": 7},
        "a label that is too long": {**beside, "label": "a" * 25},
        "a label in place that is a statement": {"label": "a'; --"},
        "switched in place": {"state": "switched"},
        "switching in place": {"mode": "in-place", "state": "switching"},
        "superseded side by side": {**beside, "state": "superseded"},
    }
    return {name: {**good, key: value} for name, (key, value) in wrong.items()} | {
        name: {**good, **parts} for name, parts in modes.items()
    }


def hostile_folders() -> dict[str, Callable[[Path, Path], Any]]:
    """What else can stand where the record of a push is: each changes ``folder``; ``elsewhere`` is free to use."""

    def link_to(folder: Path, elsewhere: Path) -> None:
        shutil.move(folder, elsewhere / "moved")
        folder.symlink_to(elsewhere / "moved", target_is_directory=True)

    def file_for_folder(folder: Path, elsewhere: Path) -> None:
        shutil.rmtree(folder)
        folder.write_text("a file")

    def linked_file(name: str) -> Callable[[Path, Path], None]:
        def change(folder: Path, elsewhere: Path) -> None:
            shutil.move(folder / name, elsewhere / name)
            (folder / name).symlink_to(elsewhere / name)

        return change

    def folder_for_file(folder: Path, elsewhere: Path) -> None:
        (folder / "manifest.json").unlink()
        (folder / "manifest.json").mkdir()

    def pipe(folder: Path, elsewhere: Path) -> None:
        import os

        (folder / "arrays.npz").unlink()
        os.mkfifo(folder / "arrays.npz")

    def sparse(folder: Path, elsewhere: Path) -> None:
        with (folder / "arrays.npz").open("r+b") as file:
            file.truncate(2**40)

    def text(content: str) -> Callable[[Path, Path], Any]:
        return lambda folder, elsewhere: (folder / "manifest.json").write_text(content)

    def twice(folder: Path, elsewhere: Path) -> None:
        path = folder / "manifest.json"
        path.write_text(path.read_text().replace('"state": "committed"', '"state": "writing",\n "state": "committed"'))

    return {
        "a link": link_to,
        "a dangling link": lambda folder, elsewhere: (shutil.rmtree(folder), folder.symlink_to(elsewhere / "gone")),
        "a file": file_for_folder,
        "a linked manifest": linked_file("manifest.json"),
        "linked arrays": linked_file("arrays.npz"),
        "a folder as manifest": folder_for_file,
        "a pipe": pipe,
        "a sparse file of terabytes": sparse,
        "no arrays": lambda folder, elsewhere: (folder / "arrays.npz").unlink(),
        "deeply nested lists": text("[" * 200_000),
        "deeply nested objects": text('{"a":' * 200_000),
        "nested as deep as is read": text('{"format": 1, "ids": ' + "[" * 900 + "]" * 900 + "}"),
        "a number of a million digits": text('{"format": ' + "1" * 1_000_000 + "}"),
        "no object": text("[1, 2]"),
        "nothing": text(""),
        "a name twice": twice,
        "not UTF-8": lambda folder, elsewhere: (folder / "manifest.json").write_bytes(b"\xff\xfe{}"),
    }
