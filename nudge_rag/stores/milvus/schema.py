"""A Milvus client's description of a collection, its rows page by page, and ids as literals of Milvus' expressions."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Schema", "address_of", "among", "check_client", "count", "literal", "pages", "schema_of"]

STRONG = {"consistency_level": "Strong"}
ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})
PLAIN_TYPES = {"BOOL", "INT8", "INT16", "INT32", "INT64", "FLOAT", "DOUBLE", "VARCHAR", "JSON", "ARRAY"}
PLAIN_TYPES |= {"FLOAT_VECTOR", "SPARSE_FLOAT_VECTOR"}


@dataclass(frozen=True)
class Schema:
    """The fields of a collection that an adapter needs.

    Attributes:
        id_field: name of the primary key.
        vector_field: name of the vector.
        integer_ids: whether the primary key is an INT64.
        dimension: of the vector.
        auto_id: whether Milvus makes the ids, and new ones whenever a row is replaced.
        partition_key: whether Milvus itself finds the partition of a row.
        computed: fields that Milvus computes from others and takes from nobody.
        opaque: fields that cannot be read and written back as they were.
    """

    id_field: str
    integer_ids: bool
    vector_field: str
    dimension: int
    auto_id: bool
    partition_key: bool
    computed: frozenset[str]
    opaque: tuple[str, ...]

    def plain(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row as it can be written back."""
        return {name: value for name, value in row.items() if name not in self.computed}

    def keys(self, ids: Sequence[str]) -> dict[str, str | int]:
        """Ids as the primary key holds them; those that it cannot hold are left out."""
        if not self.integer_ids:
            return {node_id: node_id for node_id in ids}
        return {node_id: int(node_id) for node_id in ids if _is_int64(node_id)}


def among(field: str, keys: Iterable[str | int]) -> str:
    """The expression for rows whose ``field`` is one of ``keys``."""
    return f"{field} in [{', '.join(map(literal, keys))}]"


def _is_int64(node_id: str) -> bool:
    return bool(re.fullmatch(r"0|-?[1-9][0-9]{0,18}", node_id)) and -(2**63) <= int(node_id) < 2**63


def literal(value: str | int) -> str:
    r"""A string or integer in an expression, whatever it contains.

    Example:
        >>> literal('a" or id != "')
        '"a\\" or id != \\""'
    """
    return str(value) if isinstance(value, int) else f'"{value.translate(ESCAPES)}"'


def count(client: Any, collection: str) -> int:
    """Number of rows, those written just now included."""
    return int(client.query(collection, filter="", output_fields=["count(*)"], **STRONG)[0]["count(*)"])


def pages(
    client: Any, collection: str, id_field: str, fields: list[str], size: int, **options: Any
) -> Iterator[Sequence[dict[str, Any]]]:
    """All rows by their primary key, at most ``size`` at a time; on a server those at the start.

    pymilvus' own iterator puts ids into its expressions unquoted.
    """
    count(client, collection)  # pages have the collection's consistency level, so a strong read comes first
    page: dict[str, Any] = {"limit": size, "iterator": "True", "reduce_stop_for_best": "True", **options}
    after = ""
    while rows := client.query(collection, filter=after, output_fields=fields, **page):
        yield rows
        after = f"{id_field} > {literal(rows[-1][id_field])}"
        moment = (getattr(rows, "extra", None) or {}).get("iterator_session_ts")
        page.update({"guarantee_timestamp": moment} if moment else {})


def check_client(client: Any) -> None:
    """Check that ``client`` is a synchronous ``pymilvus.MilvusClient``.

    Raises:
        TypeError: it is something else.
    """
    if not all(hasattr(client, part) for part in ("upsert", "query", "describe_index", "has_collection")):
        raise TypeError(f"expected a pymilvus.MilvusClient, got {type(client).__name__}")
    if inspect.iscoroutinefunction(client.query):
        raise TypeError(f"expected a synchronous MilvusClient, got {type(client).__name__}")


def schema_of(description: dict[str, Any], vector_field: str | None) -> Schema:
    """Return the schema in the answer of ``describe_collection``.

    Raises:
        ValueError: no field is a FLOAT_VECTOR.
    """
    fields = {field["name"]: field for field in description["fields"]}
    types = {name: getattr(field["type"], "name", str(field["type"])) for name, field in fields.items()}
    candidates = [name for name, kind in types.items() if kind == "FLOAT_VECTOR"]
    if vector_field is None and len(candidates) != 1:
        found = ", ".join(f"{name} ({kind})" for name, kind in types.items() if kind.endswith("VECTOR")) or "none"
        raise ValueError(f"vector_field must name one FLOAT_VECTOR field; vectors of the collection: {found}")
    chosen = candidates[0] if vector_field is None else vector_field
    if chosen not in fields:
        raise ValueError(f"the collection has no field {chosen!r}, it has {', '.join(fields)}")
    if types[chosen] != "FLOAT_VECTOR":
        raise ValueError(f"field {chosen!r} must be a FLOAT_VECTOR, it is a {types[chosen]}")
    structs = [one["name"] for one in description.get("struct_array_fields") or description.get("struct_fields") or ()]
    opaque = [f"{name} ({kind})" for name, kind in types.items() if kind not in PLAIN_TYPES]
    primary = next(field for field in fields.values() if field.get("is_primary"))
    return Schema(
        id_field=primary["name"],
        integer_ids=types[primary["name"]] == "INT64",
        vector_field=chosen,
        dimension=int(fields[chosen]["params"]["dim"]),
        auto_id=bool(description.get("auto_id") or primary.get("auto_id")),
        partition_key=any(field.get("is_partition_key") for field in fields.values()),
        computed=frozenset(name for one in description.get("functions", ()) for name in one["output_field_names"]),
        opaque=(*opaque, *structs),
    )


def address_of(client: Any) -> str:
    """Name the place a client is connected to: the file if it is a Milvus Lite of this process, else host and port."""
    address = client._get_connection().server_address
    # pymilvus 2.6.7 keeps the database's name in another place than 2.6.10.
    database = client._config.db_name if hasattr(client, "_config") else client._db_name
    manager = getattr(sys.modules.get("milvus_lite.server_manager"), "server_manager_instance", None)
    for path, running in getattr(manager, "_servers", {}).items():
        if address == f"127.0.0.1:{running[-1]}":
            address = str(Path(path).resolve())
    return f"{address} {database or 'default'}"
