"""What to tell people when another side cannot be reached: the cause, without the library's own wording."""

import os
import socket
import ssl

import aiohttp


def cause_of(error: Exception) -> str:
    """Why a request failed, in a few words, such as "connection refused"; empty when it is not known."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        found = error.certificate_error
        why = found.verify_message if isinstance(found, ssl.SSLCertVerificationError) else str(found)
        return f"its certificate is not trusted: {why}"
    inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(inner, ssl.SSLError) and inner.reason == "WRONG_VERSION_NUMBER":
        return "what listens there does not speak TLS"
    if isinstance(inner, ssl.SSLError):
        return f"TLS failed: {inner.reason or inner}"
    if isinstance(inner, socket.gaierror):
        return "its host name is not known"
    if isinstance(inner, OSError) and inner.errno:
        return os.strerror(inner.errno).lower()
    return str(inner)
