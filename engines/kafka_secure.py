"""Listeners with passwords and TLS, beside the plain one that brokers talk to each other on.

    users = Secure({"hub": "a password", "region": "another"}, administrators=["hub"])
    with Brokers(secure=users) as brokers:
        AIOKafkaProducer(bootstrap_servers=users.bootstrap("SASL_SSL"), sasl_plain_username="hub", …)

Every user may prove the password by PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512. Who is no administrator may do
nothing until `Brokers.allow` gives a right (an ACL); whoever comes over the plain listener may do everything.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from engines.certificates import Authority
from engines.process import free_port

PROTOCOLS = ("SASL_PLAINTEXT", "SASL_SSL", "SSL")
"""The listeners, each named as its protocol."""
SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")


class Secure:
    """Users and certificates of one cluster."""

    def __init__(self, users: Mapping[str, str], administrators: Sequence[str] = ()) -> None:
        """`users`: names and passwords, without quotes, commas and brackets."""
        self.users, self._administrators = dict(users), administrators
        self._ports: list[dict[str, int]] = []
        self._keys = Path()
        self.trust = Path()
        """The authority that signed the brokers' certificates, for localhost and 127.0.0.1."""

    def bootstrap(self, protocol: str) -> str:
        """Every broker's address on this listener."""
        return ",".join(f"127.0.0.1:{ports[protocol]}" for ports in self._ports)

    def prepare(self, home: Path, count: int) -> None:
        """Choose ports and write certificates, before any broker starts."""
        folder = home / "certificates"
        folder.mkdir(parents=True)
        authority = Authority(folder)
        self.trust, self._keys = authority.trust, authority.issue("brokers")
        self._ports = [{protocol: free_port() for protocol in PROTOCOLS} for _ in range(count)]

    def listeners(self, number: int) -> dict[str, tuple[str, int]]:
        """A listener's name to its protocol and port."""
        return {protocol: (protocol, port) for protocol, port in self._ports[number].items()}

    def settings(self) -> dict[str, str | int]:
        """A broker's properties."""
        mechanisms = ("PLAIN", *SCRAM)
        told: dict[str, str | int] = {
            "sasl.enabled.mechanisms": ",".join(mechanisms),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self._keys),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.trust),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": ";".join(f"User:{name}" for name in ("ANONYMOUS", *self._administrators)),
        }
        known = " ".join(f'user_{name}="{password}"' for name, password in self.users.items())
        for protocol in ("SASL_PLAINTEXT", "SASL_SSL"):
            prefix = f"listener.name.{protocol.lower()}"
            told[f"{prefix}.plain.sasl.jaas.config"] = (
                f"org.apache.kafka.common.security.plain.PlainLoginModule required {known};"
            )
            for mechanism in SCRAM:
                told[f"{prefix}.{mechanism.lower()}.sasl.jaas.config"] = (
                    "org.apache.kafka.common.security.scram.ScramLoginModule required;"
                )
        return told

    def scram_arguments(self) -> list[str]:
        """What the storage tool is told, so that users are there from the first moment."""
        return [
            word
            for name, password in self.users.items()
            for mechanism in SCRAM
            for word in ("--add-scram", f"{mechanism}=[name={name},password={password}]")
        ]
