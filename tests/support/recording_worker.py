"""A process that records until it is killed, and prints the id of each event once it is acknowledged.

Usage: recording_worker.py DATABASE NAME [EVENTS A SECOND]
"""

from __future__ import annotations

import itertools
import sys
import time

from nudge_rag.feedback.recorder import Recorder


def main(path: str, name: str, rate: str = "0") -> None:
    recorder = Recorder(path, timeout=5.0)
    begin = time.monotonic()
    for number in itertools.count():
        query_id = f"{name}-{number}"
        before = time.perf_counter()
        if recorder.record(f"question {number}", [(f"node-{n}", 1 / (n + 1)) for n in range(10)], query_id=query_id):
            seconds = time.perf_counter() - before
            sys.stdout.write(f"{query_id} {seconds:.6f}\n" if float(rate) else f"{query_id}\n")
            sys.stdout.flush()
        if float(rate):
            time.sleep(max(0.0, begin + (number + 1) / float(rate) - time.monotonic()))


if __name__ == "__main__":
    main(*sys.argv[1:])
