"""Fixtures of tests that need numpy alone."""

from __future__ import annotations

from tests.support.little_auto import little_auto

__all__ = ["little_auto"]
