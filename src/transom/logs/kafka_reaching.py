"""Why no broker of a Kafka cluster lets us in: which address, and what is wrong there.

What somebody has to change is told from what passes by itself. Next on the data's way: `kafka_cluster`.
"""

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Mapping
from typing import Any

from aiokafka.conn import create_conn  # pyright: ignore[reportUnknownVariableType]
from aiokafka.errors import KafkaConnectionError, KafkaError, RequestTimedOutError
from aiokafka.protocol.admin import SaslHandShakeRequest

from transom.logs import kafka_api as api
from transom.logs.kafka_address import KafkaAddress
from transom.model.errors import InvalidError, Problem, UnauthorizedError, UnknownHostError
from transom.runtime.connecting import cause_of

CLIENT_ID = "transom"
"""What brokers' logs and quotas know us by."""
REQUEST_SECONDS = 10.0
"""How long an answer may take."""

FAILURES = (KafkaError, OSError, TimeoutError, RuntimeError, KeyError)
"""What a request to a broker that goes away may raise. `RuntimeError` is uvloop's word for sending on a
connection that was closed a moment ago, `KeyError` aiokafka's for one that it has dropped meanwhile.
"""

_PROBE_SECONDS = 1.0
_CLOSED = "closes the connection"
_UNKNOWN = "its host name is not known"
_NO_SUCH_NAME = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
"""What a name service says that works and knows no such name; all else may pass by itself."""


async def explain(address: KafkaAddress, access: Mapping[str, Any]) -> str:
    """Why no broker of `address` answers, broker by broker; `access` is how connections are made.

    Raises what trying again does not mend: `UnauthorizedError`, `InvalidError` (TLS), and `UnknownHostError`
    when no broker's name is known.
    """
    told = await asyncio.gather(*(_why(address, host, port, access) for host, port in address.hosts))
    reasons = [f"{place}: {why}" for place, why in zip(address.bootstrap, told, strict=True) if why]
    if all(why == _UNKNOWN for why in told):
        raise UnknownHostError(f"{'; '.join(reasons)}; correct the address, or the name service")
    return "; ".join(reasons) or "none did a moment ago"


async def why_away(host: str, port: int) -> str:
    """Why no connection to a broker can be made; empty when one can, or when that takes more than a second
    to tell.
    """
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return ""
    except OSError as error:
        return cause_of(error)
    writer.transport.abort()
    return ""


def said(error: BaseException) -> str:
    """What went wrong with a request, in words."""
    if isinstance(error, TimeoutError | RequestTimedOutError):
        return f"no answer within {REQUEST_SECONDS:g} s"
    if isinstance(error, KafkaConnectionError | RuntimeError | KeyError):
        return _CLOSED
    return str(error) or type(error).__name__


async def _why(address: KafkaAddress, host: str, port: int, access: Mapping[str, Any]) -> str:
    """Why the broker at `host` and `port` does not let us in; empty when it does."""
    try:
        connection: Any = await create_conn(host, port, client_id=CLIENT_ID, **access)
    except socket.gaierror as error:
        return _UNKNOWN if error.errno in _NO_SUCH_NAME else str(error.strerror or error).lower()
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError, KafkaConnectionError) as error:
        if getattr(error, "errno", None) != errno.ECONNREFUSED:
            await _check_transport(address, host, port, tls=address.tls)
        return cause_of(error) if isinstance(error, ConnectionError) and error.errno else _CLOSED
    except ssl.SSLError as error:
        raise _wrong(address, f"TLS with {host}:{port} fails: {said(error)}") from None
    except KafkaError as error:
        if "Authentication" in type(error).__name__ or "Sasl" in type(error).__name__:
            raise UnauthorizedError(
                f"{host}:{port} refuses user {address.user!r} with {address.mechanism}; "
                f"check the password in its file, and the mechanism"
            ) from None
        return said(error)
    except OSError as error:
        return said(error) if isinstance(error, TimeoutError) else cause_of(error)
    except (RuntimeError, KeyError) as error:
        return said(error)
    try:
        if not address.user and await _wants_user(connection):
            raise UnauthorizedError(
                f"{host}:{port} lets nobody in without a user; write {address.scheme}USER@{host}:{port}, "
                "and name the file with the password in log_key_file"
            )
    finally:
        connection.close()
    return ""


async def _check_transport(address: KafkaAddress, host: str, port: int, *, tls: bool) -> None:
    """Raises `InvalidError` when a broker that hangs up on us listens there with TLS, and we came without,
    or the other way round. Tells it nothing.
    """
    with contextlib.suppress(*FAILURES):
        if tls:
            # Answered only by a listener that has no TLS.
            (await create_conn(host, port, client_id=CLIENT_ID)).close()  # pyright: ignore[reportUnknownMemberType]
        else:
            await _shake_hands(host, port)
        what = "has no TLS; name the port that has" if tls else "wants TLS; write kafka+tls://"
        raise _wrong(address, f"the listener at {host}:{port} {what}")


async def _shake_hands(host: str, port: int) -> None:
    """Raises `OSError` or `TimeoutError` when nobody there speaks TLS."""
    anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anyone.check_hostname = False
    anyone.verify_mode = ssl.CERT_NONE  # who it is does not matter to whoever says nothing
    async with asyncio.timeout(_PROBE_SECONDS):
        _, writer = await asyncio.open_connection(host, port, ssl=anyone)
    writer.transport.abort()


async def _wants_user(connection: Any) -> bool:
    """Whether a broker that we have connected to asks who we are."""
    with contextlib.suppress(*FAILURES):
        answer: Any = await connection.send(SaslHandShakeRequest("PLAIN"))
        return answer.error_code in (api.NONE, api.UNSUPPORTED_SASL_MECHANISM)
    return False


def _wrong(address: KafkaAddress, what: str) -> InvalidError:
    return InvalidError(f"address of {address}", [Problem("", what)])
