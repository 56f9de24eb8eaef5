"""Embed many queries with a framework's model: in batches or side by side, and no text twice."""

from __future__ import annotations

import hashlib
import logging
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.embedding import model_name_of
from nudge_rag.common.files import default_cache_folder, save_through
from nudge_rag.common.progress import track

__all__ = ["QueryCache", "cache_of", "embed_queries_at_once"]

logger = logging.getLogger(__name__)

EmbedOne = Callable[[str], Sequence[float]]
EmbedMany = Callable[[list[str]], Sequence[Sequence[float]]]

BATCH, THREADS, SAMPLES = 64, 8, 2
# How far, relative to its length, an embedding may be off when a model embeds the same text again.
TOLERANCE = 1e-3
LARGEST_CACHE = 200_000


class QueryCache:
    """Embeddings of query texts in a file, by a hash of the text; the texts themselves are not kept.

    Args:
        model: what names the model among all models.
        folder: where the files are; by default in the user's cache folder.

    Example:
        >>> import tempfile
        >>> cache = QueryCache("a model", tempfile.mkdtemp())
        >>> cache.add(["exit"], np.array([[0.6, 0.8]], dtype=np.float32))
        >>> sorted(cache.find(["exit", "enter"]))
        ['exit']
    """

    def __init__(self, model: str, folder: str | Path | None = None) -> None:
        name = hashlib.sha256(model.encode()).hexdigest()[:16]
        self._file = Path(folder or default_cache_folder() / "queries") / f"{name}.npz"

    def find(self, texts: Sequence[str]) -> dict[str, FloatArray]:
        """Return the embeddings of those texts that are known."""
        known = self._read()
        return {text: known[key] for text in texts if (key := _key(text)) in known}

    def add(self, texts: Sequence[str], vectors: FloatArray, *, forget: bool = False) -> None:
        """Keep embeddings, in place of all others if ``forget``; a folder that cannot be written to is left alone."""
        known = {} if forget else self._read()
        for text, vector in zip(texts, vectors, strict=True):
            known[_key(text)] = vector
        newest = list(known.items())[-LARGEST_CACHE:]
        if len({vector.shape for _, vector in newest}) != 1:
            return
        keys = np.frombuffer(b"".join(key for key, _ in newest), dtype=np.uint8).reshape(len(newest), -1)
        arrays: dict[str, Any] = {"keys": keys, "vectors": np.stack([vector for _, vector in newest])}
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            save_through(self._file, lambda path: _save(path, arrays))
        except OSError as error:
            logger.info("query embeddings are not kept: %s", error)

    def _read(self) -> dict[bytes, FloatArray]:
        try:
            with np.load(self._file, allow_pickle=False) as arrays:
                keys, vectors = arrays["keys"], arrays["vectors"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return {}
        if keys.ndim != 2 or vectors.ndim != 2 or len(keys) != len(vectors):
            return {}
        return {key.tobytes(): vector for key, vector in zip(keys, vectors, strict=True)}


def cache_of(model: Any) -> QueryCache | None:
    """Return the cache of a framework's embedding model; None if it has no name, since another may be meant tomorrow.

    Example:
        >>> cache_of(object()) is None
        True
    """
    name = model_name_of(model)
    return None if name is None else QueryCache(f"{type(model).__module__}.{type(model).__qualname__} {name}")


def embed_queries_at_once(
    texts: list[str], embed_one: EmbedOne, embed_many: EmbedMany | None = None, cache: QueryCache | None = None
) -> FloatArray:
    """Embed query texts as ``embed_one`` does, faster.

    ``embed_many`` embeds texts, not queries: it is used if it agrees with ``embed_one`` on two of them, so that a model
    with another instruction for queries keeps it. Otherwise queries are embedded one by one, eight at a time. What is
    known from before is embedded no more, if two of the known texts still have the same embedding.

    Args:
        texts: distinct query texts.
        embed_one: a query's embedding.
        embed_many: embeddings of texts in one call, if the model has such.
        cache: where embeddings are kept for the next time.

    Returns:
        (len(texts), d) embeddings.

    Example:
        >>> calls = []
        >>> def many(texts): calls.append(len(texts)); return [[len(text), 1.0] for text in texts]
        >>> embed_queries_at_once(["a", "bb", "ccc"], lambda text: [len(text), 1.0], many).tolist(), calls
        ([[1.0, 1.0], [2.0, 1.0], [3.0, 1.0]], [2, 3])
    """
    known = {} if cache is None else cache.find(texts)
    is_other_model = bool(known) and not _still_the_same(known, embed_one)
    if is_other_model:
        known = {}
    missing = [text for text in texts if text not in known]
    if missing:
        vectors = _embed(missing, embed_one, embed_many)
        known |= dict(zip(missing, vectors, strict=True))
        if cache is not None:
            cache.add(missing, vectors, forget=is_other_model)
    return np.stack([known[text] for text in texts]) if texts else np.zeros((0, 0))


def _embed(texts: list[str], embed_one: EmbedOne, embed_many: EmbedMany | None) -> FloatArray:
    if embed_many is not None and len(texts) > SAMPLES and _agree(texts, embed_one, embed_many):
        batches = [texts[first : first + BATCH] for first in range(0, len(texts), BATCH)]
        return np.array([vector for batch in track(batches, "embedding queries") for vector in embed_many(batch)])
    with ThreadPoolExecutor(THREADS) as threads:
        return np.array(list(track(threads.map(embed_one, texts), "embedding queries", total=len(texts))))


def _agree(texts: list[str], embed_one: EmbedOne, embed_many: EmbedMany) -> bool:
    sample = [texts[0], texts[-1]]
    try:
        of_many = embed_many(sample)
    except Exception as error:  # the side of texts may fail on queries; the side of queries decides
        logger.info("queries are embedded one by one: the batch call failed with %r", error)
        return False
    pairs = zip(of_many, map(embed_one, sample), strict=True)
    return all(_close(np.asarray(many), np.asarray(one)) for many, one in pairs)


def _still_the_same(known: dict[str, FloatArray], embed_one: EmbedOne) -> bool:
    sample = [next(iter(known)), next(reversed(known))]
    return all(_close(known[text], np.asarray(embed_one(text))) for text in sample)


def _close(found: FloatArray, expected: FloatArray) -> bool:
    if found.shape != expected.shape:
        return False
    return bool(np.linalg.norm(found - expected) <= TOLERANCE * np.linalg.norm(expected))


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]


def _save(path: str, arrays: dict[str, Any]) -> None:
    with Path(path).open("wb") as file:
        np.savez(file, **arrays)
