"""Rights (ACLs) for users of brokers with passwords: one request, since the client library offers none.

The request is CreateAcls, version 1, the oldest that Kafka 4 takes; codes are those of Kafka's
`AclOperation`, `ResourceType` and `PatternType`.
"""

import socket
import struct
from dataclasses import dataclass

from engines.process import EngineError

RESOURCES = {"topic": 2, "group": 3, "cluster": 4, "transactional-id": 5}
OPERATIONS = {
    "all": 2,
    "read": 3,
    "write": 4,
    "create": 5,
    "delete": 6,
    "alter": 7,
    "describe": 8,
    "cluster-action": 9,
    "describe-configs": 10,
    "alter-configs": 11,
    "idempotent-write": 12,
}
_CREATE_ACLS, _VERSION, _ALLOW, _LITERAL, _PREFIXED = 30, 1, 3, 3, 4


@dataclass(frozen=True, slots=True)
class Right:
    """What may be done with which resource; a name that ends in `*` stands for all that begin so."""

    resource: str
    name: str
    operations: tuple[str, ...]


def allow(port: int, user: str, rights: tuple[Right, ...]) -> None:
    """Give a user these rights, over a listener where one may."""
    wanted = [(right, operation) for right in rights for operation in right.operations]
    body = struct.pack(">i", len(wanted)) + b"".join(_acl(user, *one) for one in wanted)
    header = struct.pack(">hhi", _CREATE_ACLS, _VERSION, 1) + _text("transom-engines")
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(struct.pack(">i", len(header + body)) + header + body)
        (size,) = struct.unpack(">i", _exactly(connection, 4))
        answer = _exactly(connection, size)
    # Correlation id, throttle time, number of answers; each an error code and a nullable message.
    place = 12
    for right, operation in wanted:
        code, length = struct.unpack_from(">hh", answer, place)
        place += 4 + max(0, length)
        if code:
            said = answer[place - max(0, length) : place].decode()
            raise EngineError(f"{user} was not allowed to {operation} {right.name}: error {code}, {said}")


def _acl(user: str, right: Right, operation: str) -> bytes:
    wild = right.name.endswith("*") and right.name != "*"
    return (
        struct.pack(">b", RESOURCES[right.resource])
        + _text(right.name.removesuffix("*") if wild else right.name)
        + struct.pack(">b", _PREFIXED if wild else _LITERAL)
        + _text(f"User:{user}")
        + _text("*")
        + struct.pack(">bb", OPERATIONS[operation], _ALLOW)
    )


def _text(words: str) -> bytes:
    return struct.pack(">h", len(words.encode())) + words.encode()


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = connection.recv(size - len(data))
        if not chunk:
            raise EngineError("the broker closed the connection: it knows no such request")
        data += chunk
    return data
