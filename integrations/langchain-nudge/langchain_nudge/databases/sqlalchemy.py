"""SQLAlchemy's conditions in the form that the PostgreSQL adapter takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["written_out"]


def written_out(clause: Any, given: Mapping[str, Any] | None = None) -> str:
    """Write an SQLAlchemy condition as SQL, its values written out as psycopg quotes them.

    Args:
        clause: the condition.
        given: values of its parameters that it does not know itself, which PostgreSQL gives a type.
    """
    from psycopg import sql
    from sqlalchemy.dialects.postgresql import psycopg

    dialect: Any = psycopg.dialect
    # Lists of values, of in_(), become one placeholder each.
    compiled = clause.compile(dialect=dialect(), compile_kwargs={"render_postcompile": True})
    values = {
        name: compiled._bind_processors[name](value) if name in compiled._bind_processors else value
        for name, value in {**compiled.params, **(given or {})}.items()
    }
    return str(compiled.string % {name: sql.Literal(value).as_string() for name, value in values.items()})
