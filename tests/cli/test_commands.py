"""Every command as a user calls it, over DuckDB: answers, exit codes, JSON, and what must not be printed."""

from __future__ import annotations

import json
import os
import platform
import pty
import re
import signal
import subprocess
import sys
import time

import numpy
import pytest

import nudge_rag
from nudge_rag import LabeledPairs, Nudge, open_store
from nudge_rag.cli import main
from nudge_rag.cli.secrets import mask_secrets, secrets_of
from tests.cli import shop
from tests.cli.conftest import COMMAND, FOLDER
from tests.support.forking_commands import ForkingParent

TUNE = ("clicks.csv", "--model", "shop:embed", "--solver", "nudge-n")


def shop_store(folder):
    return open_store(f"duckdb://{folder}/shop.duckdb?table=docs&similarity=cosine")


def vectors(folder):
    store = shop_store(folder)
    ids = sorted(node for batch, _ in store.scan() for node in batch)
    found = store.read(ids).tobytes()
    del store  # DuckDB lets one process in
    return found


def test_from_clicks_to_a_push_and_back(command, application, tmp_path):
    before = vectors(tmp_path)
    tuned = command.answer("tune", application, *TUNE, "-o", "nudge")
    assert tuned["improves"] is True
    assert tuned["nodes"] == 48
    assert command.answer("status", application, code=1)["version"] is None
    assert command.answer("push", application, "nudge", "--dry-run") == {
        "would_push": True,
        "nodes": 48,
        "reason": None,
    }
    assert vectors(tmp_path) == before
    pushed = command.answer("push", application, "nudge", "--yes")
    assert (pushed["pushed"], pushed["written"]) == (True, 48)
    assert vectors(tmp_path) != before
    assert len(command.answer("status", application)["nudged"]) == 48
    assert [one["live"] for one in command.answer("versions", application)["versions"]] == [True]
    assert command.answer("reapply", application, code=1) == {"written": []}
    shop.write_clicks(tmp_path / "few.csv", shop.PHRASES[:1])
    found = command.answer("eval", application, "few.csv", "--model", "shop:embed", "--nudge", "nudge")
    assert found["systems"] == ["untuned", "live", "nudged"]
    means = {row["system"]: row["mean"] for row in found["rows"] if row["metric"] == "nDCG@10"}
    assert means["untuned"] < means["live"] == pytest.approx(means["nudged"], abs=1e-6)
    assert command.answer("rollback", application, "--dry-run")["nodes"] == 48
    command.answer("report", application, "nudge", "-o", "hashes.html")
    command.answer("report", application, "nudge", "-o", "texts.html", "--pairs", "clicks.csv")
    hashes, texts = ((tmp_path / f"{name}.html").read_text() for name in ("hashes", "texts"))
    assert "Hubs" in hashes and "query " in hashes and "money back" not in hashes
    assert "money back" in texts
    undone = command.answer("rollback", application, "--yes")
    assert (undone["restored"], undone["exact"]) == (48, True)
    assert vectors(tmp_path) == before
    assert command.answer("rollback", application, "--yes", code=1) == {"restored": 0, "version": None}
    (name,) = (version["name"] for version in command.answer("versions", application)["versions"])
    assert command.answer("prune", application, "--keep", "1", "--yes", code=1) == {"removed": []}
    assert command.answer("prune", application, "--dry-run") == {"would_remove": [name]}
    assert command.answer("prune", application, "--yes") == {"removed": [name]}
    assert command.answer("versions", application) == {"versions": []}
    assert command.answer("repair", application, "--yes", code=1) == {"found": [], "set_aside": []}


def test_tune_tells_what_was_tried_and_what_other_reaches_would_give(command, application, tmp_path):
    told = command.answer("tune", application, "clicks.csv", "--model", "shop:embed", "-o", "nudge")
    saved = Nudge.load(tmp_path / "nudge", shop_store(tmp_path)).to_dict()
    assert told["tried"] == saved["tried"]
    assert [setting["chosen"] for setting in told["tried"]].count(True) == 1
    assert told["other_reaches"] == saved["other_reaches"]
    notes = " ".join(reach["note"] for reach in told["other_reaches"])
    assert "reach='queries'" in notes
    assert "reach='nodes'" in notes


