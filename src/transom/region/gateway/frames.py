"""Where the frames of a WebSocket begin and end (RFC 6455 5.2), as far as one must know to add one. Pure."""

CLOSED_BY_POLICY = b"\x88\x02\x03\xf0"
"""The frame that closes with 1008: what was agreed to at the beginning holds no more (RFC 6455 7.4.1)."""

_LENGTH = 0x7F
_MASKED = 0x80
_WIDTHS = {126: 2, 127: 8}


class Frames:
    """Follows a stream of frames; `between` is whether one ended with the last byte."""

    def __init__(self) -> None:
        self._head = b""
        self._left = 0

    @property
    def between(self) -> bool:
        """Whether another frame may begin here."""
        return not self._head and not self._left

    def follow(self, data: bytes) -> None:
        """These bytes come next."""
        at = 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
            else:
                step = _missing(self._head)
                self._head += data[at : at + step]
                if not _missing(self._head):
                    self._left, self._head = _payload(self._head), b""
            at += step


def _width(head: bytes) -> int:
    return _WIDTHS.get(head[1] & _LENGTH, 0)


def _missing(head: bytes) -> int:
    """How many bytes a frame's head lacks, as far as it can be told: its second byte says how long it is."""
    if len(head) < 2:  # noqa: PLR2004
        return 2 - len(head)
    return 2 + _width(head) + (4 if head[1] & _MASKED else 0) - len(head)


def _payload(head: bytes) -> int:
    width = _width(head)
    return int.from_bytes(head[2 : 2 + width]) if width else head[1] & _LENGTH
