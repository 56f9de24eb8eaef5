"""A double of a database's REST API on loopback: a real client talks HTTP to a dictionary in this process.

For databases that cannot be run here, and for no others. A double answers as the API is documented; that the database
does so is not what its tests can show, which is why the adapters are marked experimental.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlparse


class Refused(Exception):
    """An answer with another status than 200."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Double:
    """Listens on loopback; subclasses answer a method, a path, its options and a body (JSON, or lines of JSON)."""

    headers: ClassVar[dict[str, str]] = {}

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(self))
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, method: str, path: str, options: dict[str, list[str]], body: Any) -> Any:
        raise NotImplementedError

    def terminate(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def wait(self, timeout: float) -> None:
        pass


def handler_of(double: Double) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def respond(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            parsed = urlparse(self.path)
            lines = parsed.path.endswith(("_bulk", "_msearch"))
            body = [json.loads(line) for line in raw.splitlines() if line] if lines else json.loads(raw or "null")
            with double.lock:
                double.requests.append((self.command, parsed.path))
                try:
                    status, answer = 200, double.answer(self.command, parsed.path, parse_qs(parsed.query), body)
                except Refused as refused:
                    status = refused.status
                    answer = {"error": {"type": "refused", "reason": refused.reason}, "status": status}
                except Exception as error:
                    status, answer = 501, {"error": {"type": "double", "reason": repr(error)}, "status": 501}
            sent = b"" if self.command == "HEAD" else json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {**double.headers, "Content-Length": str(len(sent))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = respond

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