def test_a_history_in_a_folder_is_brought_to_the_store(command, application, tmp_path):
    before = vectors(tmp_path)
    command.answer("tune", application, *TUNE, "--push", "--yes", "--versions", "old")
    refused = command("status", application)
    assert refused.returncode > 1
    assert "take_over" in refused.stderr
    assert command.answer("take-over", application, "--versions", "old", "--yes") == {"versions": ["0001"]}
    assert command.answer("status", application)["version"] == "0001"
    assert command.answer("rollback", application, "--yes")["restored"] == 48
    assert vectors(tmp_path) == before


def test_tune_push_at_once_and_part_of_a_rollback(command, application, tmp_path):
    result = command("tune", application, *TUNE, "--push", "--yes")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Push: nDCG@10 on 58 held-out queries rises from")
    assert "48 vectors pushed as version" in result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) <= 80
    store = shop_store(tmp_path)
    store.replace(["refund-form"], -store.read(["refund-form"]))
    del store
    status = command.answer("status", application, code=4)
    assert status["changed"] == ["refund-form"]
    undone = command.answer("rollback", application, "--yes", code=4)
    assert undone["changed_since"] == ["refund-form"]
    assert undone["restored"] == 47


def test_what_a_backup_brings_back_is_told_and_undone(command, application, tmp_path):
    before = vectors(tmp_path)
    command.answer("tune", application, *TUNE, "--push", "--yes")
    store = shop_store(tmp_path)
    ids = sorted(node for batch, _ in store.scan() for node in batch)
    nudged = store.read(ids)
    del store
    command.answer("rollback", application, "--yes")
    store = shop_store(tmp_path)
    store.replace(ids, nudged)
    del store
    found = command.answer("status", application, code=4)
    (name,) = found["returned_from"]
    assert (found["version"], len(found["returned"])) == (None, 48)
    assert command.answer("rollback", application, "--dry-run") == {
        "would_roll_back": f"what came back of version {name}",
        "nodes": 48,
    }
    undone = command.answer("rollback", application, "--yes")
    assert (undone["restored"], undone["version"], undone["exact"]) == (48, name, True)
    assert vectors(tmp_path) == before
    assert command.answer("status", application, code=1)["returned"] == []


def test_nodes_that_were_away_are_printed_until_they_are_back(command, application, tmp_path):
    before = vectors(tmp_path)
    command.answer("tune", application, *TUNE, "--push", "--yes")
    store = shop_store(tmp_path)
    store.connection.execute("CREATE TABLE kept AS SELECT * FROM docs WHERE id = 'refund-form'")
    store.connection.execute("DELETE FROM docs WHERE id = 'refund-form'")
    del store
    command.answer("rollback", application, "--yes", code=4)
    found = command("status", application)
    assert found.stdout.startswith(
        "nothing is pushed; 1 node(s) that a push had moved are away: 'refund-form' (if one comes back with that nudge,"
    )
    assert command.answer("status", application, code=1)["away"] == ["refund-form"]
    store = shop_store(tmp_path)
    store.connection.execute("INSERT INTO docs SELECT * FROM kept")
    store.connection.execute("DROP TABLE kept")
    del store
    assert command.answer("rollback", application, "--yes")["restored"] == 1
    assert vectors(tmp_path) == before
    assert command.answer("status", application, code=1)["away"] == []
    assert command("status", application).stdout.strip() == "nothing is pushed"


