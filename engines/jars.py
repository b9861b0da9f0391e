"""The jars of Apache Kafka and of Debezium, fetched once by Maven into `engines/.jars/<name>/`, and the Java
command that runs them.

`python -m engines.jars` is what `make kafka` runs. What is there already is not fetched again. On a machine
without Java or Maven it says so in one line and ends well, unless TRANSOM_REQUIRE_ENGINES=1: then it fails.

After the jars come the classes that a start needs, written into one archive that Java maps instead of loading
and checking them one by one (class data sharing): a broker starts in 1.3 s instead of 2.1 s.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from engines.process import EngineError, MissingEngineError

HERE = Path(__file__).parent
JARS = HERE / ".jars"
NEWEST, OLDEST = "4.3", "3.9"
"""The versions of Apache Kafka: profiles of its pom."""
DEBEZIUM = "debezium"
"""Debezium's connector for PostgreSQL, a plugin of Kafka Connect, which comes with Kafka."""
POMS = {NEWEST: HERE / "pom.xml", OLDEST: HERE / "pom.xml", DEBEZIUM: HERE / "debezium.xml"}
TITLES = {NEWEST: f"Apache Kafka {NEWEST}", OLDEST: f"Apache Kafka {OLDEST}", DEBEZIUM: "Debezium"}
JAVA_MIN = 17
SHORT_LIVED = ("-Xms64m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
"""One compiler and one collector thread, and a heap that starts small: brokers share two cores with their
tests, which are short."""
_HOW = "on Debian: apt install default-jre-headless maven; then: make kafka"
_FETCH_SECONDS = 900
_WRITTEN_SECONDS = 60.0
"""How long a broker may take to stop that also writes an archive of its classes."""


def required() -> bool:
    """Whether a missing engine is an error here, not a reason to skip."""
    return os.environ.get("TRANSOM_REQUIRE_ENGINES", "") not in {"", "0"}


def java() -> str:
    """The path of a Java that Kafka's brokers run on."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if found is None:
        raise MissingEngineError(f"Java is missing; {_HOW}")
    return found


def jars_of(name: str) -> Path:
    """The folder of a version's, or Debezium's, jars; raises `MissingEngineError` when they were not
    fetched.
    """
    java()
    folder = JARS / name
    if not _is_complete(folder, POMS[name]):
        need = "run: make kafka" if shutil.which("mvn") else f"Maven is missing; {_HOW}"
        raise MissingEngineError(f"{TITLES[name]} is not in {folder.relative_to(HERE.parent)}; {need}")
    return folder


def java_command(
    version: str,
    heap_mebibytes: int,
    *,
    options: Sequence[str] = SHORT_LIVED,
    archive_at_exit: Path | None = None,
) -> list[str]:
    """Java with this version's jars; a main class and its arguments follow."""
    folder = jars_of(version)
    archive = _archive(folder)
    words = [java(), f"-Xmx{heap_mebibytes}m", *options]
    if archive_at_exit is not None:
        words += [f"-XX:ArchiveClassesAtExit={archive_at_exit}"]
    elif archive.exists():
        # Another Java than the one that wrote it goes on without.
        words += ["-Xshare:auto", f"-XX:SharedArchiveFile={archive}"]
    return [
        *words,
        f"-Dlog4j2.configurationFile={HERE / 'log4j2.yaml'}",
        f"-Dlog4j.configuration=file:{HERE / 'log4j.properties'}",
        "-cp",
        f"{folder}/*",
    ]


def fetch(name: str) -> bool:
    """Fetch what jars a version, or Debezium, needs unless they are there; whether anything was fetched."""
    folder, pom, title = JARS / name, POMS[name], TITLES[name]
    if _is_complete(folder, pom):
        if name != DEBEZIUM and not _archive(folder).exists():
            _archive_classes(name)
        return False
    _check_java()
    maven = shutil.which("mvn")
    if maven is None:
        raise MissingEngineError(f"Maven is missing; {_HOW}")
    shutil.rmtree(folder, ignore_errors=True)
    command = [maven, "--batch-mode", "--quiet", "--strict-checksums", f"--file={pom}"]
    if name != DEBEZIUM:
        command.append(f"--activate-profiles={name}")
    copy = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={folder}"]
    try:
        done = subprocess.run(
            [*command, *copy], capture_output=True, text=True, check=False, timeout=_FETCH_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise MissingEngineError(f"Maven did not fetch {title} in {_FETCH_SECONDS} s") from None
    if done.returncode:
        said = [line for line in done.stdout.splitlines() if line.strip()][:5]
        raise MissingEngineError(f"Maven could not fetch {title}: " + "\n".join(said))
    (folder / ".complete").write_text(_fingerprint(pom), encoding="ascii")
    if name != DEBEZIUM:
        _archive_classes(name)
    return True


def _archive(folder: Path) -> Path:
    """Where these jars' archive is. Java passes over, without a word, one that was written for jars of other
    places or times: a copied folder needs its own.
    """
    jars = sorted((str(jar), jar.stat().st_mtime_ns) for jar in folder.glob("*.jar"))
    return folder / f"classes-{hashlib.sha256(repr(jars).encode()).hexdigest()[:12]}.jsa"


def _archive_classes(version: str) -> None:
    """Write down which classes a broker's start and orderly end need. Without the archive all works,
    slower.
    """
    from engines.kafka import Brokers  # noqa: PLC0415 - which needs this module

    for stale in (JARS / version).glob("classes*.jsa"):
        stale.unlink()
    target = _archive(JARS / version)
    try:
        with Brokers(version=version, archive_classes=target) as brokers:
            brokers.processes[0].stop(signal.SIGTERM, _WRITTEN_SECONDS)
    except EngineError as error:
        target.unlink(missing_ok=True)
        print(f"Apache Kafka {version} does not start here: {error}", file=sys.stderr)


def _check_java() -> None:
    # As in: openjdk version "17.0.15" 2025-04-15
    said = subprocess.run([java(), "-version"], capture_output=True, text=True, check=False).stderr
    words = said.split('"')
    number = words[1].split(".")[0] if len(words) > 1 else ""
    if number.isdigit() and int(number) < JAVA_MIN:
        raise MissingEngineError(f"Apache Kafka needs Java {JAVA_MIN} or newer; this is {words[1]}; {_HOW}")


def _fingerprint(pom: Path) -> str:
    return hashlib.sha256(pom.read_bytes()).hexdigest()


def _is_complete(folder: Path, pom: Path) -> bool:
    mark = folder / ".complete"
    return mark.exists() and mark.read_text(encoding="ascii") == _fingerprint(pom)


def main() -> int:
    """Fetch both versions of Kafka, and Debezium."""
    for name, title in TITLES.items():
        try:
            if fetch(name):
                print(f"{title} is in {JARS.relative_to(HERE.parent) / name}")
        except MissingEngineError as error:
            missing = "DEBEZIUM" if name == DEBEZIUM else "KAFKA"
            print(f"NO REAL {missing} HERE: {error}", file=sys.stderr)
            return 1 if required() else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
