"""Which topics are mirrored, and what they are called in the target.

Patterns choose, a policy names. What is never mirrored: what is Kafka's own, the mirror's, MirrorMaker 2's,
and copies. Which topics of a cluster are copies stands in that cluster's map topic, whatever they are called;
so mirrors in both directions are safe with any policy, also where names stay as they are (KAFKA-9726), and
`a.a.a.topic` (KAFKA-9914) cannot come to be. Pure. Next on the data's way: `topics`.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from transom.links.naming import suffixed
from transom.model.errors import InvalidError, Problem
from transom.model.names import LABEL_RULE, is_label

PREFIX, SUFFIX, IDENTITY = "prefix", "suffix", "identity"
POLICIES = (PREFIX, SUFFIX, IDENTITY)
OWN = "transom-mirror-"
"""What the names of the mirror's own topics begin with."""

NAME_CHARACTERS_MAX = 249
_LEGAL = re.compile(r"[a-zA-Z0-9._-]+")
_MIRRORMAKERS = re.compile(r"heartbeats|mm2-.*\.internal|.*\.checkpoints\.internal")


class Patterns:
    """What `include` matches and `exclude` does not: regular expressions, each for the whole name."""

    def __init__(self, path: str, include: Sequence[str], exclude: Sequence[str]) -> None:
        """Raises `InvalidError` with every mistake; `path` is where they stand ("topics")."""
        problems: list[Problem] = []
        self._include = _compiled(f"{path}.include", include, problems)
        self._exclude = _compiled(f"{path}.exclude", exclude, problems)
        if problems:
            raise InvalidError(f"patterns of {path}", problems)

    def match(self, name: str) -> bool:
        """Whether `name` is chosen."""
        return any(each.fullmatch(name) for each in self._include) and not any(
            each.fullmatch(name) for each in self._exclude
        )


def _compiled(path: str, expressions: Sequence[str], problems: list[Problem]) -> list[re.Pattern[str]]:
    found: list[re.Pattern[str]] = []
    for number, expression in enumerate(expressions):
        try:
            found.append(re.compile(expression))
        except (re.error, OverflowError, RecursionError) as error:
            problems.append(Problem(f"{path}[{number}]", f"{expression!r} is no regular expression: {error}"))
    return found


class Naming:
    """What a topic of the source is called in the target."""

    def __init__(self, policy: str, source: str, environment: str = "") -> None:
        """`source` is the source's name. Raises `InvalidError`."""
        problems: list[Problem] = []
        if policy not in POLICIES:
            problems.append(Problem("topics.names", f"{policy!r} is none of {', '.join(POLICIES)}"))
        if policy == SUFFIX:
            named = (("source.name", source), ("topics.environment", environment))
            problems += [
                Problem(path, f"{text!r} {LABEL_RULE}") for path, text in named if not is_label(text)
            ]
        elif not _LEGAL.fullmatch(source):
            problems.append(Problem("source.name", f"{source!r} must be of a-z, A-Z, 0-9, '.', '_' and '-'"))
        if problems:
            raise InvalidError("names of mirrored topics", problems)
        self.policy, self._source, self._environment = policy, source, environment

    def target(self, topic: str) -> str:
        """What `topic` is called in the target."""
        if self.policy == IDENTITY:
            return topic
        if self.policy == SUFFIX:
            return suffixed(topic, self._environment, self._source)
        return f"{self._source}.{topic}"


class Chosen(NamedTuple):
    """What is mirrored: names in the target by names in the source; what the patterns match and is left out,
    with why; and what somebody has to correct before any of it is right.
    """

    names: dict[str, str]
    left_out: dict[str, str]
    mistakes: tuple[Problem, ...]


def choose(
    topics: Collection[str],
    copies: Mapping[str, str],
    patterns: Patterns,
    naming: Naming,
    *,
    one_cluster: bool = False,
) -> Chosen:
    """Of the source's `topics` those that are mirrored.

    `copies` are those of them that are copies, with the name of the mirror that makes them; `one_cluster`:
    source and target are the same.
    """
    left_out: dict[str, str] = {}
    wanted: dict[str, str] = {}
    for topic in sorted(filter(patterns.match, topics)):
        why = _never(topic, copies) or _illegal(naming.target(topic))
        if why:
            left_out[topic] = why
        else:
            wanted[topic] = naming.target(topic)
    mistakes = _clashes(wanted, left_out)
    if one_cluster:
        mistakes += _circles(wanted, patterns, naming, left_out)
    names = {topic: target for topic, target in wanted.items() if topic not in left_out}
    return Chosen(names, left_out, tuple(mistakes))


def _never(topic: str, copies: Mapping[str, str]) -> str:
    """Why a topic is never mirrored; empty for all others."""
    if topic.startswith("__"):
        return "is Kafka's own"
    if topic.startswith(OWN):
        return "is a mirror's own"
    if _MIRRORMAKERS.fullmatch(topic):
        return "is MirrorMaker's own"
    if topic in copies:
        return f"is a copy, which mirror {copies[topic]!r} makes; mirror the original"
    return ""


def _illegal(target: str) -> str:
    if len(target) > NAME_CHARACTERS_MAX:
        return f"would be {target!r} in the target, which is longer than {NAME_CHARACTERS_MAX} characters"
    return ""


def metric_name(topic: str) -> str:
    """What Kafka calls a topic in its metrics; it refuses a topic whose metrics another has already."""
    return topic.replace(".", "_")


def _clashes(wanted: Mapping[str, str], left_out: dict[str, str]) -> list[Problem]:
    """Topics that would have the same name in the target: none of them is mirrored."""
    sources: dict[str, list[str]] = {}
    for topic, target in wanted.items():
        sources.setdefault(metric_name(target), []).append(topic)
    problems: list[Problem] = []
    for alike in sources.values():
        if len(alike) > 1:
            told = " and ".join(repr(topic) for topic in alike)
            why = f"{told} would have the same name in the target; exclude all but one"
            left_out.update(dict.fromkeys(alike, why))
            problems.append(Problem("topics", why))
    return problems


def _circles(
    wanted: Mapping[str, str], patterns: Patterns, naming: Naming, left_out: dict[str, str]
) -> list[Problem]:
    """Within one cluster: what would be mirrored onto itself, or its copy again."""
    if naming.policy == IDENTITY:
        why = "source and target are one cluster, so copies need names of their own; choose another policy"
        left_out.update(dict.fromkeys(wanted, why))
        return [Problem("topics.names", why)]
    again = [topic for topic, target in wanted.items() if patterns.match(target)]
    if not again:
        return []
    shown = wanted[again[0]]
    why = f"matches this mirror's own output, {shown!r}; exclude {re.escape(shown)!r} and its like"
    left_out.update(dict.fromkeys(again, why))
    return [Problem("topics.include", why)]
