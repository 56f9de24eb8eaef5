"""one_blas_thread: one thread while it lasts, and as many as before afterwards."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest

from nudge_rag.common import blas_threads
from nudge_rag.common.blas_threads import count_threads, map_in_threads, one_blas_thread, threads_to_map

threadpoolctl = pytest.importorskip("threadpoolctl")


@pytest.fixture(autouse=True)
def libraries_are_looked_for_anew():
    blas_threads._libraries.cache_clear()
    yield
    blas_threads._libraries.cache_clear()


def counts():
    assert (np.eye(2) @ np.ones(2)).all()  # numpy's library is loaded
    return [library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]


def looker():
    """A function that two threads have to be in at once: neither waits for the other to end."""
    barrier = threading.Barrier(2)

    def look(item):
        barrier.wait(10)
        return item, threading.get_ident(), counts()

    return look


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


def test_threads_have_linear_algebra_of_one_thread_each():
    look = looker()

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        found = map_in_threads(look, ["a", "b"], count_threads(blas_threads.WORTH_THREADS))
        assert set(counts()) == {2}
    assert [item for item, _, _ in found] == ["a", "b"]
    assert len({thread for _, thread, _ in found}) == 2
    assert {number for _, _, numbers in found for number in numbers} == {1}


def test_threads_stay_while_the_context_lasts_and_each_has_linear_algebra_of_one_thread():
    look = looker()

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        with threads_to_map(2) as share:
            first, second = list(share(look, ["a", "b"])), list(share(look, ["c", "d"]))
            assert set(counts()) == {1}
        assert set(counts()) == {2}
        with threads_to_map(1) as share:
            assert share is map
            assert set(counts()) == {2}
    assert [item for item, _, _ in first + second] == ["a", "b", "c", "d"]
    assert {thread for _, thread, _ in first} == {thread for _, thread, _ in second}
    assert {number for _, _, numbers in first + second for number in numbers} == {1}


def test_numpy_treats_errors_in_threads_as_it_does_here():
    def divide(item):
        return float(np.float64(item) / np.float64(0))

    with threads_to_map(2) as share:
        with np.errstate(divide="ignore"), warnings.catch_warnings():
            warnings.simplefilter("error")
            assert list(share(divide, [1, -1])) == [np.inf, -np.inf]
        with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
            list(share(divide, [1, -1]))


def test_results_that_nobody_asks_for_yet_do_not_pile_up():
    begun = []

    def look(item):
        begun.append(item)
        return item

    with threads_to_map(2) as share:
        for number, item in enumerate(share(look, range(100))):
            time.sleep(0.001)  # the others would be done long ago
            assert item == number
            assert len(begun) <= number + 2 * blas_threads.AHEAD


def test_after_an_error_nothing_more_is_begun_and_no_thread_is_left():
    begun, before = [], threading.active_count()

    def look(item):
        begun.append(item)
        time.sleep(0.01)

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        with pytest.raises(KeyboardInterrupt), threads_to_map(2) as share:
            for _ in share(look, range(100)):
                raise KeyboardInterrupt
        assert set(counts()) == {2}
    assert len(begun) <= 2 * blas_threads.AHEAD
    assert threading.active_count() == before


def test_this_thread_does_the_work_if_no_other_can_be_started(monkeypatch):
    here = threading.get_ident()

    def refuse(self):
        raise RuntimeError("can't start new thread")

    def look(item):
        if item == 3:
            raise ValueError(f"item {item}")
        return item, threading.get_ident()

    with threads_to_map(2) as share:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        assert list(share(look, [1, 2])) == [(1, here), (2, here)]
        with pytest.raises(ValueError, match="item 3"):
            list(share(look, [1, 2, 3, 4]))


@pytest.mark.parametrize("imported", ["import concurrent.futures.thread", "pass"])
def test_threads_are_asked_for_while_the_interpreter_ends(imported):
    code = f"""
import atexit
from nudge_rag.common.blas_threads import map_in_threads
{imported}
atexit.register(lambda: print(map_in_threads(lambda item: item**2, [1, 2, 3], 2)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("[1, 4, 9]", "")


def test_little_work_and_one_thread_of_linear_algebra_stay_here():
    here = threading.get_ident()
    for work, limit in ((blas_threads.WORTH_THREADS - 1, 2), (blas_threads.WORTH_THREADS, 1)):
        with threadpoolctl.threadpool_limits(limit, user_api="blas"):
            assert count_threads(work) == 1
    assert map_in_threads(lambda item: (item, threading.get_ident()), [1, 2], 1) == [(1, here), (2, here)]


def test_the_first_item_that_fails_is_raised():
    def fail(item):
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 1"):
        map_in_threads(fail, [1, 2], 2)


def test_without_threadpoolctl_there_is_one_thread(monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    assert count_threads(blas_threads.WORTH_THREADS) == 1


def test_libraries_are_looked_for_again_once_more_modules_are_loaded(monkeypatch):
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        assert count_threads(blas_threads.WORTH_THREADS) == 2
        monkeypatch.setattr(threadpoolctl, "ThreadpoolController", NoLibraries)
        assert count_threads(blas_threads.WORTH_THREADS) == 2
        monkeypatch.setitem(sys.modules, "nudge_rag_test_of_libraries", sys)
        assert count_threads(blas_threads.WORTH_THREADS) == 1


class NoLibraries:
    def info(self):
        return []
