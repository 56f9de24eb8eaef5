"""The notebooks run from the first cell to the last, show what they promise, and are stored with their outputs."""

from __future__ import annotations

import base64
import os
import re
import socket
import struct

import nbformat
import pytest

from scripts.run_notebooks import FOLDER, digest_of, execute

# What each notebook prints, and how many plots it has.
PROMISES = {
    "clicks_to_pairs": (["position bias: estimated from", "every click:", "corrected:", "the truth:"], 2),
    "langchain": (["uncovered", "overlay and push agree on", "bit for bit: True"], 2),
    "llama_index": (["uncovered", "overlay and push agree on", "bit for bit: True"], 2),
    "new_documents": (["uncovered:", "new:", "map"], 1),
    "paper": (["NUDGE-M: the same with the filter: True", "NUDGE-N: the same with the filter: True"], 1),
    "push_and_rollback": (
        ["5 lost, 1 changed, 1 missing", "bit for bit: True", "other writer's vector stands: True"],
        1,
    ),
    "reading_the_report": (["Push: nDCG@10", "uncovered", "kB"], 5),
    "when_not_to_nudge": (["Do not push", "pushed: False", "are not in the store", "interval includes 0"], 1),
}
LARGEST = 250_000
# Their stored outputs are of 1,000 sentences or more, by which the time grows: `make notebooks`.
SENTENCES = int(os.environ.get("NUDGE_RAG_NOTEBOOK_SENTENCES", "300"))
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|usr|var|opt|mnt|Users|work)\b")


def outputs_of(notebook):
    """Everything that is printed, and the plots."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    texts = [output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs]
    plots = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    return "\n".join(texts), plots


def check(name, notebook):
    phrases, n_plots = PROMISES[name]
    text, plots = outputs_of(notebook)
    assert [phrase for phrase in phrases if phrase not in text] == []
    assert len(plots) == n_plots


def test_every_notebook_is_tested():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(PROMISES)


@pytest.mark.parametrize("name", PROMISES)
def test_the_stored_outputs_are_those_of_the_code(name):
    path = FOLDER / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata["outputs_of"] == digest_of(notebook), f"run: python scripts/run_notebooks.py {name}"
    check(name, notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert path.stat().st_size < LARGEST
    text, plots = outputs_of(notebook)
    assert not ABSOLUTE_PATH.search(text)
    assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", text)
    for plot in plots:
        width, height = struct.unpack(">II", base64.b64decode(plot)[16:24])
        assert width <= 640
        assert height <= 480


@pytest.mark.slow
@pytest.mark.parametrize("name", PROMISES)
def test_a_notebook_runs(name, tmp_path, monkeypatch):
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(variable, "1")
    code, n_samples = re.subn(
        r"\.sample\(\d+\)", f".sample({SENTENCES})", (FOLDER / f"{name}.ipynb").read_text("utf-8")
    )
    assert n_samples == 1
    (tmp_path / "shorter.ipynb").write_text(code, "utf-8")
    check(name, execute(tmp_path / "shorter.ipynb", str(tmp_path)))
