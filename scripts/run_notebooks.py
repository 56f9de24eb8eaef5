"""Run notebooks and store their outputs: ``python scripts/run_notebooks.py [NAME ...]``.

A stored notebook says which code its outputs came from, so that a test can tell outputs that are out of date. What only
belongs to one machine is left out: times, and what goes to the standard error stream.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["FOLDER", "digest_of", "execute", "store_outputs"]

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"


def digest_of(notebook: Any) -> str:
    """Return a checksum of the code of a notebook."""
    code = "\0".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()


def execute(path: Path, folder: str) -> Any:
    """Return the notebook at ``path`` with the outputs of a run in ``folder``.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=300, record_timing=False, resources={"metadata": {"path": folder}})
    client.execute()
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "outputs_of": digest_of(notebook),
    }
    return notebook


def store_outputs(path: Path) -> None:
    """Run one notebook and write it back with its outputs."""
    import nbformat

    with tempfile.TemporaryDirectory() as folder:
        notebook = execute(path, folder)
    nbformat.write(notebook, path)


def main() -> None:
    """Run the notebooks that are named, or all."""
    parser = argparse.ArgumentParser(description="Run notebooks and store their outputs.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as langchain; all of them by default")
    names = parser.parse_args().names or sorted(path.stem for path in FOLDER.glob("*.ipynb"))
    for name in names:
        store_outputs(FOLDER / f"{name}.ipynb")
        sys.stdout.write(f"{name} runs\n")


if __name__ == "__main__":
    main()
