"""one_blas_thread: one thread while it lasts, and as many as before afterwards."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest

from nudge_rag.common.blas_threads import one_blas_thread

threadpoolctl = pytest.importorskip("threadpoolctl")


def counts():
    assert (np.eye(2) @ np.ones(2)).all()  # numpy's library is loaded
    return [library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]


def test_one_thread_while_it_lasts_and_as_before_afterwards():
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        before = counts()
        assert set(before) == {2}
        with one_blas_thread():
            assert set(counts()) == {1}
            with one_blas_thread():
                assert set(counts()) == {1}
            assert set(counts()) == {1}
        assert counts() == before
        with pytest.raises(ValueError, match="inside"), one_blas_thread():
            raise ValueError("inside")
        assert counts() == before


def test_another_thread_changes_nothing_in_between():
    entered, leave = threading.Event(), threading.Event()

    def other():
        with one_blas_thread():
            entered.set()
            leave.wait(10)

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        user = threading.Thread(target=other)
        with one_blas_thread():
            user.start()
            assert entered.wait(10)
            assert set(counts()) == {1}
        assert set(counts()) == {2}
        leave.set()
        user.join()
        assert set(counts()) == {2}
        with one_blas_thread():
            assert set(counts()) == {1}


def test_nothing_happens_without_threadpoolctl(monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        before = counts()
        with one_blas_thread():
            assert counts() == before
