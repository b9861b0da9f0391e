"""A real issuer of OpenID Connect for tests: TLS, discovery, keys that change, tokens; and forgeries."""

import asyncio
import base64
import contextlib
import datetime as dt
import ipaddress
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from transom.runtime.http import serve

AUDIENCE = "transom-hub"
_RSA = [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)]
"""Made once: they take a while."""


def rsa_key(number: int = 0) -> rsa.RSAPrivateKey:
    return _RSA[number]


@dataclass
class Issuer:
    """`keys` are those it publishes, by name: (algorithm, private key). `asked` counts looks at them."""

    address: str = ""
    keys: dict[str, tuple[str, Any]] = field(default_factory=dict)
    asked: int = 0
    down: bool = False
    says_issuer: str = ""
    trust: Path = Path()

    def claims(self, now: float, **changed: Any) -> dict[str, Any]:
        said = {
            "iss": self.address,
            "aud": AUDIENCE,
            "sub": "ada",
            "email": "ada@example.com",
            "groups": ["devs"],
            "iat": now,
            "exp": now + 300,
        }
        return {name: value for name, value in {**said, **changed}.items() if value is not ...}

    def token(self, key_id: str, now: float, *, header: dict[str, Any] | None = None, **changed: Any) -> str:
        """Signed with a key it publishes, or did."""
        algorithm, key = self.keys[key_id]
        named = {"kid": key_id} if header is None else header
        return jwt.encode(self.claims(now, **changed), key, algorithm, headers=named)

    def jwks(self) -> dict[str, Any]:
        return {"keys": [public_jwk(name, algorithm, key) for name, (algorithm, key) in self.keys.items()]}

    async def discovery(self, _request: Request) -> Response:
        if self.down:
            return Response("away", 500)
        address = self.says_issuer or self.address
        return JSONResponse({"issuer": address, "jwks_uri": f"{self.address}/keys"})

    async def published(self, _request: Request) -> Response:
        self.asked += 1
        return Response("away", 500) if self.down else JSONResponse(self.jwks())


def public_jwk(name: str, algorithm: str, key: Any) -> dict[str, Any]:
    kinds = {
        rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm,
        ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm,
        ed25519.Ed25519PrivateKey: jwt.algorithms.OKPAlgorithm,
    }
    made = next(made for kind, made in kinds.items() if isinstance(key, kind))
    return {**made.to_jwk(key.public_key(), as_dict=True), "kid": name, "alg": algorithm, "use": "sig"}


def part(value: Any) -> bytes:
    return base64.urlsafe_b64encode(msgspec.json.encode(value)).rstrip(b"=")


def forged(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    text = part(header) + b"." + part(claims) + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")
    return text.decode()


@contextlib.asynccontextmanager
async def issuing(folder: Path):
    """An issuer that is served over TLS while the block runs, with one RSA key called "one"."""
    issuer = Issuer(keys={"one": ("RS256", rsa_key())}, trust=folder / "issuer.pem")
    app = Starlette(
        routes=[
            Route("/.well-known/openid-configuration", issuer.discovery),
            Route("/keys", issuer.published),
        ]
    )
    ports: asyncio.Queue[int] = asyncio.Queue()
    async with asyncio.TaskGroup() as group:
        tls = _certified(folder, issuer.trust)
        server = group.create_task(serve(app, "127.0.0.1", 0, tls=tls, ready=ports.put_nowait))
        issuer.address = f"https://127.0.0.1:{await ports.get()}"
        try:
            yield issuer
        finally:
            server.cancel()


def _certified(folder: Path, trust: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")])
    day = dt.timedelta(days=1)
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    trust.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = folder / "issuer.key"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(trust, private)
    return context
