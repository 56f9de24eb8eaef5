"""SQLAlchemy's engines and conditions in the forms that psycopg takes."""

from __future__ import annotations

from typing import Any

__all__ = ["conninfo", "written_out"]


def conninfo(engine: Any) -> str:
    """The address of an SQLAlchemy engine in psycopg's form."""
    scheme, _, rest = engine.url.render_as_string(hide_password=False).partition("://")
    return f"{scheme.partition('+')[0]}://{rest}"


def written_out(clause: Any) -> str:
    """An SQLAlchemy condition as SQL, its values written out as psycopg quotes them."""
    from psycopg import sql
    from sqlalchemy.dialects.postgresql import psycopg

    dialect: Any = psycopg.dialect
    compiled = clause.compile(dialect=dialect())
    values = {
        name: compiled._bind_processors[name](value) if name in compiled._bind_processors else value
        for name, value in compiled.params.items()
    }
    return str(compiled.string % {name: sql.Literal(value).as_string() for name, value in values.items()})
