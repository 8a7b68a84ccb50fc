"""The companies that the demo's processes call: a small HTTP server on loopback, which remembers every call.

It stands for an asset register, a booking desk, a supplier, a repair crew and a message service. Its work-order desk
is busy at the first call and answers 503, so that the demo shows a retry.
"""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Partner:
    """What was asked. `calls` counts what was answered, by method, path and status."""

    register: dict[str, Any]
    port: int = 0
    calls: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    keys: dict[str, set[str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def answer(self, method: str, target: str, key: str | None) -> tuple[int, dict[str, Any]]:
        """Status and body for one call; `key` is its idempotency key."""
        parts = urlsplit(target)
        with self._lock:
            status, body = self._answered(method, parts.path, parse_qs(parts.query))
            self.calls[method, parts.path, status] += 1
            if key is not None:
                self.keys.setdefault(parts.path, set()).add(key)
            return status, body

    def _answered(self, method: str, path: str, query: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        number = 1 + self.calls[method, path, 201]
        match method, path:
            case "GET", "/lamps" if query.get("customer") == [self.register["customer"]]:
                return 200, self.register
            case "POST", "/visits":
                return 201, {"visit": f"V-{number:04d}"}
            case "POST", "/orders":
                return 201, {"orderNumber": f"PO-{number:04d}"}
            case "POST", "/messages":
                return 201, {"messageId": f"M-{number:04d}"}
            case "POST", "/crews":
                return 201, {"crew": f"C-{number:04d}"}
            case "POST", "/work-orders":
                busy = not self.calls[method, path, 503]
                return (503, {"error": "busy"}) if busy else (201, {"workOrder": f"WO-{number:04d}"})
            case _:
                return 404, {"error": "not here"}


@contextmanager
def listening_partner(register: dict[str, Any]) -> Iterator[Partner]:
    """The server, on a free port, while the block runs."""
    partner = Partner(register)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._reply()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._reply()

        def log_message(self, *_: object) -> None:
            """The calls are counted instead."""

        def _reply(self) -> None:
            status, body = partner.answer(self.command, self.path, self.headers.get("Idempotency-Key"))
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        partner.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, name="partner", daemon=True)
        thread.start()
        try:
            yield partner
        finally:
            server.shutdown()
            thread.join()
