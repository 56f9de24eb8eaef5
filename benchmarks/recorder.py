"""Load on the recorder: processes that record and are killed, and what recording adds to a retrieval.

    python -m benchmarks.recorder [--seconds 60] [--processes 4] [--rate 500]

Prints events that were acknowledged and lost, and the median and 99th percentile of what one event takes.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from nudge_rag.feedback.recorder import Recorder

WORKER = Path(__file__).parents[1] / "tests" / "support" / "recording_worker.py"


class Worker:
    """A recording process, and the events that it acknowledged."""

    def __init__(self, path: Path, name: str, rate: float) -> None:
        command = [sys.executable, str(WORKER), str(path), name, str(rate)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.acknowledged: dict[str, float] = {}
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            if line.endswith("\n"):
                query_id, seconds = line.split()
                self.acknowledged[query_id] = float(seconds)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._reader.join()


def load(folder: Path, seconds: float, processes: int, rate: float) -> tuple[dict[str, float], int, int]:
    """Record for so long, killing a process about every two seconds; return events acknowledged, lost, and kills."""
    path = folder / "feedback.sqlite3"
    running = [Worker(path, f"{number}", rate) for number in range(processes)]
    while not all(worker.acknowledged for worker in running):
        time.sleep(0.05)
    ended: list[Worker] = []
    end = time.monotonic() + seconds
    draw = random.Random(0)
    while time.monotonic() < end:
        time.sleep(draw.uniform(1, 3))
        victim = draw.randrange(processes)
        running[victim].kill()
        ended.append(running[victim])
        running[victim] = Worker(path, f"{processes + len(ended)}", rate)
    for worker in running:
        worker.kill()
    acknowledged = {key: value for worker in (*ended, *running) for key, value in worker.acknowledged.items()}
    recorder = Recorder(path)
    check = recorder.check()
    there = {retrieval.query_id for retrieval in recorder.log().retrievals}
    recorder.close()
    print(check)
    return acknowledged, len(acknowledged.keys() - there), len(ended) + processes


def overhead(folder: Path, events: int = 5_000, pause: float = 0.002) -> np.ndarray:
    """Return the seconds that recording takes in one process that is not alone on the machine."""
    recorder = Recorder(folder / "alone.sqlite3")
    shown = [(f"node-{number}", 1 / (number + 1)) for number in range(10)]
    taken = []
    for number in range(events):
        begin = time.perf_counter()
        recorder.record(f"question {number}", shown)
        taken.append(time.perf_counter() - begin)
        time.sleep(pause)
    recorder.close()
    return np.array(taken)


def control(seconds: float, events: int = 5_000, pause: float = 0.002) -> np.ndarray:
    """Return the seconds of a loop that needs ``seconds`` of processor time: what the machine's other work adds."""
    taken = []
    for _ in range(events):
        begin, used = time.perf_counter(), time.thread_time()
        while time.thread_time() - used < seconds:
            pass
        taken.append(time.perf_counter() - begin)
        time.sleep(pause)
    return np.array(taken)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--rate", type=float, default=500)
    parser.add_argument("--folder", type=Path, default=None, help="where the file is written")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        alone = 1000 * np.quantile(overhead(Path(folder)), [0.5, 0.99])
        print(f"one process: {alone[0]:.3f} ms an event (median), {alone[1]:.3f} ms (99th percentile)")
        idle = 1000 * np.quantile(control(alone[0] / 1000), [0.5, 0.99])
        print(f"a loop of that length: {idle[0]:.3f} ms (median), {idle[1]:.3f} ms (99th percentile)")
        acknowledged, lost, kills = load(Path(folder), given.seconds, given.processes, given.rate)
        taken = 1000 * np.quantile(list(acknowledged.values()), [0.5, 0.99])
        print(
            f"{given.processes} processes x {given.rate:g} events/s for {given.seconds:g} s, {kills} kills: "
            f"{len(acknowledged)} acknowledged, {lost} lost; {taken[0]:.3f} ms an event (median), {taken[1]:.3f} ms "
            f"(99th percentile); load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
        )


if __name__ == "__main__":
    main()
