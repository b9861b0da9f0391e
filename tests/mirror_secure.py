"""Clusters with passwords and TLS at the ends of a mirror: what its configuration says of them, and who may
do what.
"""

from collections.abc import Sequence
from pathlib import Path

from engines.kafka import Brokers
from engines.kafka_rights import Right
from engines_fixtures import USERS
from kafka_acls import rights_in
from transom.runtime.secret_files import write_private

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "mirror.md"
AT_SOURCE, AT_TARGET = "$AT_EU", "$AT_US"
"""How the page's commands begin."""


def end_of(
    brokers: Brokers,
    folder: Path,
    listener: str = "SASL_PLAINTEXT",
    *,
    user: str = "mirror",
    mechanism: str = "SCRAM-SHA-512",
    password: str = "",
    trust: Path | None = None,
) -> str:
    """The lines of [source] or [target] that lead there by this listener; keys are kept in `folder`."""
    assert brokers.secure is not None
    tls = "SSL" in listener and "PLAINTEXT" not in listener
    as_user = user if "SASL" in listener else ""
    url = f"kafka{'+tls' if tls else ''}://{as_user and as_user + '@'}{brokers.secure.bootstrap(listener)}"
    lines = [f"address = '{url}{'?mechanism=' + mechanism if as_user else ''}'"]
    if as_user:
        file = folder / f"{as_user}-{len(list(folder.glob('*.key')))}.key"
        write_private(file, password or USERS[user])
        lines.append(f"key_file = '{file}'")
    if tls:
        lines.append(f"trust = '{trust or brokers.secure.trust}'")
    return "\n".join(lines)


def rights_at(command: str) -> list[Right]:
    """What the page gives to the mirror's user."""
    return rights_in(PAGE, command, "mirror")


def without(rights: Sequence[Right], kind: str, name: str, *operations: str) -> list[Right]:
    """These rights but for `operations` (none named: all) on one resource, which must be among them."""
    found = [right for right in rights if (right.resource, right.name) == (kind, name)]
    assert found
    assert all(set(operations) <= set(right.operations) for right in found)
    left = [right for right in rights if right not in found]
    for right in found if operations else ():
        kept = tuple(each for each in right.operations if each not in operations)
        left += [Right(kind, name, kept)] if kept else []
    return left
