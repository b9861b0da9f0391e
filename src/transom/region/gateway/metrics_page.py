"""A gateway's metrics, for whoever watches over it: on an address of their own, which no client reaches.

They say how much is asked, refused and broken, and asking for them costs more than any request.
"""

from transom.runtime.http import Receive, Scope, Send
from transom.runtime.telemetry import exposition

PATH = "/metrics"


async def metrics_page(scope: Scope, _receive: Receive, send: Send) -> None:
    """ASGI: `GET /metrics` in Prometheus' text format, and nothing else."""
    if scope["type"] != "http":
        return
    is_there = scope["path"] == PATH and scope["method"] in {"GET", "HEAD"}
    body = exposition() if is_there else b"the metrics are at /metrics\n"
    kind = b"text/plain; version=0.0.4" if is_there else b"text/plain"
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200 if is_there else 404, "headers": headers})
    await send({"type": "http.response.body", "body": body})
