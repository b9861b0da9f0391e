"""The rights that a page of the documentation tells people to give, by the commands that it prints."""

import shlex
from pathlib import Path

from engines.kafka_rights import Right

_OPTIONS = {"--topic": "topic", "--group": "group", "--transactional-id": "transactional-id"}
_OPERATIONS = {"DescribeConfigs": "describe-configs", "AlterConfigs": "alter-configs"}


def rights_in(page: Path, command: str, user: str) -> list[Right]:
    """What the lines of `page` that begin with `command` give to a user."""
    found: list[Right] = []
    for line in page.read_text(encoding="utf-8").splitlines():
        words = shlex.split(line) if line.startswith(f"{command} ") else []
        options = list(zip(words[1::2], words[2::2], strict=True))
        if ("--allow-principal", f"User:{user}") in options:
            did = tuple(
                _OPERATIONS.get(word, word.lower()) for name, word in options if name == "--operation"
            )
            ending = "*" if ("--resource-pattern-type", "prefixed") in options else ""
            found += [Right(_OPTIONS[name], word + ending, did) for name, word in options if name in _OPTIONS]
    assert found
    return found
