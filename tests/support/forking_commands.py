"""Run ``nudge-rag``, or other code, in forks of one process: each is a process of its own, but imports nothing anew.

A start of Python with numpy and a database's client takes a second of processor time, a fork some milliseconds. This
file is the parent as well: it imports what commands need, opens nothing, and forks one child per line of JSON.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from nudge_rag.evaluation.report.figures import draw_lines

# What commands import when they are called.
IMPORTS = (
    "concurrent.futures",
    "duckdb",
    "html",
    "ir_measures",
    "jinja2",
    "nudge_rag.cli.night",
    "nudge_rag.evaluation.report",
    "nudge_rag.feedback.recorder",
    "nudge_rag.journal.reapply",
    "nudge_rag.journal.status",
    "nudge_rag.journal.switch",
    "nudge_rag.solvers.registry",
    "nudge_rag.stores.duckdb",
    "nudge_rag.stores.urls",
    "nudge_rag.tuning.looking",
    "nudge_rag.tuning.nudge",
    "nudge_rag.tuning.options",
    "nudge_rag.tuning.report",
    "numpy.random",
    "pandas",  # by DuckDB, when it looks at a parameter
    "pytrec_eval",
    "sqlite3",
    "tomllib",
    "tqdm.auto",
)
# Threads would be lost in a fork; numpy and pyarrow, which pandas imports, start some when they are imported.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
COMMAND = "import sys; from nudge_rag.cli import main; sys.exit(main())"


class ForkingParent:
    """The parent, from the outside; started when it is first asked.

    Args:
        modules: what it imports as well.
    """

    def __init__(self, *modules: str) -> None:
        self._modules = modules
        self._parent: subprocess.Popen[str] | None = None

    def run(
        self, code: str, arguments: list[str], folder: Path, environment: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run ``code`` in a fork as ``python -c`` does, and wait for it."""
        with tempfile.TemporaryDirectory() as outputs:
            files = [str(Path(outputs) / name) for name in ("stdout", "stderr")]
            status = self.run_into(files, code, arguments, folder, environment)
            output, error = (Path(file).read_text(encoding="utf-8") for file in files)
        return subprocess.CompletedProcess(["-c", *arguments], status, output, error)

    def run_into(
        self, files: list[str], code: str, arguments: list[str], folder: Path, environment: dict[str, str]
    ) -> int:
        """Run ``code`` with these files as its standard output and error; the exit status."""
        if self._parent is None or self._parent.poll() is not None:
            # As if from a script beside nudge_rag: its folder must not come first on the children's path.
            start = f"import runpy; runpy.run_path({__file__!r}, run_name='__main__')"
            self._parent = subprocess.Popen(
                [sys.executable, "-c", start, *self._modules],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        job = {"code": code, "argv": ["-c", *arguments], "folder": str(folder), "environment": environment}
        self._parent.stdin.write(json.dumps({**job, "outputs": files}) + "\n")
        self._parent.stdin.flush()
        return int(self._parent.stdout.readline())

    def stop(self) -> None:
        """Let the parent end."""
        if self._parent is not None:
            self._parent.communicate()


def run_job(job: dict[str, Any]) -> int:
    """Run the job's code, and return the exit status that an interpreter would end with."""
    for descriptor, file in enumerate(job["outputs"], start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environment"])
    sys.argv = job["argv"]
    sys.path[:] = ["", *job["environment"].get("PYTHONPATH", "").split(os.pathsep)]
    try:
        exec(compile(job["code"], "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    for module in (*IMPORTS, *sys.argv[1:]):
        importlib.import_module(module)
    # matplotlib imports most, and finds its fonts, when it draws for the first time.
    draw_lines("warm-up", [0.0, 1.0], [0.0, 1.0], labels=("x", "y"), mark=None, log=True)
    threads = Path("/proc/self/task")
    assert not threads.exists() or len(list(threads.iterdir())) == 1, "a fork would lose threads"
    gc.freeze()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = run_job(json.loads(line))
            # As an interpreter ends, but without taking down what was imported, for which all memory would be copied.
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
