"""What is to be done for each mirrored topic: cases, and what holds whatever people set."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from transom.links.kafka.topic_plan import (
    ALWAYS,
    Adopt,
    Alter,
    Copy,
    Create,
    Grow,
    Refuse,
    Seen,
    Step,
    Target,
    plan,
)

DEFAULTS = {
    "cleanup.policy": "delete",
    "retention.ms": "604800000",
    "segment.bytes": "1073741824",
    "min.insync.replicas": "1",
    "unclean.leader.election.enable": "false",
    "remote.storage.enable": "false",
    "local.retention.ms": "-2",
    "leader.replication.throttled.replicas": "",
    "max.message.bytes": "1048588",
    "compression.type": "producer",
    "compression.lz4.level": "9",
    "message.timestamp.type": "CreateTime",
    "message.timestamp.before.max.ms": "9223372036854775807",
    "message.timestamp.after.max.ms": "3600000",
}
NAMES = {"orders": "eu.orders"}
NOTED = Copy("eu-to-us", "orders", ("cleanup.policy",))


def topic(partitions: int = 1, replicas: int = 1, **given_: str) -> Seen:
    """A topic with these settings of its own; underscores stand for dots."""
    own = {name.replace("_", "."): value for name, value in given_.items()}
    return Seen(partitions, replicas, DEFAULTS | own, frozenset(own))


def kept(partitions: int = 1, **given_: str) -> Seen:
    """A copy as this mirror made it, with these other settings."""
    made = {"cleanup_policy": "delete", "max_message_bytes": "1310735"} | given_
    made |= {name.replace(".", "_"): value for name, value in ALWAYS.items()}
    return topic(partitions, **made)


def target(*, brokers: int = 1, filled: bool = False, known: bool = True, **held: Seen) -> Target:
    topics = {name.replace("_", "."): seen for name, seen in held.items()}
    return Target(
        topics,
        topics.keys(),
        brokers,
        {},
        topics.keys() if filled else (),
        frozenset(DEFAULTS) if known else None,
    )


def steps(original: Seen, there: Target, replication_factor: int | None = None) -> list[Step]:
    return plan("eu-to-us", NAMES, {"orders": original}, there, replication_factor)


def created(original: Seen, there: Target | None = None) -> Create:
    (step,) = steps(original, there or target())
    assert isinstance(step, Create)
    return step


def test_a_new_copy_is_created_at_once_as_it_is_meant_to_be() -> None:
    """KAFKA-12254."""
    step = created(topic(3, retention_ms="1000", cleanup_policy="compact"))
    assert (step.partitions, step.replicas) == (3, 1)
    assert step.settings == {
        "cleanup.policy": "compact",
        "retention.ms": "1000",
        "max.message.bytes": "1310735",
        **ALWAYS,
    }
    assert step.noted == Copy("eu-to-us", "orders", ("cleanup.policy", "retention.ms"))
    assert str(step) == (
        "create 'eu.orders' as the copy of 'orders': 3 partitions, 1 replica, "
        "cleanup.policy=compact, retention.ms=1000, max.message.bytes=1310735, "
        "message.timestamp.type=CreateTime, message.timestamp.before.max.ms=9223372036854775807, "
        "message.timestamp.after.max.ms=9223372036854775807, compression.type=producer"
    )


@pytest.mark.parametrize(
    "setting",
    [
        "min_insync_replicas",
        "unclean_leader_election_enable",
        "remote_storage_enable",
        "local_retention_ms",
        "leader_replication_throttled_replicas",
        "compression_lz4_level",
    ],
)
def test_settings_about_a_cluster_are_not_copied(setting: str) -> None:
    """MirrorMaker 2 overwrites `min.insync.replicas`, and a smaller target accepts no write any more."""
    original = topic(**{setting: "2"})
    assert setting.replace("_", ".") not in created(original).settings
    assert (
        steps(original, target(eu_orders=kept(**{setting: "3"}))._replace(copies={"eu.orders": NOTED})) == []
    )


@pytest.mark.parametrize(
    "given_",
    [
        {"compression_type": "zstd"},
        {"message_timestamp_type": "LogAppendTime"},
        {"message_timestamp_after_max_ms": "5", "message_timestamp_before_max_ms": "5"},
    ],
)
def test_what_would_change_records_on_their_way_is_never_copied(given_: dict[str, str]) -> None:
    assert created(topic(**given_)).settings == created(topic()).settings


def test_a_topic_that_is_compacted_by_its_clusters_default_is_compacted() -> None:
    original = topic()
    compacted = original._replace(values={**original.values, "cleanup.policy": "compact"})
    assert created(compacted).settings["cleanup.policy"] == "compact"


@pytest.mark.parametrize(
    ("largest", "wanted"), [("1048588", 1310735), ("10485760", 13107200), ("2147483647", 2147483647)]
)
def test_there_is_room_for_the_largest_batch_of_the_source(largest: str, wanted: int) -> None:
    """A record over 1 MB fails MirrorMaker 2's whole task."""
    original = topic()
    larger = original._replace(values={**original.values, "max.message.bytes": largest})
    assert created(larger).settings["max.message.bytes"] == str(wanted)


