"""Real brokers and a real PostgreSQL for tests: each is started when a test first asks for it, and shared.

Tests share what runs, so a test uses topics of its own (a prefix nobody else has) and the database it is
given. What a test stops, kills or freezes runs again before the next one. Brokers that no test has asked for
in a while are ended, and made anew for the next one that does. Where an engine cannot be had, its tests are
skipped and the summary says so in one line; TRANSOM_REQUIRE_ENGINES=1 makes that an error.
"""

import contextlib
import time
from collections.abc import Generator, Iterator
from typing import TypeVar

import pytest

from engines.debezium import Debezium
from engines.jars import OLDEST, required
from engines.kafka import Brokers
from engines.kafka_secure import Secure
from engines.mirrormaker import MirrorMaker
from engines.postgres import Postgres
from engines.process import EngineError, MissingEngineError

USERS = {name: f"{name}-password" for name in ("hub", "link", "mirror", *(f"mirror-{n}" for n in range(6)))}
NOT_TESTED = "NOT TESTED: "
IDLE_SECONDS = 60.0
"""What idle brokers cost in a minute, new ones cost to start; and a run has nine of them for each worker."""
Engine = TypeVar("Engine", Brokers, Postgres, Debezium, MirrorMaker)


@contextlib.contextmanager
def started(engine: Engine) -> Generator[Engine]:
    """The engine, running; without it one clear sentence, not a traceback."""
    try:
        running = engine.__enter__()
    except MissingEngineError as error:
        if required():
            pytest.fail(f"TRANSOM_REQUIRE_ENGINES is set, and {error}", pytrace=False)
        pytest.skip(f"{NOT_TESTED}{error}")
    except EngineError as error:
        pytest.fail(str(error), pytrace=False)
    with contextlib.ExitStack() as stack:
        stack.push(engine)
        yield running


_idle: dict[Brokers, float] = {}
"""Since when brokers have been nobody's."""


@contextlib.contextmanager
def shared(brokers: Brokers) -> Generator[Brokers]:
    """Brokers for many tests, to be `lent` to one after another."""
    with started(brokers) as running:
        _idle[running] = time.monotonic()
        yield running
        _idle.pop(running, None)


@contextlib.contextmanager
def lent(brokers: Brokers) -> Generator[Brokers]:
    """The same brokers for one test, all of them running."""
    _idle.pop(brokers, None)
    if not brokers.processes:
        brokers.__enter__()
    brokers.mend()
    try:
        yield brokers
    finally:
        _idle[brokers] = time.monotonic()


def pytest_runtest_logfinish() -> None:
    for brokers, since in list(_idle.items()):
        if time.monotonic() - since > IDLE_SECONDS:
            del _idle[brokers]
            brokers.close()


@pytest.fixture(scope="session")
def shared_brokers() -> Iterator[Brokers]:
    with shared(Brokers()) as running:
        yield running


@pytest.fixture(scope="session")
def shared_brokers3() -> Iterator[Brokers]:
    with shared(Brokers(3)) as running:
        yield running


@pytest.fixture(scope="session")
def shared_broker39() -> Iterator[Brokers]:
    with shared(Brokers(version=OLDEST)) as running:
        yield running


@pytest.fixture(scope="session")
def shared_far_brokers() -> Iterator[Brokers]:
    with shared(Brokers()) as running:
        yield running


@pytest.fixture(scope="session")
def shared_secure_brokers() -> Iterator[Brokers]:
    with shared(Brokers(secure=Secure(USERS, administrators=["hub"]))) as running:
        yield running


@pytest.fixture(scope="session")
def shared_far_secure_brokers() -> Iterator[Brokers]:
    with shared(Brokers(secure=Secure(USERS, administrators=["hub"]))) as running:
        yield running


@pytest.fixture(scope="session")
def shared_postgres() -> Iterator[Postgres]:
    with started(Postgres()) as running:
        yield running


@pytest.fixture
def brokers(shared_brokers: Brokers) -> Iterator[Brokers]:
    """One broker of the newest Kafka."""
    with lent(shared_brokers):
        yield shared_brokers


@pytest.fixture
def brokers3(shared_brokers3: Brokers) -> Iterator[Brokers]:
    """Three brokers: every partition may have three copies; the first is the controller."""
    with lent(shared_brokers3):
        yield shared_brokers3


@pytest.fixture
def far_brokers(shared_far_brokers: Brokers) -> Iterator[Brokers]:
    """One broker of another cluster."""
    with lent(shared_far_brokers):
        yield shared_far_brokers


@pytest.fixture
def broker39(shared_broker39: Brokers) -> Iterator[Brokers]:
    """One broker of the oldest Kafka that is supported."""
    with lent(shared_broker39):
        yield shared_broker39


@pytest.fixture
def secure_brokers(shared_secure_brokers: Brokers) -> Iterator[Brokers]:
    """One broker with passwords and TLS (`.secure`): the user `hub` may do everything, `link` nothing yet."""
    with lent(shared_secure_brokers):
        yield shared_secure_brokers


@pytest.fixture
def far_secure_brokers(shared_far_secure_brokers: Brokers) -> Iterator[Brokers]:
    """Another cluster like `secure_brokers`."""
    with lent(shared_far_secure_brokers):
        yield shared_far_secure_brokers


@pytest.fixture
def postgres(shared_postgres: Postgres) -> Iterator[Postgres]:
    """A PostgreSQL server."""
    yield shared_postgres
    shared_postgres.mend()


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """The URL of a fresh, empty database."""
    with postgres.database() as url:
        yield url


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons: dict[str, int] = {}
    for report in terminalreporter.stats.get("skipped", []):
        where = report.longrepr
        reason = str(where[2] if isinstance(where, tuple) else where).removeprefix("Skipped: ")
        if reason.startswith(NOT_TESTED):
            reasons[reason] = reasons.get(reason, 0) + 1
    for reason, count in reasons.items():
        terminalreporter.write_line(f"{reason} ({count} tests skipped)", red=True, bold=True)
