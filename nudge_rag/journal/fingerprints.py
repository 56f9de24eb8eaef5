"""Know an embedding model by what it makes of a few fixed texts; names are often missing, or say too little."""

from __future__ import annotations

import base64
import binascii
import logging
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nudge_rag.common.archive import CorruptArchiveError
from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.embedding import EmbedQueries, ModelQueries

__all__ = ["FINGERPRINT", "Fingerprint", "describe_model", "differing_models", "fingerprint_of", "known_name"]

logger = logging.getLogger(__name__)

# In the details of a version.
FINGERPRINT = "fingerprint"
# Never to be changed: fingerprints that are recorded were made of them.
PROBES = (
    "How do I reset my password?",
    "The river freezes in winter.",
    "Invoice 4711 is due on Friday",
    "SELECT name FROM users ORDER BY age",
)
# The cosine of two embeddings of one text by one model on other hardware, in other batches or quantized is above this.
SAME_MODEL = 0.99
# Names that frameworks give to models without one.
NAMELESS = ("", "unknown", "none", "default")

_known: dict[tuple[int, str], tuple[weakref.ref[Any], Fingerprint | None]] = {}


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """Embeddings of the probe texts by one model.

    Attributes:
        vectors: (4, d) unit vectors.

    Example:
        >>> one, other = Fingerprint(np.eye(4)), Fingerprint(np.eye(4)[::-1])
        >>> one.similarity(one), one.similarity(other), one.matches(other)
        (1.0, 0.0, False)
    """

    vectors: FloatArray = field(repr=False)

    def similarity(self, other: Fingerprint) -> float:
        """Return the smallest cosine of the embeddings of one text; 0 for another dimension."""
        if self.vectors.shape != other.vectors.shape:
            return 0.0
        return round(float((self.vectors * other.vectors).sum(axis=1).min()), 6)

    def matches(self, other: Fingerprint) -> bool:
        """Whether both are of the same model."""
        return self.similarity(other) >= SAME_MODEL

    def pack(self) -> dict[str, Any]:
        """Return it in the types of JSON: its dimension, and float16 numbers as base64."""
        numbers = np.ascontiguousarray(self.vectors, dtype="<f2")
        return {"dimension": self.vectors.shape[1], "float16": base64.b64encode(numbers.tobytes()).decode("ascii")}

    @classmethod
    def unpack(cls, packed: Mapping[str, Any] | None) -> Fingerprint | None:
        """Read what `pack` returned; None stays None.

        Raises:
            CorruptArchiveError: it is something else.

        Example:
            >>> Fingerprint.unpack(Fingerprint(np.eye(4)).pack()).matches(Fingerprint(np.eye(4)))
            True
        """
        if packed is None:
            return None
        try:
            numbers = np.frombuffer(base64.b64decode(packed["float16"], validate=True), dtype="<f2")
            vectors = numbers.reshape(len(PROBES), int(packed["dimension"])).astype(np.float64)
            if not np.isfinite(vectors).all():
                raise ValueError("it holds NaN or infinite values")
        except (KeyError, TypeError, ValueError, OverflowError, binascii.Error) as error:
            raise CorruptArchiveError(f"the fingerprint of an embedding model is damaged: {error}") from error
        return cls(vectors)


def fingerprint_of(embed_queries: EmbedQueries) -> Fingerprint | None:
    """Embed the probe texts, once for each model object; None if the model fails on them, or draws at random.

    Args:
        embed_queries: texts to (m, d) query embeddings. The model is that of `ModelQueries`, the object that a method
            is of, or the function itself.

    Example:
        >>> def embed(texts): return [[len(text), 1.0] for text in texts]
        >>> fingerprint_of(embed).vectors.shape
        (4, 2)
        >>> fingerprint_of({"exit": [0.6, 0.8]}.__getitem__) is None
        True
    """
    model, embed = getattr(embed_queries, "__self__", embed_queries), embed_queries
    if isinstance(embed_queries, ModelQueries):
        model, embed = embed_queries.model, embed_queries.probe or embed_queries.embed
    key = id(model), str(getattr(embed_queries, "__name__", ""))
    known = _known.get(key)
    if known is not None and known[0]() is model:
        return known[1]
    found = _embed_probes(embed)
    try:
        _known[key] = weakref.ref(model), found
        weakref.finalize(model, _known.pop, key, None)
    except TypeError:  # an object that cannot be referred to weakly is asked again
        _known.pop(key, None)
    return found


def _embed_probes(embed_queries: EmbedQueries) -> Fingerprint | None:
    # The first one twice: a model that draws at random has no fingerprint.
    texts = [*PROBES, PROBES[0]]
    try:
        vectors = np.asarray(embed_queries(texts), dtype=np.float64)
    except Exception as error:  # a model may raise anything; without a fingerprint its name has to do
        logger.info("the embedding model has no fingerprint: %r", error)
        return None
    if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
        return None
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not lengths.all():
        return None
    vectors = vectors / lengths
    return None if float(vectors[0] @ vectors[-1]) < SAME_MODEL else Fingerprint(vectors[:-1])


def known_name(model: object) -> str | None:
    """Return the name of a model; None for one that says nothing.

    Example:
        >>> known_name("all-MiniLM-L6-v2"), known_name("unknown"), known_name(None)
        ('all-MiniLM-L6-v2', None, None)
    """
    return None if model is None or str(model).strip().lower() in NAMELESS else str(model)


def describe_model(embed_queries: EmbedQueries | None, name: str | None = None) -> dict[str, Any]:
    """Return what a record says of an embedding model: its name and its fingerprint, each None if it has none.

    Example:
        >>> describe_model(None, "unknown")
        {'model': None, 'fingerprint': None}
    """
    found = None if embed_queries is None else fingerprint_of(embed_queries)
    return {"model": known_name(name), FINGERPRINT: None if found is None else found.pack()}


def differing_models(made: Mapping[str, Any], used: Mapping[str, Any]) -> str | None:
    """Say how the embedding models of two records differ; None if they do not, or nothing is known.

    Fingerprints decide if both sides have one, and names otherwise.

    Args:
        made: details of the record, with ``model`` and ``fingerprint`` if they are known.
        used: of the model that is used now.

    Raises:
        CorruptArchiveError: a fingerprint is damaged.

    Example:
        >>> differing_models({"model": "mini"}, {"model": "large"})
        "the embedding model 'mini', this one is for 'large'"
        >>> one, other = Fingerprint(np.eye(4)).pack(), Fingerprint(np.eye(4)[::-1]).pack()
        >>> differing_models({"fingerprint": one, "model": "mini"}, {"fingerprint": other, "model": "mini"})
        "another embedding model than this one ('mini', 'mini'): the same text has a cosine of 0.000 in both"
    """
    names = known_name(made.get("model")), known_name(used.get("model"))
    prints = Fingerprint.unpack(made.get(FINGERPRINT)), Fingerprint.unpack(used.get(FINGERPRINT))
    if prints[0] is not None and prints[1] is not None:
        if prints[0].matches(prints[1]):
            return None
        named = f" ({names[0]!r}, {names[1]!r})" if names[0] is not None and names[1] is not None else ""
        cosine = prints[0].similarity(prints[1])
        return f"another embedding model than this one{named}: the same text has a cosine of {cosine:.3f} in both"
    if names[0] is None or names[1] is None or names[0] == names[1]:
        return None
    return f"the embedding model {names[0]!r}, this one is for {names[1]!r}"
