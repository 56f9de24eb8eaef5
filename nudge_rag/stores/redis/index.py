"""Redis' description of a search index, as far as its vectors go."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

__all__ = ["Index", "describe"]

DTYPES = {"FLOAT32": "float32", "FLOAT64": "float64"}
METRICS = ("COSINE", "IP", "L2")


@dataclass(frozen=True)
class Index:
    """A search index and its field of vectors.

    Attributes:
        name: of the index.
        field: its name in the hashes.
        attribute: its name in queries.
        dimension: of the vectors.
        dtype: of the vectors.
        metric: COSINE, IP or L2.
        algorithm: such as FLAT or HNSW.
        prefixes: of the keys that the index is for.
        own_name: the name of the index that ``name`` may be an alias of.
    """

    name: str
    field: str
    attribute: str
    dimension: int
    dtype: str
    metric: str
    algorithm: str
    prefixes: tuple[str, ...]
    own_name: str

    def prefix(self) -> str:
        """Return the only one.

        Raises:
            ValueError: there are several.
        """
        if len(self.prefixes) != 1:
            raise ValueError(f"index {self.name!r} is for keys with the prefixes {self.prefixes}: pass prefix=")
        return self.prefixes[0]


def describe(client: Any, name: str, vector_field: str | None) -> Index:
    """The index of that name; ``client`` answers in RESP2 and undecoded.

    Raises:
        ValueError: no such index or field, an index over JSON, vectors of another type or metric.
    """
    import redis

    try:
        info = _pairs(client.execute_command("FT.INFO", name))
    except redis.ResponseError as error:
        if "unknown command" in str(error).lower():
            raise ValueError("this Redis server cannot search: it needs Redis 8, or Redis Stack") from error
        raise ValueError(f"there is no Redis index {name!r}: {error}") from error
    definition = _pairs(info["index_definition"])
    if definition["key_type"] != "HASH":
        raise ValueError(f"index {name!r} is over {definition['key_type']}: only hashes are supported")
    fields = [_pairs(entry) for entry in info["attributes"]]
    field = _chosen([entry for entry in fields if entry["type"] == "VECTOR"], name, vector_field)
    if not re.fullmatch(r"\w+", field["attribute"]):
        raise ValueError(f"{field['attribute']!r} cannot be the name of a field of vectors: it has other than letters")
    if field["data_type"] not in DTYPES:
        raise ValueError(f"field {field['attribute']!r} must hold FLOAT32 or FLOAT64, it is {field['data_type']}")
    if field["distance_metric"] not in METRICS:
        raise ValueError(f"Redis metric {field['distance_metric']!r} is not one of {', '.join(METRICS)}")
    return Index(
        name=name,
        field=field["identifier"],
        attribute=field["attribute"],
        dimension=int(field["dim"]),
        dtype=DTYPES[field["data_type"]],
        metric=field["distance_metric"],
        algorithm=field["algorithm"],
        prefixes=tuple(_text(prefix) for prefix in definition["prefixes"]),
        own_name=str(info["index_name"]),
    )


def _chosen(fields: list[dict[str, Any]], name: str, wanted: str | None) -> dict[str, Any]:
    there = ", ".join(repr(field["attribute"]) for field in fields) or "none"
    if wanted is None and len(fields) == 1:
        return fields[0]
    for field in fields:
        if field["attribute"] == wanted:
            return field
    raise ValueError(f"vector_field must be one of the index {name!r}, which has {there}, got {wanted!r}")


def _text(value: Any) -> Any:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def _pairs(flat: list[Any]) -> dict[str, Any]:
    """A list of names and values in turn, as RESP2 has it; flags at its end are left out."""
    return {_text(key): _text(value) for key, value in zip(flat[::2], flat[1::2], strict=False)}
