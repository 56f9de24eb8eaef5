"""Nights: what a night does, and what the next one makes of one that was killed at any step."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from nudge_rag import LabeledPairs, open_store
from nudge_rag.cli.night import run_night, split_by_text
from nudge_rag.cli.night_config import NightConfig
from nudge_rag.cli.night_folder import read_log
from tests.cli import shop
from tests.cli.conftest import Command

STORE = "duckdb://./shop.duckdb?table=docs&similarity=cosine"
CONFIG = f"""
store = "{STORE}"
model = "shop:embed"
folder = "nights"
pairs = ["labels/*.csv"]
solver = "nudge-n"
"""
# Ends the process when the n-th of these steps is about to be taken: every write of state, log and store.
KILLED = """
import os, sys
import nudge_rag.cli.night as night
import nudge_rag.stores
from nudge_rag.cli import main
store = getattr(nudge_rag.stores, sys.argv[2])
left = int(sys.argv[1])
def counted(function):
    def call(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        found = function(*arguments, **options)
        left -= 1
        if left < 0:
            os._exit(9)
        return found
    return call
for name in ("write_state", "log_event", "_gather_labels", "_tune", "_gate", "_report"):
    setattr(night, name, counted(getattr(night, name)))
for name in ("replace", "replace_vectors_if"):
    setattr(store, name, counted(getattr(store, name)))
code = main(["nightly", "night.toml", "--json"])
print("steps left", left, file=sys.stderr)
sys.exit(code)
"""


def contents(folder, url=None):
    store = open_store(url or f"duckdb://{folder}/shop.duckdb?table=docs&similarity=cosine")
    ids = sorted(node for batch, _ in store.scan() for node in batch)
    return store.read(ids).tobytes()


def events(folder):
    return [json.loads(line) for line in (folder / "nights" / "log.jsonl").read_text().splitlines()]


@pytest.fixture
def house(tmp_path):
    shop.write_files(tmp_path)
    shop.index_in_duckdb(shop.read_folder(tmp_path / "texts"), tmp_path / "shop.duckdb")
    (tmp_path / "labels").mkdir()
    shutil.copy(tmp_path / "clicks.csv", tmp_path / "labels" / "monday.csv")
    (tmp_path / "night.toml").write_text(CONFIG)
    return tmp_path


def test_three_nights(house):
    command = Command(house)
    assert command.answer("nightly", "night.toml", "--dry-run")["nodes"] == 48
    assert not (house / "nights").exists()
    original = contents(house)
    first = command.answer("nightly", "night.toml")
    assert first["pushed"] is True
    assert first["compared_with"] == "untuned"
    assert first["change"] > 0.1
    assert contents(house) != original
    assert [entry["event"] for entry in events(house)] == ["begin", "labels", "tune", "gate", "push", "report", "end"]
    night = house / "nights" / first["night"]
    assert {path.name for path in night.iterdir()} >= {"labels.jsonl", "nudge", "evaluation.json", "report.html"}
    # Nothing new: nothing is done.
    second = command.answer("nightly", "night.toml", code=1)
    assert second["over"] == "no label is new, and the nudge is in place"
    # New labels: tuned from the originals, compared with what is live.
    (house / "labels" / "tuesday.csv").write_text("query,node_id\nsend my money back form please,refund-form\n")
    third = command.answer("nightly", "night.toml", code=None)
    assert third["compared_with"] == "live"
    assert set(third["means"]) == {"untuned", "live", "nudged"}
    assert command.answer("rollback", STORE, "--yes")["exact"] is True
    assert contents(house) == original


def test_a_night_after_the_index_was_built_anew_under_new_ids(house):
    (house / "night.toml").write_text(CONFIG + 'texts = "texts.jsonl"\n')
    rows = [json.dumps({"_id": node, "text": text}) for node, text in shop.texts().items()]
    (house / "texts.jsonl").write_text("\n".join(rows), encoding="utf-8")
    command = Command(house)
    assert command("nightly", "night.toml").returncode == 0
    assert command("nightly", "night.toml").returncode == 1, "nothing is new"
    shop.rebuild(house)
    shutil.copy(house / "v2-texts.jsonl", house / "texts.jsonl")
    # All the pairs name ids of before, and nothing is new but the ids.
    result = command("nightly", "night.toml", "--json")
    assert result.returncode == 0, result.stdout + result.stderr
    found = command.answer("status", STORE)
    assert {node.partition("-")[0] for node in found["nudged"]} == {"v2"}


def test_a_closed_gate_pushes_nothing(house):
    (house / "night.toml").write_text(CONFIG + "at_least = 2.0\n")
    before = contents(house)
    answer = Command(house).answer("nightly", "night.toml", code=1)
    assert answer["over"].startswith("the gate is closed: +0.")
    assert contents(house) == before
    assert [entry["event"] for entry in events(house)] == ["begin", "labels", "tune", "gate", "end"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("store = 1", "lacks model, folder"),
        (CONFIG + "colour = 1", "has unknown keys colour; its keys are store"),
        (CONFIG + 'keep = "x"', "keep must be int, got 'x'"),
        (CONFIG + 'mode = "x"', "mode must be 'in-place' or 'side-by-side'"),
        (CONFIG.replace("*", "one"), "there is no file"),
        (CONFIG.replace('pairs = ["labels/*.csv"]', ""), "names neither pairs nor a recorder"),
        ("= 1", "is not TOML"),
        ("\ufeff= 1", "is not TOML: Invalid statement (at line 1, column 1)"),
        (CONFIG + "at_least = nan", "at_least must be a finite number, got nan"),
        (CONFIG + "metrics = []", "metrics must name at least one"),
        (CONFIG + "metrics = [10]", "metrics must hold text, got [10]"),
        (CONFIG + 'metrics = ["nDCG"]', "metrics: a metric is written family@k"),
        (CONFIG.replace('"nudge-n"', '"nudge-x"'), "solver must be one of auto, nudge-n"),
        (CONFIG + 'format = "xlsx"', "format must be one of jsonl, csv"),
        (CONFIG + "switch = true", "switch is for mode = 'side-by-side'"),
        (CONFIG.replace("shop:embed", " "), "model must hold text, got ' '"),
        (CONFIG.replace("labels/*.csv", "/"), "'/' is no pattern of files"),
    ],
)
def test_a_configuration_that_does_not_fit_is_named(house, text, message):
    (house / "night.toml").write_text(text)
    assert message in Command(house).answer("nightly", "night.toml", "--dry-run", code=2)["message"]


def test_a_configuration_that_an_editor_of_windows_wrote(house):
    (house / "night.toml").write_text(CONFIG.replace("\n", "\r\n"), encoding="utf-8-sig")
    assert Command(house).answer("nightly", "night.toml", "--dry-run")["nodes"] == 48


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"name": "x"}', '{"name": "../x", "done": [], "attempts": 1, "facts": {}}', "\udcff",
                '{"name": "x", "done": 1, "attempts": 1, "facts": {}}']
)  # fmt: skip
def test_a_damaged_state_is_named_and_nothing_is_written(house, content):
    (house / "nights").mkdir()
    (house / "nights" / "state.json").write_text(content, errors="surrogateescape")
    before = contents(house)
    message = Command(house).answer("nightly", "night.toml", code=3)["message"]
    assert "nights/state.json is not what a night writes" in message
    assert contents(house) == before


def test_a_step_that_fails_is_in_the_log_without_passwords_and_the_next_night_goes_on(house, monkeypatch):
    monkeypatch.chdir(house)
    (house / "secretive.py").write_text(
        "def embed(texts):\n    raise OSError('no route\\nto http://me:hunter2@host')\n"
    )
    (house / "night.toml").write_text(CONFIG.replace("shop:embed", "secretive:embed"))
    assert Command(house).answer("nightly", "night.toml", code=3)["message"] == "no route to http://me:***@host"
    failed = events(house)[-1]
    assert (failed["event"], failed["step"]) == ("failed", "tune")
    assert failed["error"] == "OSError: no route to http://me:***@host"
    (house / "night.toml").write_text(CONFIG)
    assert Command(house).answer("nightly", "night.toml")["pushed"] is True
    assert [entry["event"] for entry in events(house)] == [
        "begin", "labels", "failed", "go on", "tune", "gate", "push", "report", "end",
    ]  # fmt: skip


def test_clocks_that_are_set_back_and_nights_within_a_second(tmp_path):
    """A night has a folder of its own, the newest folders stay, and a line that a process died over spoils no other."""
    now = datetime(2026, 3, 29, 2, 30, tzinfo=UTC)
    config = NightConfig(tmp_path, "s", "m", tmp_path / "nights", ("none/*.csv",), keep=3)
    names = [run_night(config, now - timedelta(hours=hours)).name for hours in (0, 0, 2, 2, 1)]
    assert names == [f"20260329T0{time}00Z{number}" for time, number in
                     (("230", ""), ("230", "-2"), ("030", ""), ("030", "-2"), ("130", ""))]  # fmt: skip
    assert {path.name for path in (tmp_path / "nights").iterdir() if path.is_dir()} == set(names[2:])
    with (tmp_path / "nights" / "log.jsonl").open("a") as log:
        log.write('{"time": "2026')
    last = run_night(config, now).name
    assert [entry["event"] for entry in read_log(tmp_path / "nights") if entry["night"] == last] == [
        "begin", "labels", "end",
    ]  # fmt: skip


def test_two_nights_at_once(house):
    command = Command(house)
    script = "import sys, time; from pathlib import Path; from nudge_rag.common.lock import locked\n"
    script += "with locked(Path('nights'), 'x'):\n    print('held', flush=True)\n    time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", script], cwd=house, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    try:
        assert "under way in another process" in command.answer("nightly", "night.toml", code=3)["message"]
    finally:
        holder.kill()
        holder.wait()


def test_a_query_is_in_the_same_part_every_night():
    first = LabeledPairs.from_pairs((f"question {number}", "n") for number in range(1000))
    more = LabeledPairs.from_pairs((f"Question  {number}", "n") for number in range(3000))
    parts = [set(part.queries.values()) for part in split_by_text(first)]
    later = [{" ".join(text.lower().split()) for text in part.queries.values()} for part in split_by_text(more)]
    for before, after in zip(parts, later, strict=True):
        assert before <= after
    assert [len(part) for part in parts] == pytest.approx([700, 100, 200], abs=45)


def run_to_death(folder, step, store):
    """Run a night that dies at a step; return whether it did."""
    result = Command(folder).run(KILLED, step, store)
    assert result.returncode in (0, 9), result.stderr
    return result.returncode == 9


def check_that_it_goes_on(folder, url, wanted, nudged, step, there=None):
    """The next night finishes what the killed one began: one version, every node nudged, the same vectors."""
    command = Command(folder)
    again = command("nightly", "night.toml", "--json")
    answer = json.loads(again.stdout)
    # Killed after its end was written, a night has nothing left to do.
    assert again.returncode == 0 or answer["result"]["over"].startswith("no label is new"), (step, again.stdout)
    assert contents(folder, there) == wanted, step
    assert command.answer("status", url)["nudged"] == nudged, step
    assert [version["live"] for version in command.answer("versions", url)["versions"]].count(True) == 1, step


@pytest.mark.slow
def test_killed_at_every_step_it_goes_on(house, tmp_path_factory):
    shop.write_clicks(house / "labels" / "monday.csv", shop.PHRASES[:4])
    clean = tmp_path_factory.mktemp("clean")
    shutil.copytree(house, clean, dirs_exist_ok=True)
    Command(clean).answer("nightly", "night.toml")
    wanted = contents(clean)
    nudged = Command(clean).answer("status", STORE)["nudged"]
    assert len(nudged) > 20
    every = int(os.environ.get("NUDGE_RAG_KILL_EVERY", "3"))
    killed = 0
    for step in range(0, 200, every):
        folder = tmp_path_factory.mktemp(f"killed-{step}")
        shutil.copytree(house, folder, dirs_exist_ok=True)
        if not run_to_death(folder, step, "DuckDBStore"):
            break
        killed += 1
        check_that_it_goes_on(folder, STORE, wanted, nudged, step)
    else:
        raise AssertionError("the night never came to its end")
    assert killed > 20 / every


@pytest.mark.slow
@pytest.mark.server
def test_killed_over_postgres_it_goes_on(house, servers, tmp_path_factory):
    """A push is one transaction there. Every sixth step is tried; NUDGE_RAG_KILL_EVERY tries more."""
    from tests.support.builders.postgres import new_database

    every = int(os.environ.get("NUDGE_RAG_KILL_EVERY", "6"))
    shop.write_clicks(house / "labels" / "monday.csv", shop.PHRASES[:4])
    texts = shop.read_folder(house / "texts")
    wanted, nudged, killed = None, None, 0
    for step in [1000, *range(2, 200, every)]:  # the first night is never killed
        folder = tmp_path_factory.mktemp(f"postgres-{step}")
        shutil.copytree(house, folder, dirs_exist_ok=True)
        address = new_database(servers)
        shop.index_in_postgres(texts, address)
        url = f"{address}{'&' if '?' in address else '?'}table=docs&similarity=cosine"
        (folder / "night.toml").write_text(CONFIG.replace(STORE, url))
        original = contents(folder, url)
        died = run_to_death(folder, step, "PgVectorStore")
        if wanted is None:
            wanted, nudged = contents(folder, url), Command(folder).answer("status", url)["nudged"]
            assert not died
            assert nudged
            assert wanted != original
        elif died:
            killed += 1
            check_that_it_goes_on(folder, url, wanted, nudged, step, url)
        else:
            break
    else:
        raise AssertionError("the night never came to its end")
    assert killed > 20 / every