def test_a_larger_limit_of_the_target_stays() -> None:
    there = target(eu_orders=kept(max_message_bytes="9000000"))._replace(copies={"eu.orders": NOTED})
    assert steps(topic(), there) == []


def test_settings_that_the_targets_version_does_not_know_are_left_out() -> None:
    original = topic(message_format_version="3.0", flush_ms="1", retention_ms="5")
    assert set(created(original).settings) == {
        *ALWAYS,
        "retention.ms",
        "cleanup.policy",
        "max.message.bytes",
    }
    assert "flush.ms" in created(original, target(known=False)).settings


@pytest.mark.parametrize(
    ("configured", "original", "brokers", "wanted"),
    [(None, 3, 5, 3), (None, 3, 1, 1), (2, 3, 5, 2), (3, 1, 2, 2), (None, 0, 3, 1)],
)
def test_replicas(configured: int | None, original: int, brokers: int, wanted: int) -> None:
    (step,) = steps(topic(replicas=original), target(brokers=brokers), configured)
    assert isinstance(step, Create)
    assert step.replicas == wanted


def copy_of(held: Seen, *settings: str) -> Target:
    """A target with a copy of `orders`, which has these settings from it."""
    noted = Copy("eu-to-us", "orders", tuple(sorted({"cleanup.policy", *settings})))
    return target(eu_orders=held)._replace(copies={"eu.orders": noted})


def test_a_copy_that_is_as_it_should_be_needs_nothing() -> None:
    assert steps(topic(3), copy_of(kept(partitions=3))) == []


def test_partitions_follow() -> None:
    (step,) = steps(topic(5), copy_of(kept(partitions=3)))
    assert step == Grow("orders", "eu.orders", 5, 3)
    assert str(step) == "add 2 partitions to 'eu.orders', so that it has 5 as 'orders' has"


def altered(original: Seen, there: Target) -> Alter:
    (step,) = steps(original, there)
    assert isinstance(step, Alter)
    return step


def test_settings_that_are_added_changed_and_removed_at_the_source_follow() -> None:
    added = altered(topic(retention_ms="5"), copy_of(kept()))
    assert (added.settings, added.removed) == ({"retention.ms": "5"}, ())
    assert added.noted.settings == ("cleanup.policy", "retention.ms")
    changed = altered(topic(retention_ms="6"), copy_of(kept(retention_ms="5"), "retention.ms"))
    assert (changed.settings, changed.removed) == ({"retention.ms": "6"}, ())
    removed = altered(topic(), copy_of(kept(retention_ms="6"), "retention.ms"))
    assert (removed.settings, removed.removed) == ({}, ("retention.ms",))
    assert removed.noted.settings == ("cleanup.policy",)
    assert str(removed) == "have 'eu.orders' follow 'orders': retention.ms as the target's default"
    policy = altered(topic(cleanup_policy="compact"), copy_of(kept()))
    assert policy.settings == {"cleanup.policy": "compact"}


