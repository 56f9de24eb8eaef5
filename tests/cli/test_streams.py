"""Standard output and error as they come: closed, full, read in part, of another encoding, and written to by others."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from nudge_rag.cli import main
from nudge_rag.cli.streams import as_document, as_plain, show_lines
from tests.cli.conftest import COMMAND, FOLDER

HOSTILE = "caf\xe9 \x1b[2J\u202e\x9b31m"


def shell(folder, script, **environment):
    """Run a line of bash in which $RUN is the command."""
    path = os.pathsep.join([str(FOLDER), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "RUN_CODE": COMMAND[2], "TERM": "xterm", **environment}
    environment.pop("CI", None)
    run = ["bash", "-c", f'RUN() {{ "{sys.executable}" -c "$RUN_CODE" "$@"; }}; {script}']
    return subprocess.run(run, capture_output=True, cwd=folder, env=environment, check=False)


@pytest.fixture
def hostile(tmp_path):
    (tmp_path / "hostile.csv").write_text(f"query,node_id\n{HOSTILE} one,a\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("options", ["", "--json"])
@pytest.mark.parametrize(
    ("where", "why"),
    [(">&-", "it is closed"), (">/dev/full", "No space left on device"), ("2>&-", None), ("|true", None)],
)
def test_an_answer_that_nobody_can_get_is_an_error(hostile, where, why, options):
    found = shell(hostile, f"set -o pipefail; RUN pairs inspect hostile.csv {options} {where}")
    error = found.stderr.decode()
    assert "Traceback" not in error
    assert "Exception ignored" not in error
    assert found.returncode == (3 if why else 0)
    assert (f"nudge-rag: the answer cannot be written to standard output: {why}" in error) == bool(why)


def test_without_standard_input_nobody_is_asked(command, application, tmp_path):
    command.answer("tune", application, "clicks.csv", "--model", "shop:embed", "--solver", "nudge-n", "-o", "nudge")
    found = shell(tmp_path, f"RUN push '{application}' nudge <&-")
    assert found.returncode == 2
    assert b"Nobody can be asked here: pass --yes" in found.stderr


def test_a_reader_that_left_does_not_change_how_a_command_ends(hostile):
    found = shell(hostile, "RUN tune nonsense hostile.csv --model x --json | true; exit ${PIPESTATUS[0]}")
    assert found.returncode == 2
    assert b"Traceback" not in found.stderr
    assert shell(hostile, "set -o pipefail; RUN --help | true").returncode == 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_signs_that_the_encoding_lacks_are_escapes(hostile, encoding):
    name = "\u6f22\udcff.csv"
    script = "cp hostile.csv $'\\346\\274\\242\\377.csv'; RUN pairs convert *[^e].csv out.jsonl --json"
    found = shell(hostile, script, PYTHONIOENCODING=encoding)
    assert found.returncode == 0, found.stderr
    document = json.loads(found.stdout.decode(encoding))
    assert document["result"]["files"] == {"out.jsonl": {"queries": 1, "pairs": 1}}
    missing = shell(
        hostile,
        "RUN pairs inspect $'\\346\\274\\242\\376.csv'; RUN pairs inspect $'\\376' --json",
        PYTHONIOENCODING=encoding,
    )
    assert b"Traceback" not in missing.stderr
    assert missing.returncode == 2
    assert json.loads(missing.stdout)["error"]["message"].startswith("there is no file or folder \udcfe")
    assert name


def test_what_others_print_is_not_part_of_the_document(hostile, tmp_path):
    (tmp_path / "noisy.py").write_text("print('loading the model')\nstore = 3\n")
    found = shell(hostile, "RUN status noisy:store --json")
    assert json.loads(found.stdout)["exit_code"] == found.returncode == 2
    assert b"loading the model" in found.stderr


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("import sys; sys.exit('no licence')", "SystemExit"),
        ("import asyncio; raise asyncio.CancelledError('gone')", "CancelledError"),
        ("class PanicException(BaseException): ...\nraise PanicException('a thread of Rust')", "PanicException"),
        ("{}['absent']", "KeyError"),
    ],
)
def test_whatever_the_users_code_raises_is_one_line_and_a_document(tmp_path, monkeypatch, capsys, code, kind):
    (tmp_path / "raising.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["status", "raising:store", "--json"]) == 3
    shown = capsys.readouterr()
    assert json.loads(shown.out)["error"]["type"] == kind
    assert f"nudge-rag: {kind}: " in shown.err
    assert len(shown.err.splitlines()) == 1


def test_an_abbreviated_option_that_cannot_be_parsed_is_answered_by_a_document(capsys):
    assert main(["status", "--js"]) == 2
    assert "required: STORE" in json.loads(capsys.readouterr().out)["error"]["message"]


def test_nothing_that_is_shown_is_obeyed_by_a_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["pairs", "inspect", HOSTILE, "--json"]) == 2
    shown = capsys.readouterr()
    for text in (shown.out, shown.err):
        assert not {"\x1b", "\u202e", "\x9b"} & set(text)
    assert HOSTILE in json.loads(shown.out)["error"]["message"]
    assert show_lines("two\nlines\x07") == "two\nlines\\x07"


def test_a_secret_that_is_a_word_of_the_document_hides_texts_and_no_fields(monkeypatch, capsys):
    monkeypatch.setenv("DB_PASSWORD", "message")
    assert main(["status", "message-of-mine", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert "got '***-of-mine'" in error["message"]


def test_documents_hold_what_json_knows():
    plain = as_plain({"a": float("nan"), "b": [float("inf"), 1.5, True], "two words": ("x",)}, str.upper)
    assert plain == {"a": None, "b": [None, 1.5, True], "TWO WORDS": ["X"]}
    assert json.loads(as_document({"half": "\ud800", "right": "\u200f"})) == {"half": "\ud800", "right": "\u200f"}
    assert as_document({"half": "\ud800", "right": "\u200f"}).isascii()
