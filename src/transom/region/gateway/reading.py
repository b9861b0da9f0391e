"""Reading a client's requests: bytes in, requests and pieces of their bodies out. Base of `connection`.

Nothing here is unbounded: a head, the headers in it, what surrounds a body's data, the body itself and the
requests that one read holds all have their limit, and the first thing that cannot be understood ends the
reading for good.
"""

import asyncio

import httptools

from transom.region.gateway.front import RefusedError
from transom.region.gateway.http1 import Headers, Request, request_of
from transom.region.gateway.limits import GatewayLimits


class Reader(asyncio.Protocol):
    """Parses requests. What becomes of them is the subclass's: `_came`, `_piece`, `_end_of`, `_break`."""

    def __init__(self, limits: GatewayLimits) -> None:
        self._limits = limits
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: Headers = []
        self._in_head = True
        self._head_bytes = 0  # of a head that is not complete, without the read being looked at
        self._overhead = 0  # of the present body: what is not its data
        self._read_bytes = 0
        self._heads_read = 0
        self._receiving: Request | None = None
        self._deaf = False
        """Whatever comes is not looked at any more."""
        self._last_seen = False
        """No request follows the one being read."""

    def _came(self, request: Request) -> None:
        """A head is complete."""

    def _piece(self, request: Request, data: bytes) -> None:
        """A piece of a body has come."""

    def _end_of(self, request: Request) -> None:
        """A body is complete."""

    def _break(self, error: RefusedError) -> None:
        """Nothing more that comes can be understood."""

    def _half_a_head(self) -> None:
        """A head has begun and is not complete."""

    def _upgrading(self, rest: bytes) -> bool:  # noqa: ARG002  # a subclass uses it
        """A request for an upgrade is followed by `rest`; whether that belongs to the upgrade."""
        return False

    def _feed(self, data: bytes) -> None:
        self._heads_read = 0
        while True:
            self._read_bytes = len(data)
            body_before = self._receiving.body_bytes if self._receiving is not None else 0
            rest = b""
            upgrade = False
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as stopped:
                upgrade, rest = True, data[stopped.args[0] :]
            except httptools.HttpParserError:
                if not self._deaf:  # else it was told to stop, or something follows "Connection: close"
                    wrong = "this is not HTTP/1.1 as it must be written"
                    self._break(RefusedError(400, "invalid_request", wrong))
                return
            if not self._heads_read and not self._deaf:
                self._count(body_before)
            if not upgrade or self._deaf or self._upgrading(rest):
                return
            # Another upgrade than to WebSocket is not granted: what follows is the next request.
            self._parser = httptools.HttpRequestParser(self)
            data = rest
            if not data:
                return

    def _count(self, body_before: int) -> None:
        """Bound what is neither a complete head nor a body's data: half a head, chunk lines, trailers."""
        receiving = self._receiving
        if receiving is not None:
            self._overhead += self._read_bytes - (receiving.body_bytes - body_before)
            if self._overhead > self._limits.head_bytes + 16 * receiving.body_bytes:
                self._break(RefusedError(400, "invalid_request", "more chunk lines or trailers than data"))
        elif self._in_head:
            if not self._head_bytes:
                self._half_a_head()
            self._head_bytes += self._read_bytes
            if self._head_bytes > self._limits.head_bytes:
                self._break(_head_too_large())

    # From the parser

    def on_url(self, url: bytes) -> None:
        """The target, or a piece of it."""
        if self._in_head:
            self._target += url
        else:
            self._in_head, self._target = True, url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; or a trailer, which is dropped."""
        if self._in_head:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """A head is complete."""
        if self._deaf:
            raise too_large(self._limits)  # nobody hears it: it stops the parser
        headers, target = self._headers, self._target
        self._headers, self._target, self._in_head = [], b"", False
        self._heads_read += 1
        limits = self._limits
        try:
            if len(headers) > limits.headers_max or self._head_bytes + self._read_bytes > limits.head_bytes:
                _check_size(target, headers, limits)
            request = request_of(self._parser.get_method(), target, headers, self._parser)
        except RefusedError as error:
            self._break(error)
            raise  # stops the parser
        self._head_bytes = self._overhead = 0
        if request.has_body:
            self._receiving = request
        if not request.keep_alive or self._heads_read >= limits.pipelined_max:
            self._last_seen, request.keep_alive = True, False
            self._deaf = not request.has_body and not request.upgrade
        self._came(request)

    def on_body(self, data: bytes) -> None:
        """A piece of a request's body."""
        request = self._receiving
        if request is None or self._deaf:
            return
        request.body_bytes += len(data)
        if request.body_bytes > self._limits.body_bytes:
            self._break(too_large(self._limits))
        else:
            self._piece(request, data)

    def on_message_complete(self) -> None:
        """A request is complete."""
        request, self._receiving = self._receiving, None
        if request is None or self._deaf:
            return
        request.complete = True
        self._deaf = self._last_seen
        self._end_of(request)


def _check_size(target: bytes, headers: Headers, limits: GatewayLimits) -> None:
    if len(headers) > limits.headers_max:
        raise RefusedError(431, "invalid_request", f"more than {limits.headers_max} headers")
    if len(target) + sum(len(name) + len(value) + 4 for name, value in headers) > limits.head_bytes:
        raise _head_too_large()


def _head_too_large() -> RefusedError:
    return RefusedError(431, "invalid_request", "the request's head is too large")


def too_large(limits: GatewayLimits) -> RefusedError:
    """The refusal of a body that is too large."""
    return RefusedError(413, "too_large", f"the body is over {limits.body_bytes} bytes")