def test_what_people_set_on_a_copy_stays_where_the_original_says_nothing() -> None:
    assert steps(topic(), copy_of(kept(retention_ms="7", min_insync_replicas="2"))) == []


def test_what_people_set_on_a_copy_gives_way_where_the_original_says_something() -> None:
    step = altered(topic(retention_ms="5"), copy_of(kept(retention_ms="7"), "retention.ms"))
    assert step.settings == {"retention.ms": "5"}


def test_a_setting_of_the_original_is_set_where_the_targets_default_is_the_same_too() -> None:
    """The default may change; the original would not."""
    step = altered(topic(retention_ms=DEFAULTS["retention.ms"]), copy_of(kept()))
    assert step.settings == {"retention.ms": DEFAULTS["retention.ms"]}


def test_an_empty_topic_that_is_there_is_taken_and_made_as_it_should_be() -> None:
    found = steps(topic(2, cleanup_policy="compact"), target(eu_orders=topic()))
    assert [type(step) for step in found] == [Adopt, Grow, Alter]
    assert str(found[0]) == "take 'eu.orders', which has no records, as the copy of 'orders'"


REFUSED = {
    "records of others": (
        target(eu_orders=topic(), filled=True),
        "the target has a topic of this name, with records",
    ),
    "the copy of another mirror": (
        target(eu_orders=kept())._replace(copies={"eu.orders": Copy("other", "orders")}),
        "mirror 'other' makes it from its 'orders'",
    ),
    "the copy of another topic": (
        target(eu_orders=kept())._replace(copies={"eu.orders": Copy("eu-to-us", "visits")}),
        "it is the copy of 'visits'",
    ),
    "more partitions than the original": (
        copy_of(kept(partitions=3)),
        "it has 3 partitions and the original 1",
    ),
    "a name that Kafka does not tell from another": (
        target()._replace(names=["eu_orders"]),
        "because of 'eu_orders' there",
    ),
}


@pytest.mark.parametrize(("there", "words"), REFUSED.values(), ids=REFUSED)
def test_refused_in_words(there: Target, words: str) -> None:
    (step,) = steps(topic(), there)
    assert isinstance(step, Refuse)
    assert words in step.why
    assert str(step).startswith("do not mirror 'orders' to 'eu.orders': ")


SETTINGS = some.dictionaries(
    some.sampled_from(["cleanup_policy", "retention_ms", "segment_bytes", "min_insync_replicas"]),
    some.sampled_from(["1", "2"]),
)


@given(changes=some.lists(some.tuples(some.booleans(), SETTINGS, some.integers(0, 2)), max_size=6))
def test_once_the_steps_are_done_nothing_is_left_to_do_and_people_keep_what_is_theirs(
    changes: list[tuple[bool, dict[str, str], int]],
) -> None:
    """However the original and the copy are changed in turn."""
    original, held, noted = topic(), kept(), NOTED
    for at_source, given_, more in changes:
        if at_source:
            original = topic(original.partitions + more, **given_)
        else:
            theirs = {name.replace("_", "."): value for name, value in given_.items()}
            held = held._replace(values={**held.values, **theirs}, given=held.given | theirs.keys())
        before = held
        there = target(eu_orders=held)._replace(copies={"eu.orders": noted})
        for step in steps(original, there):
            if isinstance(step, Grow):
                held = held._replace(partitions=step.partitions)
            else:
                assert isinstance(step, Alter)
                values = {**held.values, **step.settings} | {name: DEFAULTS[name] for name in step.removed}
                held = held._replace(
                    values=values, given=(held.given | step.settings.keys()) - set(step.removed)
                )
                noted = step.noted
        assert steps(original, target(eu_orders=held)._replace(copies={"eu.orders": noted})) == []
        for name in ("retention.ms", "segment.bytes"):
            if name in original.given:
                assert held.values[name] == original.values[name]
            elif name not in noted.settings and name in before.given and name in held.given:
                assert held.values[name] == before.values[name]
        assert held.values["min.insync.replicas"] == before.values["min.insync.replicas"]
