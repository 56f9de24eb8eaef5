"""The documentation's table of stores is what the adapters' records say, and the records are what the stores are."""

from __future__ import annotations

import tomllib
from pathlib import Path

import langchain_nudge.databases.registry as langchain_registry
import llama_index.retrievers.nudge.databases.registry as llama_registry
import pytest

from nudge_rag.stores import Capabilities
from nudge_rag.stores.catalog import RECORDS, StoreRecord
from nudge_rag.stores.urls import SCHEMES, open_store
from scripts.stores_table import main, with_table

ROOT = Path(__file__).parents[2]
OF = {record.name: record for record in RECORDS}


def test_the_table_is_up_to_date():
    page = (ROOT / "docs" / "guide" / "stores.md").read_text(encoding="utf-8")
    assert with_table(page) == page, "run: make docs"


def test_an_opened_store_is_as_its_record_says(untouched):
    record = OF[untouched.store.name]
    assert record.departures(untouched.store.capabilities) == []


def test_every_departure_is_named():
    record = StoreRecord("a", "A", "a", similarities=("dot", "l2"), unit_length=("dot",), persistent=(False,))
    assert record.departures(Capabilities("l2")) == []
    assert record.departures(Capabilities("dot", keeps_norms=False)) == []
    assert record.departures(Capabilities("dot")) == ["keeps_norms=True"]
    other = Capabilities("cosine", "float64", False, False, False, False, True, 0.5, True, True, True)
    named = {departure.partition("=")[0] for departure in record.departures(other)}
    assert named == set(Capabilities.__dataclass_fields__)


def test_records_name_what_the_integrations_the_urls_and_the_extras_offer():
    assert sorted(c for r in RECORDS for c in r.llama_index) == sorted(llama_registry.DATABASES)
    assert sorted(c for r in RECORDS for c in r.langchain) == sorted(langchain_registry.DATABASES)
    assert sorted(scheme for r in RECORDS for scheme in r.schemes) == sorted(SCHEMES)
    assert all(r.schemes for r in RECORDS if r.url) and all(r.url for r in RECORDS if r.scheme)
    assert all(f"``{scheme}://" in open_store.__doc__ for scheme in SCHEMES)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {r.extra for r in RECORDS} <= set(extras)
    assert len(OF) == len(RECORDS)


def test_the_table_is_written_between_the_markers(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- stores -->\n| old |\n<!-- end of stores -->\nafter\n")
    main([str(readme)])
    lines = readme.read_text().splitlines()
    assert (lines[0], lines[1], lines[-2], lines[-1]) == (
        "before",
        "<!-- stores -->",
        "<!-- end of stores -->",
        "after",
    )
    assert len(lines) == 4 + 2 + len(RECORDS)
    assert {line.count("|") for line in lines[2:-2]} == {10}
    with pytest.raises(ValueError, match="has no lines <!-- stores --> and <!-- end of stores -->"):
        with_table("<!-- stores -->\n")


def test_a_check_writes_nothing(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("<!-- stores -->\n| old |\n<!-- end of stores -->\n")
    with pytest.raises(SystemExit, match="the table of stores is out of date; run: make docs"):
        main(["--check", str(readme)])
    assert "| old |" in readme.read_text()
    main([str(readme)])
    main(["--check", str(readme)])


@pytest.mark.parametrize(
    ("change", "cells"),
    [
        ({}, ["cosine, dot or l2", "float32", "exact", ""]),
        ({"exact_search": (False,), "index": "HNSW"}, ["cosine, dot or l2", "float32", "HNSW", ""]),
        (
            {"exact_search": (True, False), "index": "HNSW", "batch_search": (False,), "filters": (False,)},
            ["cosine, dot or l2", "float32", "exact, or HNSW; a query at a time; no filters", ""],
        ),
        (
            {"similarities": ("dot",), "dtypes": ("float32", "float64"), "note": "or less", "side_by_side": (True,)},
            ["dot", "float32 or float64; or less", "exact", "yes"],
        ),
        (
            {"unit_length": ("cosine",), "rounding": 1e-6, "side_by_side": (True,), "atomic_switch": (True,)},
            ["cosine, dot or l2", "float32; under cosine at unit length, to within 1e-06", "exact", "atomic"],
        ),
        (
            {"side_by_side": (True, False), "atomic_switch": (True, False), "beside": "by an alias"},
            ["cosine, dot or l2", "float32", "exact", "atomic, by an alias"],
        ),
    ],
)
def test_cells_are_derived(change, cells):
    record = StoreRecord("a", "A", "extra", ("L",), ("M", "N"), "a", **change)
    text = with_table("<!-- stores --><!-- end of stores -->", [record])
    row = [cell.strip() for cell in text.splitlines()[3].strip("|").split("|")]
    assert row == ["A", "`L`", "`M`, `N`", *cells, "`extra`", "`a://`"]
    marked = with_table("<!-- stores --><!-- end of stores -->", [StoreRecord("a", "A", "extra", experimental=True)])
    assert "| A (experimental) |" in marked
