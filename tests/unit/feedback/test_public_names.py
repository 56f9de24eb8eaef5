"""The names of nudge_rag.feedback."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nudge_rag import feedback


def test_every_public_name_is_there():
    assert all(callable(getattr(feedback, name)) for name in feedback.__all__)
    assert set(feedback.__all__) <= set(dir(feedback))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        feedback.nothing  # noqa: B018


def test_importing_the_library_loads_no_recorder():
    script = "import sys, nudge_rag; print([name for name in sys.modules if 'sqlite3' in name or 'recorder' in name])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