def test_what_does_not_improve_ends_with_1_and_is_not_pushed(command, application, tmp_path):
    # Every query is a text itself, which ranks first as it is.
    (tmp_path / "perfect.jsonl").write_text(
        "\n".join(json.dumps({"query": text, "node_id": node}) for node, text in shop.texts().items())
    )
    before = vectors(tmp_path)
    options = ("--model", "shop:embed", "--solver", "nudge-n", "-o", "none")
    result = command("tune", application, "perfect.jsonl", *options, "--push", "--yes")
    assert result.returncode == 1, result.stderr
    assert result.stdout.startswith("Do not push: ")
    assert "Nothing was pushed: gamma is 0" in result.stdout
    assert command.answer("push", application, "none", "--yes", code=1)["pushed"] is False
    tried = command.answer("push", application, "none", "--dry-run", code=1)
    assert tried["would_push"] is False
    assert tried["reason"].startswith("gamma is 0")
    assert vectors(tmp_path) == before


def test_a_dry_run_says_what_a_push_would_refuse(command, application, tmp_path):
    command.answer("tune", application, *TUNE, "-o", "all", "--push", "--yes")
    lines = (tmp_path / "clicks.csv").read_text().splitlines()
    (tmp_path / "few.csv").write_text("\n".join(lines[: len(lines) // 2]))
    command.answer("tune", application, "few.csv", *TUNE[1:], "-o", "few", code=None)
    tried = command("push", application, "few", "--dry-run")
    assert tried.returncode == 1
    assert "Nothing would be pushed: " in tried.stdout
    assert "it would forget" in tried.stdout
    refused = command.answer("push", application, "few", "--yes", code=1)
    assert refused["reason"] in tried.stdout
    assert command.answer("push", application, "few", "--dry-run", "--force")["would_push"] is True


def test_the_version_tells_what_it_runs_on(command):
    assert command("--version").stdout == f"nudge-rag {nudge_rag.__version__}\n"
    answer = json.loads(command("--version", "--json").stdout)
    assert (answer["schema"], answer["exit_code"]) == ("nudge-rag/cli/1", 0)
    assert answer["result"]["version"] == nudge_rag.__version__
    assert answer["result"]["python"] == platform.python_version()
    assert answer["result"]["packages"]["numpy"] == numpy.__version__


def test_verbose_tells_what_is_done_and_nothing_else_changes(command, application):
    quiet = command("tune", application, *TUNE, "--push", "--yes", "--dry-run", "--json")
    verbose = command("tune", application, *TUNE, "--push", "--yes", "--dry-run", "--json", "-v")
    assert verbose.stdout == quiet.stdout
    assert "embedding" not in quiet.stderr
    assert re.search(r"^tuning\.queries: embedding \d+ queries$", verbose.stderr, re.MULTILINE)


def test_the_gate(command, application, tmp_path):
    shop.write_clicks(tmp_path / "few.csv", shop.PHRASES[:1])
    arguments = ("eval", application, "few.csv", "--model", "shop:embed")
    command.answer("tune", application, *TUNE, "-o", "nudge")
    assert command.answer(*arguments, "--nudge", "nudge", "--fail-under", "nDCG@10:+0.01")["gate"]["passed"] is True
    assert (
        command.answer(*arguments, "--nudge", "nudge", "--fail-under", "nDCG@10:2", code=1)["gate"]["passed"] is False
    )
    assert "compares two retrievers" in command.answer(*arguments, "--fail-under", "nDCG@10:0", code=2)["message"]
    for gate in ("nonsense", "nDCG@10:nan"):
        assert "must be one of" in command.answer(*arguments, "--fail-under", gate, code=2)["message"]


def test_labels_of_nodes_that_are_gone_are_named_and_left_out(command, application, tmp_path):
    (tmp_path / "some.csv").write_text("query,node_id\nmoney back form,refund-form\nwhat,gone\n")
    (tmp_path / "none.csv").write_text("query,node_id\nwhat,gone\n")
    arguments = ("eval", application, "some.csv", "--model", "shop:embed")
    assert command.answer(*arguments)["n_queries"] == 1
    assert "1 labelled node id(s) are not in the store, in 1 pair(s): 'gone'" in command(*arguments).stderr
    message = command.answer("eval", application, "none.csv", "--model", "shop:embed", code=2)["message"]
    assert message.startswith("none of the labelled node ids is in the store: labels name 'gone', duckdb holds 'addr")


def test_nothing_is_written_where_nobody_can_be_asked(command, application, tmp_path):
    before = vectors(tmp_path)
    command.answer("tune", application, *TUNE, "-o", "nudge")
    assert "pass --yes" in command.answer("push", application, "nudge", code=2)["message"]
    assert vectors(tmp_path) == before


@pytest.mark.parametrize(("reply", "code"), [(b"y\n", 0), (b"\n", 1)])
def test_on_a_terminal_the_question_is_asked(command, application, tmp_path, reply, code):
    command.answer("tune", application, *TUNE, "-o", "nudge")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "push", application, "nudge"],
        cwd=tmp_path,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    os.write(ours, reply)
    _, error = process.communicate(timeout=120)
    assert process.returncode == code
    assert b"Write 48 vectors to" in error
    os.close(ours)
    os.close(theirs)


def test_progress_is_shown_on_a_terminal_only(command, application):
    result = command("tune", application, *TUNE)
    assert "%|" not in result.stderr
    assert "\r" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["tune", "nonsense", "clicks.csv", "--model", "shop:embed"], 2, "STORE must be a URL, a folder or module:obj"),
        (["tune", "oracle://x", "clicks.csv", "--model", "shop:embed"], 2, "no store has the scheme 'oracle'"),
        (["tune", "{store}", "none.csv", "--model", "shop:embed"], 2, "there is no file or folder none.csv"),
        (["tune", "{store}", "clicks.csv", "--model", "shop:nothing"], 2, "'shop:nothing' cannot be imported"),
        (["tune", "{store}", "clicks.csv", "--model", "nowhere:x"], 2, "No module named 'nowhere'"),
        (["tune", "{store}", "clicks.csv", "--model", "shop:TOPICS"], 2, "is a dict, which embeds no queries"),
        (["tune", "{store}", "clicks.csv", "--model", "shop:embed", "--split", "1,2"], 2, "three numbers such as"),
        (["tune", "{store}", "clicks.csv", "--model", "shop:embed", "--metrics", "nDCG"], 2, "a metric is written"),
        (["tune", "{store}", "clicks.csv", "--model", "shop:embed", "--solver", "x"], 2, "solver must be one of"),
        (["push", "{store}", "none", "--yes"], 2, "there is no folder none: tune --output writes one"),
        (["report", "{store}", "none", "-o", "x.pdf"], 2, "a report is an .html file, got x.pdf"),
        (["tune", "{store}", "clicks.csv", "--model", "shop:embed", "--report", "x"], 2, "a report is an .html file"),
        (["status", "env:NOT_SET"], 2, "the environment variable NOT_SET is not set"),
        (["status", "postgresql://localhost:1/x?table=docs"], 3, "connection"),
        (["switch", "{store}", "--yes"], 1, ""),
        (["nothing"], 2, "invalid choice: 'nothing'"),
        ([], 2, "required: COMMAND"),
        (["pairs", "split", "clicks.csv"], 2, "required: FOLDER"),
    ],
)
def test_errors_are_one_line_and_a_document(application, tmp_path, monkeypatch, capsys, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(FOLDER)
    arguments = [argument.format(store=application) for argument in arguments]
    assert main(arguments) == code
    lines = capsys.readouterr().err.splitlines()
    assert "Traceback" not in "".join(lines)
    if code > 1:
        assert message in "".join(line for line in lines if line.startswith("nudge-rag: "))
        assert len([line for line in lines if not line.startswith("warning: ")]) == 1
    assert main([*arguments, "--json"]) == code
    document = json.loads(capsys.readouterr().out)
    assert document["exit_code"] == code
    assert (message in document["error"]["message"]) if code > 1 else "result" in document


def test_debug_shows_the_traceback(command):
    result = command("status", "postgresql://localhost:1/x?table=docs", "--debug")
    assert "Traceback" in result.stderr
    assert result.returncode == 3


PASSWORD = "hunter2/secret@home"
ENCODED = "hunter2%2Fsecret%40home"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://app:{ENCODED}@localhost:1/x?table=docs",
        f"postgresql://app:{PASSWORD}@localhost:1/x?table=docs",
        f"postgresql://localhost:1/x?table=docs&password={ENCODED}",
        "postgresql://app:${DB_PASSWORD}@localhost:1/x?table=docs",
        f"qdrant://localhost:1?collection=docs&api_key={ENCODED}&nonsense=1",
        f"redis://:{ENCODED}@localhost:1/0?index=docs",
        f"chroma://user:{ENCODED}@localhost:1?collection=docs",
        f"milvus://localhost:1?collection=docs&token={ENCODED}&x=1",
        f"nonsense://user:{PASSWORD}@host/x?table=docs",
        "env:STORE_URL",
    ],
)
@pytest.mark.parametrize("options", [[], ["--json"], ["--debug"]])
def test_passwords_are_never_shown(monkeypatch, capsys, url, options):
    monkeypatch.setenv("DB_PASSWORD", PASSWORD)
    monkeypatch.setenv("STORE_URL", f"postgresql://app:{ENCODED}@localhost:1/x?table=docs")
    assert main(["status", url, *options]) in (2, 3)
    shown = "".join(capsys.readouterr())
    assert shown
    for spelling in (PASSWORD, ENCODED, "hunter2"):
        assert spelling not in shown


