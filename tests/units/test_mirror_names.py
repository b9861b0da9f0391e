"""Which topics a mirror takes, what they are called, and the mistakes that are found before anything runs."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from transom.links.kafka.names import IDENTITY, POLICIES, PREFIX, SUFFIX, Naming, Patterns, choose
from transom.links.naming import mirrored_name
from transom.model.errors import InvalidError

ALL = Patterns("topics", [".*"], [])
NAMINGS = {policy: Naming(policy, "eu", "production") for policy in POLICIES}
TOPIC = some.from_regex(r"[a-zA-Z0-9._-]{1,20}", fullmatch=True)


@pytest.mark.parametrize(
    ("policy", "named"), [(PREFIX, "eu.orders"), (SUFFIX, "orders.production-eu"), (IDENTITY, "orders")]
)
def test_names_by_policy(policy: str, named: str) -> None:
    assert NAMINGS[policy].target("orders") == named


def test_a_suffix_is_what_transoms_own_roads_use() -> None:
    assert NAMINGS[SUFFIX].target("status") == mirrored_name("status", "production", "eu")


def test_a_suffix_does_not_take_a_dash_in_a_name_for_a_copy() -> None:
    assert choose(["orders.dead-letters"], {}, ALL, NAMINGS[SUFFIX]).names == {
        "orders.dead-letters": "orders.dead-letters.production-eu"
    }


@pytest.mark.parametrize(
    ("policy", "source", "environment", "paths"),
    [
        ("replica", "eu", "", ["topics.names"]),
        (PREFIX, "", "", ["source.name"]),
        (PREFIX, "e u", "", ["source.name"]),
        (IDENTITY, "e/u", "", ["source.name"]),
        (SUFFIX, "EU", "", ["source.name", "topics.environment"]),
        (SUFFIX, "eu", "live.one", ["topics.environment"]),
    ],
)
def test_wrong_names_are_told_at_once(policy: str, source: str, environment: str, paths: list[str]) -> None:
    with pytest.raises(InvalidError) as caught:
        Naming(policy, source, environment)
    assert [problem.path for problem in caught.value.problems] == paths


def test_patterns_match_whole_names() -> None:
    patterns = Patterns("topics", ["orders", "payments\\..*"], ["payments\\.test"])
    names = ["orders", "orders2", "my.orders", "payments.eu", "payments.test", "payments"]
    assert [name for name in names if patterns.match(name)] == ["orders", "payments.eu"]


def test_every_bad_pattern_is_told_with_its_place() -> None:
    with pytest.raises(InvalidError) as caught:
        Patterns("groups", ["a", "("], ["*", "b", "a{99999999999}"])
    assert [problem.path for problem in caught.value.problems] == [
        "groups.include[1]",
        "groups.exclude[0]",
        "groups.exclude[2]",
    ]
    assert "is no regular expression" in str(caught.value)


@pytest.mark.parametrize(
    "topic",
    [
        "__consumer_offsets",
        "__anything",
        "transom-mirror-map",
        "transom-mirror-control",
        "heartbeats",
        "mm2-offset-syncs.us.internal",
        "mm2-configs.us.internal",
        "us.checkpoints.internal",
    ],
)
@pytest.mark.parametrize("policy", POLICIES)
def test_what_belongs_to_kafka_or_to_a_mirror_is_never_mirrored(policy: str, topic: str) -> None:
    chosen = choose([topic, "orders"], {}, ALL, NAMINGS[policy])
    assert list(chosen.names) == ["orders"]
    assert list(chosen.left_out) == [topic]
    assert chosen.mistakes == ()


def test_a_topic_that_only_looks_like_one_of_those_is_mirrored() -> None:
    topics = ["_schemas", "device.heartbeats", "internal", "mm2", "transom"]
    assert list(choose(topics, {}, ALL, NAMINGS[PREFIX]).names) == topics


@pytest.mark.parametrize("policy", POLICIES)
def test_copies_are_not_mirrored_again_whatever_they_are_called(policy: str) -> None:
    """KAFKA-9726, KAFKA-9914: a copy is known by the map topic, not by its name."""
    chosen = choose(["orders", "visits", "us.visits"], {"orders": "us-to-eu"}, ALL, NAMINGS[policy])
    assert sorted(chosen.names) == ["us.visits", "visits"]
    assert chosen.left_out == {"orders": "is a copy, which mirror 'us-to-eu' makes; mirror the original"}


@given(policy=some.sampled_from(POLICIES), topics=some.sets(TOPIC, max_size=8), rounds=some.integers(2, 5))
def test_mirrors_in_both_directions_end_after_one_hop(policy: str, topics: set[str], rounds: int) -> None:
    """KAFKA-9914: `a.a.a.topic`. However often both directions look, copies beget no copies."""
    sides = {"eu": set(topics), "us": {"visits"}}
    copies: dict[str, dict[str, str]] = {"eu": {}, "us": {}}
    for _ in range(rounds):
        for source, target in (("eu", "us"), ("us", "eu")):
            naming = Naming(policy, source, "live")
            chosen = choose(sides[source], copies[source], ALL, naming)
            for copy in chosen.names.values():
                if copy not in sides[target]:
                    sides[target].add(copy)
                    copies[target][copy] = source
    for source, target in (("eu", "us"), ("us", "eu")):
        originals = sides[source] - copies[source].keys()
        assert len(copies[target]) <= len(originals)
    assert len(sides["eu"] - copies["eu"].keys()) == len(topics)


def test_two_topics_never_get_one_name() -> None:
    """Kafka tells `a.b` and `a_b` apart as topics, not as metrics, and refuses the second."""
    chosen = choose(["a.b", "a_b", "c"], {}, ALL, NAMINGS[PREFIX])
    assert chosen.names == {"c": "eu.c"}
    assert [problem.path for problem in chosen.mistakes] == ["topics"]
    assert "'a.b' and 'a_b'" in chosen.mistakes[0].message


def test_a_name_that_is_too_long_in_the_target_is_left_out_and_told() -> None:
    chosen = choose(["x" * 246, "x" * 247], {}, ALL, NAMINGS[PREFIX])
    assert list(chosen.names) == ["x" * 246]
    assert "longer than 249" in chosen.left_out["x" * 247]


def test_identity_within_one_cluster_is_a_mistake() -> None:
    chosen = choose(["orders"], {}, ALL, NAMINGS[IDENTITY], one_cluster=True)
    assert chosen.names == {}
    assert [problem.path for problem in chosen.mistakes] == ["topics.names"]


@pytest.mark.parametrize("policy", [PREFIX, SUFFIX])
def test_a_pattern_that_matches_the_mirrors_own_output_is_a_mistake(policy: str) -> None:
    """KAFKA-9914, within one cluster: told before anything runs, not known by what it made."""
    chosen = choose(["orders", "visits"], {}, ALL, NAMINGS[policy], one_cluster=True)
    assert chosen.names == {}
    assert [problem.path for problem in chosen.mistakes] == ["topics.include"]
    assert NAMINGS[policy].target("orders") in chosen.mistakes[0].message


def test_within_one_cluster_patterns_that_leave_the_output_out_are_fine() -> None:
    patterns = Patterns("topics", [".*"], [r"eu\..*"])
    chosen = choose(["orders", "eu.orders"], {}, patterns, NAMINGS[PREFIX], one_cluster=True)
    assert chosen == ({"orders": "eu.orders"}, {}, ())
