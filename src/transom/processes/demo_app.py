"""A tiny HTTP app for the demo and the tests: it says where it runs, and ends fast on SIGTERM.

It stands on the standard library alone and starts in a few hundredths of a second.
"""

import json
import os
import signal
import socketserver
import sys
from http.server import BaseHTTPRequestHandler
from types import FrameType
from typing import Any


class Answer(BaseHTTPRequestHandler):
    """GET / says who answers; GET /pid is the process alone; GET /healthz is "ok"."""

    protocol_version = "HTTP/1.1"  # connections are kept

    def do_GET(self) -> None:
        """Answer."""
        if self.path == "/healthz":
            self._send(200, {"status": "ok"})
        elif self.path == "/pid":
            self._send(200, os.getpid())
        elif self.path == "/":
            names = ("region", "zone", "version", "instance")
            about: dict[str, Any] = {name: os.environ.get(f"TRANSOM_{name.upper()}", "") for name in names}
            self._send(200, {**about, "pid": os.getpid()})
        else:
            self._send(404, {"error": f"there is no {self.path}; try /"})

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name that http.server gives it
        """Health checks every second are not worth a line."""

    def _send(self, status: int, body: dict[str, Any] | int) -> None:
        data = json.dumps(body).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """One thread a connection; none of them keeps the process from ending."""

    daemon_threads = True
    request_queue_size = 128  # whoever asks often must not wait for a second try to connect
    allow_reuse_address = True


def _end(_signal: int, _frame: FrameType | None) -> None:
    os._exit(0)


def main() -> None:
    """Serve on 127.0.0.1, port $PORT, until SIGTERM."""
    signal.signal(signal.SIGTERM, _end)
    port = int(os.environ.get("PORT", "0"))
    with Server(("127.0.0.1", port), Answer) as server:
        print(f"listening on port {server.server_address[1]}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            sys.exit(130)


if __name__ == "__main__":
    main()