def test_masking_by_hand():
    assert mask_secrets("api_key=abc&x=1 token='a b'") == "api_key=***&x=1 token=***"
    assert (
        mask_secrets("see https://example.org/a@b and user@example.org")
        == "see https://example.org/a@b and user@example.org"
    )
    assert "p@ss" in secrets_of(["postgresql://u:p%40ss@h/d"])


def test_help_is_quick_and_tells_the_exit_codes():
    """At most eight times the processor time of an interpreter that does nothing; numpy is not imported.

    On a busy machine a process may take more; a help that is slow does so each time.
    """

    def run(code):
        ends = "; print('seconds', time.process_time())"
        command = [sys.executable, "-c", "import sys, time; " + code + ends]
        return subprocess.run(command, capture_output=True, text=True, check=True)

    def seconds_of(code):
        return float(run(code).stdout.split()[-1])

    shown = "from nudge_rag.cli import main; main(['--help']); assert 'numpy' not in sys.modules"
    assert any(seconds_of(shown) < 8 * seconds_of("pass") for _ in range(5))
    result = run(shown)
    assert "exit status: 0 done; 1 the answer is no" in result.stdout


def test_an_interrupt_ends_with_130(command, application, tmp_path):
    (tmp_path / "slow.py").write_text(
        "import pathlib, time\ndef embed(texts):\n    pathlib.Path('started').touch()\n    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [*COMMAND, "tune", application, "clicks.csv", "--model", "slow:embed", "--json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        # A shell that runs the tests in the background has its children ignore interrupts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not (tmp_path / "started").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(output)["error"]["type"] == "KeyboardInterrupt"
    assert b"Traceback" not in error


def test_a_reader_that_has_seen_enough_is_no_error(command, tmp_path):
    script = (
        f"{sys.executable} -c 'import sys; from nudge_rag.cli import main; sys.exit(main())' completion bash | head -1"
    )
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert result.stdout.startswith("# bash completion")
    assert result.stderr == ""


def test_pairs(command, application, tmp_path):
    counted = command.answer("pairs", "inspect", "clicks.csv")
    assert (counted["queries"], counted["pairs"], counted["nodes"]) == (288, 288, 48)
    assert counted["labels_per_node"] == 6
    dry = command.answer("pairs", "convert", "clicks.csv", "clicks.jsonl", "--dry-run")
    assert dry["files"] == {"clicks.jsonl": {"queries": 288, "pairs": 288}}
    assert not (tmp_path / "clicks.jsonl").exists()
    command.answer("pairs", "convert", "clicks.csv", "clicks.jsonl")
    original = LabeledPairs.from_csv(tmp_path / "clicks.csv")
    assert LabeledPairs.from_jsonl(tmp_path / "clicks.jsonl") == original
    assert "exists; pass --force" in command.answer("pairs", "convert", "clicks.csv", "clicks.jsonl", code=2)["message"]
    command.answer("pairs", "convert", "clicks.jsonl", "beir:dev")
    assert LabeledPairs.from_beir(tmp_path / "beir", "dev") == original
    assert command.answer("pairs", "inspect", "beir:dev")["pairs"] == 288
    parts = command.answer("pairs", "split", "clicks.jsonl", "parts", "--fractions", "0.5,0.25,0.25")["files"]
    assert sum(part["queries"] for part in parts.values()) == 288
    merged = command.answer("pairs", "merge", *parts, "-o", "again.csv")["files"]["again.csv"]
    assert merged == {"queries": 288, "pairs": 288}
    command.answer("pairs", "merge", "clicks.csv", "again.csv", "-o", "sum.jsonl")
    assert {
        grade for grades in LabeledPairs.from_jsonl(tmp_path / "sum.jsonl").qrels.values() for grade in grades.values()
    } == {2.0}
    command.answer("pairs", "merge", "clicks.csv", "again.csv", "-o", "last.jsonl", "--latest")
    assert command.answer("pairs", "inspect", "last.jsonl")["grades"] == [[1.0, 288]]


def test_bad_rows_name_file_and_line_or_are_skipped(command, tmp_path):
    (tmp_path / "bad.csv").write_text("query,node_id,grade\nleave,exit,1\n,bill,1\n")
    assert "bad.csv, line 3" in command.answer("pairs", "inspect", "bad.csv", code=2)["message"]
    assert command.answer("pairs", "inspect", "bad.csv", "--skip-errors")["pairs"] == 1


def test_bash_completes_commands_and_options(tmp_path):
    script = subprocess.run([*COMMAND, "completion", "bash"], capture_output=True, text=True, check=True).stdout
    (tmp_path / "completion.bash").write_text(script)

    def complete(*words):
        line = "COMP_WORDS=(" + " ".join(repr(word) for word in words) + f"); COMP_CWORD={len(words) - 1}; _nudge_rag"
        run = ["bash", "-c", f"source completion.bash; {line}; printf '%s\\n' \"${{COMPREPLY[@]}}\""]
        return subprocess.run(run, capture_output=True, text=True, check=True, cwd=tmp_path).stdout.split()

    assert complete("nudge-rag", "ro") == ["rollback"]
    assert complete("nudge-rag", "pairs", "co") == ["convert"]
    assert "--dry-run" in complete("nudge-rag", "push", "x", "--d")
    assert complete("nudge-rag", "completion", "z") == ["zsh"]
    assert complete("nudge-rag", "completi") == ["completion"]
    assert complete("nudge-rag", "status", "comple") == ["completion.bash"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_name_every_command(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for name in ("tune", "rollback", "inspect", "completion"):
        assert re.search(rf"\b{name}\b", script)


FRAMEWORK = """
import shop
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore

class Model(Embeddings):
    def embed_documents(self, texts):
        return shop.embed(texts).tolist()

    def embed_query(self, text):
        return self.embed_documents([text])[0]

store = InMemoryVectorStore(Model())
store.add_documents(
    [Document(id=node, page_content=text, metadata={"source": f"{node}.html"}) for node, text in shop.texts().items()]
)
"""


@pytest.fixture
def with_langchain(command):
    """The command, in forks of a process that has imported LangChain."""
    command.parent = ForkingParent("langchain_core.documents", "langchain_core.vectorstores", "langchain_nudge")
    yield command
    command.parent.stop()


def test_a_store_in_memory_is_pushed_to_only_with_its_file(with_langchain, application, tmp_path):
    command = with_langchain
    (tmp_path / "framework.py").write_text(FRAMEWORK)
    filed = """
import os
from langchain_nudge import embedding_store
if not os.path.exists("store.json"):
    store.dump("store.json")
store = embedding_store(InMemoryVectorStore.load("store.json", Model()), persist_path="store.json")
"""
    (tmp_path / "filed.py").write_text(FRAMEWORK + filed)
    assert command("tune", "framework:store", *TUNE, "--push", "--yes").returncode == 2
    command.answer("tune", "filed:store", *TUNE, "-o", "nudge")
    refused = command("push", "framework:store", "nudge", "--yes")
    assert (refused.returncode, "would end with this command" in refused.stderr) == (2, True)
    assert command.answer("push", "filed:store", "nudge", "--yes")["written"] == 48
    assert len(command.answer("status", "filed:store")["nudged"]) == 48
    assert command.answer("drop-copies", "filed:store", "--yes", code=1) == {"dropped": []}
    assert command.answer("push", "filed:store", "nudge", "--side-by-side", "--yes")["version"] == "0002"
    assert command.answer("drop-copies", "filed:store", "--dry-run") == {"would_drop": ["0002"]}
    assert command.answer("status", "filed:store")["ready"] == "0002"
    assert command.answer("drop-copies", "filed:store", "--yes") == {"dropped": ["0002"]}
    assert command.answer("drop-copies", "filed:store", "--dry-run") == {"would_drop": []}
    assert command.answer("status", "filed:store")["ready"] is None
    assert len(command.answer("status", "filed:store")["nudged"]) == 48


def test_labels_and_nudges_survive_new_ids(command, application, tmp_path):
    rows = [json.dumps({"_id": node, "text": text}) for node, text in shop.texts().items()]
    (tmp_path / "texts.jsonl").write_text("\n".join(rows), encoding="utf-8")
    command.answer("tune", application, *TUNE, "--texts", "texts.jsonl", "--push", "--yes")
    shop.rebuild(tmp_path)
    assert command.answer("reapply", application, "--yes", code=1) == {"written": []}
    found = command.answer("reapply", application, "--texts", "v2-texts.jsonl", "--dry-run")
    assert (found["would_write"], len(found["would_look_for"])) == ([], 48)
    written = command.answer("reapply", application, "--texts", "v2-texts.jsonl", "--model", "shop:embed", "--yes")
    assert set(written["written"]) == {f"v2-{node}" for node in shop.texts()}
    assert command.answer("status", application, "--texts", "v2-texts.jsonl")["edited"] == []
    tuned = command.answer("tune", application, *TUNE, "--texts", "v2-texts.jsonl", "--push", "--yes", "--force")
    assert tuned["nodes"] == 48
    assert command.answer("reapply", application, "--texts", "nowhere.jsonl", "--yes", code=2)


def test_labels_that_name_documents_go_to_their_chunks(command, application, tmp_path):
    (tmp_path / "pages.py").write_text(
        "def documents(ids):\n    return [f'{node}.html' for node in ids]\n\ndef texts(ids):\n    return list(ids)\n"
    )
    clicks = (tmp_path / "clicks.csv").read_text().splitlines()
    pages = [
        clicks[0],
        *(f"{query},{node}.html,{grade}" for query, node, grade in (row.split(",") for row in clicks[1:])),
    ]
    (tmp_path / "pages.csv").write_text("\n".join(pages))
    options = ("pages.csv", *TUNE[1:])
    assert command("tune", application, *options).returncode == 2
    tuned = command.answer("tune", application, *options, "--documents", "pages:documents", "--texts", "pages:texts")
    assert (tuned["nodes"], tuned["improves"]) == (48, True)
    (tmp_path / "framework.py").write_text(FRAMEWORK)
    own = command.answer("tune", "framework:store", *options)
    assert (own["nodes"], own["improves"]) == (48, True), "a framework's store knows its own"
    refused = command("tune", application, *options, "--documents", "pages:lost")
    assert (refused.returncode, "--documents 'pages:lost' cannot be imported" in refused.stderr) == (2, True)
