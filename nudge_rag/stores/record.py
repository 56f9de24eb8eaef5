"""What the project knows of a database: the classes that hold it, and the range of its adapter."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from nudge_rag.stores.base import Capabilities, Similarity

__all__ = ["ALWAYS", "DEPENDS", "NEVER", "StoreRecord", "UrlOptions", "load"]

ALL: tuple[Similarity, ...] = ("cosine", "dot", "l2")
NEVER, ALWAYS, DEPENDS = (False,), (True,), (False, True)


@dataclass(frozen=True)
class UrlOptions:
    """The options of a database's URL.

    Attributes:
        required: options that must be there.
        optional: options that may be there.
        passes_on: whether all others go to the database's client.
    """

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    passes_on: bool = False


@dataclass(frozen=True)
class StoreRecord:
    """One database: the classes that hold it, and the range of `Capabilities` of its opened stores.

    Attributes:
        name: the adapter's ``name``.
        title: the database's name in words.
        llama_index: the classes of LlamaIndex that lead to this adapter.
        langchain: the classes of LangChain that lead to it.
        extra: the extra of nudge-rag that installs the client.
        scheme: of `open_store`, if it opens this database.
        similarities: values that `Capabilities.similarity` takes.
        dtypes: values that `Capabilities.dtype` takes.
        exact_search: values that the field of this name of `Capabilities` takes.
        batch_search: values that the field of this name of `Capabilities` takes.
        filters: values that the field of this name of `Capabilities` takes.
        persistent: values that the field of this name of `Capabilities` takes.
        side_by_side: values that the field of this name of `Capabilities` takes.
        atomic_switch: values that the field of this name of `Capabilities` takes.
        unit_length: the similarities under which vectors are kept at unit length.
        keeps_norms: the values that the field takes under the other similarities.
        rounding: the largest that there is.
        index: how it searches if that is not exact, in words.
        beside: when it holds a copy beside what is live, in words, if not always.
        note: anything else to know about how vectors are kept.
        experimental: whether the adapter was only checked against the client, not against the database.
        adapter: the adapter's class, as ``module:Class``; imported when it is asked for.
        url: the options of its URLs, which the class's ``from_url`` takes.
        tls_scheme: of `open_store`, if a connection over TLS has one of its own.
    """

    name: str
    title: str
    extra: str
    llama_index: tuple[str, ...] = ()
    langchain: tuple[str, ...] = ()
    scheme: str | None = None
    similarities: tuple[Similarity, ...] = ALL
    dtypes: tuple[str, ...] = ("float32",)
    unit_length: tuple[Similarity, ...] = ()
    keeps_norms: tuple[bool, ...] = ALWAYS
    exact_search: tuple[bool, ...] = ALWAYS
    batch_search: tuple[bool, ...] = ALWAYS
    filters: tuple[bool, ...] = ALWAYS
    persistent: tuple[bool, ...] = ALWAYS
    side_by_side: tuple[bool, ...] = NEVER
    atomic_switch: tuple[bool, ...] = NEVER
    rounding: float = 0.0
    index: str = ""
    beside: str = ""
    note: str = ""
    experimental: bool = False
    adapter: str = ""
    url: UrlOptions | None = None
    tls_scheme: str | None = None

    @property
    def class_name(self) -> str:
        """The name of the adapter's class."""
        return self.adapter.rpartition(":")[2]

    @property
    def schemes(self) -> tuple[str, ...]:
        """All schemes of `open_store` that open this database."""
        return tuple(scheme for scheme in (self.scheme, self.tls_scheme) if scheme)

    def load(self) -> Any:
        """Import the adapter's class."""
        return load(self.adapter)

    def departures(self, capabilities: Capabilities) -> list[str]:
        """The fields of an opened store's ``capabilities`` that this record does not allow, with their values.

        Example:
            >>> record = StoreRecord("mine", "Mine", "mine", similarities=("dot",))
            >>> record.departures(Capabilities("cosine", persistent=True, rounding=0.1))
            ["similarity='cosine'", 'rounding=0.1']
        """
        allowed = {
            "similarity": self.similarities,
            "dtype": self.dtypes,
            "keeps_norms": NEVER if capabilities.similarity in self.unit_length else self.keeps_norms,
            "experimental": (self.experimental,),
        }
        for field in ("exact_search", "batch_search", "filters", "persistent", "side_by_side", "atomic_switch"):
            allowed[field] = getattr(self, field)
        wrong = [field for field, values in allowed.items() if getattr(capabilities, field) not in values]
        if capabilities.rounding > self.rounding:
            wrong.append("rounding")
        return [f"{field}={getattr(capabilities, field)!r}" for field in wrong]


def load(place: str) -> Any:
    """Import what ``module:name`` names.

    Example:
        >>> load("nudge_rag.stores.base:Capabilities").__name__
        'Capabilities'
    """
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
