"""Passwords, rights and certificates of the real parts, so that tests of ours can rely on being refused."""

import ssl
from pathlib import Path

import psycopg
import pytest
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    KafkaConnectionError,
    TopicAuthorizationFailedError,
)
from client_parts import append, new_topic, read

from engines.certificates import Authority
from engines.kafka import Brokers
from engines.kafka_rights import Right
from engines.postgres import Postgres
from engines.tls_front import TlsFront
from engines_fixtures import USERS


def login(user: str, mechanism: str, password: str | None = None) -> dict[str, str]:
    return {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": mechanism,
        "sasl_plain_username": user,
        "sasl_plain_password": USERS[user] if password is None else password,
    }


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_who_knows_the_password_is_served(secure_brokers: Brokers, mechanism: str) -> None:
    assert secure_brokers.secure is not None
    road = secure_brokers.secure.bootstrap("SASL_PLAINTEXT")
    topic = f"known-{mechanism}"
    await new_topic(road, topic, **login("hub", mechanism))
    await append(road, topic, b"1", **login("hub", mechanism))
    assert await read(road, topic, **login("hub", mechanism)) == [b"1"]
    with pytest.raises(KafkaConnectionError, match="Unable to bootstrap"):
        await append(road, topic, b"2", **login("hub", mechanism, "wrong"))


async def test_a_user_may_do_what_it_was_allowed(secure_brokers: Brokers) -> None:
    assert secure_brokers.secure is not None
    road = secure_brokers.secure.bootstrap("SASL_PLAINTEXT")
    await new_topic(secure_brokers.bootstrap, "rights-desired")
    await new_topic(secure_brokers.bootstrap, "rights-status")
    as_link = login("link", "SCRAM-SHA-512")
    with pytest.raises(ClusterAuthorizationFailedError):  # may write nowhere, so it is no producer
        await append(road, "rights-desired", b"1", **as_link)
    secure_brokers.allow("link", Right("topic", "rights-d*", ("write",)))
    await append(road, "rights-desired", b"1", **as_link)
    with pytest.raises(TopicAuthorizationFailedError):
        await append(road, "rights-status", b"1", **as_link)


async def test_a_brokers_certificate_is_checked(secure_brokers: Brokers, tmp_path: Path) -> None:
    assert secure_brokers.secure is not None
    road = secure_brokers.secure.bootstrap("SASL_SSL")
    tls = ssl.create_default_context(cafile=secure_brokers.secure.trust)
    as_hub = {**login("hub", "SCRAM-SHA-512"), "security_protocol": "SASL_SSL"}
    await new_topic(road, "sealed", ssl_context=tls, **as_hub)
    await append(road, "sealed", b"1", ssl_context=tls, **as_hub)
    others = ssl.create_default_context(cafile=Authority(tmp_path, "Others").trust)
    with pytest.raises(KafkaConnectionError):
        await append(road, "sealed", b"2", ssl_context=others, **as_hub)
    assert await read(road, "sealed", ssl_context=tls, **as_hub) == [b"1"]


async def test_a_servers_password_and_certificate_are_checked(
    postgres: Postgres, database: str, tmp_path: Path
) -> None:
    postgres.execute("CREATE ROLE writer LOGIN PASSWORD 'secret'")
    authority = Authority(tmp_path)
    name = database.rpartition("/")[2]

    async def connect(host: str, trust: Path, password: str = "secret", mode: str = "verify-full") -> None:  # noqa: S107
        address = f"host={host} port={front.port} dbname={name} user=writer password={password}"
        async with await psycopg.AsyncConnection.connect(f"{address} sslmode={mode} sslrootcert={trust}"):
            pass

    async with TlsFront(postgres.port, authority.issue("postgres", ["localhost"])) as front:
        await connect("localhost", authority.trust)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            await connect("localhost", authority.trust, "wrong")
        with pytest.raises(psycopg.OperationalError, match="does not match host name"):
            await connect("127.0.0.1", authority.trust)
        others = tmp_path / "others"
        others.mkdir()
        with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
            await connect("localhost", Authority(others, "Others").trust)
        with pytest.raises(psycopg.OperationalError, match="speaks TLS only"):
            await connect("localhost", authority.trust, mode="disable")
    postgres.execute("DROP ROLE writer")
