"""A Kafka log that is told something wrong says what to change, and changes nothing."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engines.certificates import Authority
from engines.kafka import Brokers
from engines.process import free_port
from engines_fixtures import USERS
from kafka_logs import emptied_log, kafka_log
from transom.logs.kafka import KafkaLog
from transom.logs.kafka_address import parse_address
from transom.logs.protocol import Message, Topic, TopicPartition
from transom.model.errors import (
    InvalidError,
    TransomError,
    UnauthorizedError,
    UnknownHostError,
    UnreachableError,
)
from transom.runtime.clock import ManualClock, SystemClock
from transom.runtime.randomness import Randomness


@pytest.fixture(autouse=True)
async def no_connection_left() -> AsyncIterator[None]:
    """A TLS connection that is refused goes on saying good-bye when its test is over: not into the next."""
    yield
    for transport in list(asyncio.get_running_loop()._transports.values()):  # type: ignore[attr-defined]
        transport.abort()
    await asyncio.sleep(0)


def secure_log(
    brokers: Brokers, *, password: str, mechanism: str = "SCRAM-SHA-512", **more: object
) -> KafkaLog:
    assert brokers.secure is not None
    scheme, listener = ("kafka+tls", "SASL_SSL") if "tls" in more else ("kafka", "SASL_PLAINTEXT")
    url = f"{scheme}://hub@{brokers.secure.bootstrap(listener)}?mechanism={mechanism}"
    return KafkaLog(url, SystemClock(), Randomness(), password=password, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_a_wrong_password_is_told_at_once_and_not_repeated(secure_brokers: Brokers, mechanism: str):
    log = secure_log(secure_brokers, password="not-it", mechanism=mechanism)  # noqa: S106
    with pytest.raises(UnauthorizedError, match="refuses user 'hub'") as raised:
        await log.create([Topic("made")])
    assert "not-it" not in str(raised.value)
    await log.close()
    right = secure_log(secure_brokers, password=USERS["hub"], mechanism=mechanism)
    assert "made" not in await right.topics()
    await right.close()


async def test_a_server_that_nobody_trusts_is_told_and_one_that_is_trusted_serves(
    secure_brokers: Brokers, tmp_path: Path
):
    assert secure_brokers.secure is not None
    others = ssl.create_default_context(cafile=Authority(tmp_path, "Others").trust)
    log = secure_log(secure_brokers, password=USERS["hub"], tls=others)
    with pytest.raises(InvalidError, match=r"TLS with .* fails"):
        await log.topics()
    await log.close()
    trusted = ssl.create_default_context(cafile=secure_brokers.secure.trust)
    log = secure_log(secure_brokers, password=USERS["hub"], tls=trusted)
    await log.create([Topic("sealed-log")])
    await log.append([Message("sealed-log", None, b"1")])
    (entry,) = await log.read({TopicPartition("sealed-log", 0): 0})
    assert entry.value == b"1"
    await log.close()


@pytest.mark.parametrize(
    ("scheme", "listener", "said"),
    [
        ("kafka+tls://hub@", "SASL_PLAINTEXT", "has no TLS; name the port that has"),
        ("kafka+tls://", "PLAIN", "has no TLS; name the port that has"),
        ("kafka://hub@", "SASL_SSL", "wants TLS; write kafka"),
        ("kafka://", "SASL_SSL", "wants TLS; write kafka"),
        ("kafka://", "SASL_PLAINTEXT", "lets nobody in without a user; write kafka://USER@"),
        ("kafka+tls://", "SASL_SSL", "lets nobody in without a user; write kafka[+]tls://USER@"),
    ],
)
async def test_a_listener_of_another_sort_is_told_at_once(
    secure_brokers: Brokers, scheme: str, listener: str, said: str
):
    secure = secure_brokers.secure
    assert secure is not None
    place = secure_brokers.address(0) if listener == "PLAIN" else secure.bootstrap(listener)
    tls = ssl.create_default_context(cafile=secure.trust)
    password = USERS["hub"] if "@" in scheme else ""
    # A clock that stands still: whoever has patience hangs.
    log = KafkaLog(f"{scheme}{place}", ManualClock(), Randomness(), password=password, tls=tls)
    with pytest.raises((InvalidError, UnauthorizedError), match=said):
        await log.topics()
    await log.close()


async def test_a_host_name_that_nobody_knows_is_told_at_once_unless_another_broker_may_come_back(
    monkeypatch: pytest.MonkeyPatch,
):
    loop = asyncio.get_running_loop()
    known = loop.getaddrinfo

    async def resolved(host: str, *args: object, **kwargs: object) -> object:
        if host == "nosuch.invalid":  # a name service that does not answer would say something else
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return await known(host, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "getaddrinfo", resolved)
    log = KafkaLog("kafka+tls://nosuch.invalid:9092", ManualClock(), Randomness())
    with pytest.raises(UnknownHostError, match=r"nosuch\.invalid:9092: its host name is not known; correct"):
        await log.topics()
    await log.close()
    port = free_port()
    log = KafkaLog(f"kafka+tls://nosuch.invalid:9092,127.0.0.1:{port}", ManualClock(), Randomness())
    asking = asyncio.create_task(log.topics())
    while not log.trouble:
        await asyncio.sleep(0.01)
    assert log.trouble.endswith(
        f"nosuch.invalid:9092: its host name is not known; 127.0.0.1:{port}: connection refused"
    )
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert not log.trouble
    await log.close()


async def test_an_address_where_nobody_is_says_so_when_patience_ends():
    port = free_port()
    clock = ManualClock()
    log = KafkaLog(f"kafka://127.0.0.1:{port}", clock, Randomness())
    # Whatever time it takes: the clock stands still until somebody waits.
    original = clock.sleep

    async def hurried(seconds: float) -> None:
        clock.advance(max(seconds, 1.0))
        await original(0)

    clock.sleep = hurried  # type: ignore[assignment]
    with pytest.raises(
        UnreachableError, match=f"Kafka at 127.0.0.1:{port} cannot .* no broker answers: .* refused"
    ):
        await log.topics()
    await log.close()


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("cleanup.policy", "compact,delete", "cleanup.policy: is compact,delete; set it to delete"),
        ("retention.ms", "1000", "retention.ms: is 1000; set it to -1"),
    ],
)
async def test_a_topic_that_is_kept_otherwise_is_named_with_what_to_change(
    brokers: Brokers, setting: str, value: str, said: str
):
    async with emptied_log(brokers) as log:
        from aiokafka.admin import AIOKafkaAdminClient, NewTopic

        admin = AIOKafkaAdminClient(bootstrap_servers=brokers.bootstrap)
        await admin.start()
        await admin.create_topics([NewTopic("theirs", 1, 1, topic_configs={setting: value})])
        await admin.close()
        with pytest.raises(InvalidError, match=said):
            await log.create([Topic("ours"), Topic("theirs")])
        assert "ours" not in await log.topics()


async def test_an_entry_larger_than_a_topic_takes_is_refused_alone(brokers: Brokers):
    async with emptied_log(brokers) as log:
        from aiokafka.admin import AIOKafkaAdminClient, NewTopic

        admin = AIOKafkaAdminClient(bootstrap_servers=brokers.bootstrap)
        await admin.start()
        await admin.create_topics([NewTopic("small", 1, 1, topic_configs={"max.message.bytes": "1000"})])
        await admin.close()
        with pytest.raises(InvalidError, match=r"max\.message\.bytes"):
            await log.append([Message("small", None, b"x" * 2000)])
        assert list(await log.append([Message("small", None, b"fits")])) == [0]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("kafka://k1.example:9092", "leaves this machine without TLS"),
        ("kafka+tls://eu:secret@k1.example", "holds a password"),
        ("kafka+tls://eu@", "is no broker"),
        ("kafka+tls://k1.example:99999", "is no broker"),
        ("kafka+tls://k1.example,:9092", "is no broker"),
        ("kafka+tls://k1.example/topic", "nothing follows"),
        ("kafka+tls://k1.example?mechanism=GSSAPI", "none of SCRAM-SHA-512"),
        ("kafka+tls://k1.example?acks=1", "there is only 'mechanism'"),
    ],
)
def test_an_address_is_read_with_every_mistake_and_no_secret(url: str, said: str):
    with pytest.raises(InvalidError, match=said) as raised:
        parse_address(url)
    assert "secret" not in str(raised.value)


def test_an_address_names_brokers_user_and_mechanism():
    found = parse_address("kafka+tls://e%40u@k1.example:9093,[::1]:9094,k3?mechanism=PLAIN")
    assert found.hosts == (("k1.example", 9093), ("::1", 9094), ("k3", 9092))
    assert (found.tls, found.user, found.mechanism) == (True, "e@u", "PLAIN")
    assert found.bootstrap == ["k1.example:9093", "[::1]:9094", "k3:9092"]


async def test_a_log_is_closed_without_leaving_a_task(brokers: Brokers):
    before = asyncio.all_tasks()
    log = kafka_log(brokers)
    try:
        reading = asyncio.create_task(log.read({TopicPartition("nowhere", 0): 0}, wait_seconds=30))
        with pytest.raises(TransomError):
            await reading
    finally:
        await log.close()
    assert asyncio.all_tasks() == before
