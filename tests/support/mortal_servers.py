"""Database servers that are killed with SIGKILL and started again over the same files, at the same address."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import psutil
import psycopg

from tests.support.builders import chroma
from tests.support.builders.postgres import new_server
from tests.support.killed_worker import Steps


class MortalServer(Protocol):
    """A real server."""

    address: Any

    def kill(self) -> None:
        """SIGKILL to all of its processes; returns when they are gone."""

    def start(self) -> None:
        """Start it again; returns when it answers."""

    def stop(self) -> None:
        """For good."""


class MortalPostgres:
    """Started by ourselves: pg_ctl leaves it to process 1, where a dead one may count as alive for a while."""

    def __init__(self, folder: Path) -> None:
        self.files = new_server(start=False)
        self.port = chroma.free_port()
        self.address = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self.start()
        with psycopg.connect(self.address, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")

    def start(self) -> None:
        command = [str(self.files.bin_path / "postgres"), "-D", str(self.files.pgdata), "-k", "", "-h", "127.0.0.1"]
        user = self.files.system_user  # PostgreSQL does not run as root
        self.process = subprocess.Popen(
            [*command, "-p", str(self.port)], user=user, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(self.answers, "PostgreSQL does not answer")

    def answers(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"postgres ended with status {self.process.returncode}")
        try:
            psycopg.connect(self.address, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def kill(self) -> None:
        backends = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.wait()
        for backend in backends:
            with contextlib.suppress(psutil.NoSuchProcess):
                backend.kill()
        wait_until(lambda: not any(is_alive(backend) for backend in backends), f"these do not die: {backends}")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)  # SIGTERM waits for those who are connected
        self.process.wait(timeout=30)
        shutil.rmtree(self.files.pgdata, ignore_errors=True)


class MortalChroma:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process, self.address = chroma.start_server(folder)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def start(self) -> None:
        self.process, _ = chroma.start_server(self.folder, self.address)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)


SERVERS = {"postgres": MortalPostgres, "chroma-server": MortalChroma}


def wait_until(happens: Callable[[], bool], message: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not happens():
        if time.monotonic() > deadline:
            raise RuntimeError(message)
        time.sleep(0.02)


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class ServerSteps(Steps):
    """Kills a server, and not its own process, at its n-th step; starts it again where it is to be back at once."""

    def __init__(self, left: int, server: MortalServer, back: bool) -> None:
        super().__init__(left)
        self.server, self.back = server, back

    def step(self) -> None:
        self.counted += 1
        if self.left == 0:
            self.server.kill()
            if self.back:
                self.server.start()
        self.left -= 1

    @property
    def killed(self) -> bool:
        return self.left < 0
