"""The guard of shares as pure rules: what counts, against whom, for how long, and what people allow."""

import msgspec
import pytest

from hub_contexts_parts import gate, override
from transom.hub.contexts.guards import (
    SHARE,
    Limits,
    ShareGuard,
    Window,
    allowances,
    hold_id,
    hold_of,
    weighs,
    weights,
)
from transom.hub.contexts.planning import Cause, Draft
from transom.hub.contexts.row import FAST, NOTHING, Row
from transom.hub.contexts.state import Scope

SUBJECT, TENANT, SCHEMA, AGAIN = (
    Cause("subject", "Gate/acme/g"),
    Cause("tenant", "acme"),
    Cause("schema", "gate/2"),
    Cause("again", "share.gate"),
)
ALL_SCOPES = {Scope("gate"): 1000, Scope("gate", "acme"): 1000, Scope("gate", "other"): 1000}


def row(number=0, tenant="acme", **more):
    given = {"regions": "*", "restricts": False, "deleted": False, "value": b"1", **more}
    return Row(
        key=f"gate/{tenant}/{number}",
        kind="gate",
        tenant=tenant,
        subject=str(gate(f"g{number}", tenant).key),
        schema=1,
        revision=1,
        added=1,
        lane=FAST,
        leaving="",
        former="",
        **given,
    )


def changed(number=0, tenant="acme", cause=SUBJECT):
    return Draft(row(number, tenant, value=b"2"), row(number, tenant), cause)


def deleted(number=0, tenant="acme", cause=SUBJECT):
    return Draft(row(number, tenant, value=NOTHING, deleted=True), row(number, tenant), cause)


def judged(guard, drafts, of, allowed=None, now=0.0):
    asked = guard.in_question(weights(drafts), now)
    return guard.judge(drafts, {scope: of[scope] for scope in asked}, allowed or {}, now)[:2]


@pytest.mark.parametrize(
    ("draft", "counts"),
    [
        (Draft(row(), None, SUBJECT), False),
        (Draft(row(), row(deleted=True), SUBJECT), False),
        (changed(), True),
        (deleted(), True),
        (changed(cause=SCHEMA), False),
        (changed(cause=AGAIN), True),
        (Draft(row(regions=",eu,"), row(), TENANT), False),
        (Draft(row(value=b"2", restricts=True), row(), SUBJECT), False),
        (Draft(row(value=b"2", restricts=True), row(), TENANT), False),
        (Draft(row(value=b"2", restricts=True), row(), SCHEMA), True),
        (Draft(row(value=b"3", restricts=True), row(value=b"2", restricts=True), SCHEMA), False),
        (Draft(row(value=b"1"), row(value=b"2", restricts=True), TENANT), True),
    ],
)
def test_what_takes_something_away_counts(draft, counts):
    assert weighs(draft) is counts


def test_more_than_a_share_of_a_tenant_is_held_and_nobody_else_s():
    guard = ShareGuard(Limits())
    mine = [changed(number) for number in range(21)]
    others = [changed(number, "other") for number in range(5)]
    of = {Scope("gate", "acme"): 100, Scope("gate", "other"): 100, Scope("gate"): 1000}
    passing, (held,) = judged(guard, [*mine, *others], of)
    assert (passing, held.scope, held.drafts) == (others, Scope("gate", "acme"), mine)
    assert judged(guard, [*mine[:20], *others], of) == ([*mine[:20], *others], [])


def test_more_than_a_share_of_the_kind_is_held_over_all_tenants():
    guard = ShareGuard(Limits())
    drafts = [deleted(number, f"t{number}") for number in range(21)]
    passing, (held,) = judged(guard, [*drafts, Draft(row(99), None, SUBJECT)], {Scope("gate"): 100})
    assert len(passing) == 1
    assert held.scope == Scope("gate")
    hold = hold_of(held, 7.0)
    assert (hold.id, hold.deletes, hold.changes, hold.of, hold.since) == ("share.gate", 21, 0, 100, 7.0)


def test_few_rows_are_no_flood():
    guard = ShareGuard(Limits(min_rows=10))
    assert judged(guard, [deleted(n) for n in range(10)], {})[1] == []
    assert judged(guard, [deleted(n) for n in range(11)], {Scope("gate", "acme"): 11, Scope("gate"): 99})[1]


def own(count, tenant="acme"):
    return [changed(number, tenant, Cause("tenant", tenant)) for number in range(count)]


def test_a_tenant_s_own_change_is_what_was_asked_for_however_large_it_is():
    guard = ShareGuard(Limits())
    assert judged(guard, own(50), {Scope("gate"): 50, Scope("gate", "acme"): 50}) == (own(50), [])
    guard.passed(own(50), 0.0)
    # Nor does it use up what others may change, or what it may be changed by others.
    single = [changed(99), changed(1, "other")]
    assert judged(guard, single, {Scope("gate"): 60, Scope("gate", "acme"): 51})[1] == []
    assert judged(guard, own(50), {Scope("gate"): 50}, now=1.0)[1] == []


def test_several_tenants_own_changes_count_for_the_kind_together():
    of = {Scope("gate"): 100}
    together = [draft for number in range(7) for draft in own(3, f"t{number}")]
    (held,) = judged(ShareGuard(Limits()), together, of)[1]
    assert (held.scope, len(held.drafts)) == (Scope("gate"), 21)
    assert judged(ShareGuard(Limits()), together[:20], of)[1] == []
    # One after the other, within the window; and together with what else is changed.
    guard = ShareGuard(Limits(seconds=10.0))
    for number in range(6):
        guard.passed(own(3, f"t{number}"), float(number))
    single = [changed(number, "other") for number in range(3)]
    assert judged(guard, single, of, now=6.0)[1][0].scope == Scope("gate", "other")
    (held,) = judged(guard, own(3, "t9"), of, now=6.0)[1]
    assert held.scope == Scope("gate", "t9")  # nobody else waits for it
    assert judged(guard, own(3, "t9"), of, {"share.gate.t9": 3}, now=6.0)[1] == []
    assert judged(guard, own(3, "t9"), of, {"share.gate": 3}, now=6.0)[1] == []
    assert judged(guard, own(3, "t9"), of, now=12.0)[1] == []


def test_what_went_shortly_before_counts_along_and_what_went_long_ago_does_not():
    guard = ShareGuard(Limits(seconds=10.0))
    of = {Scope("gate", "acme"): 100, Scope("gate"): 1000}
    first = [changed(number) for number in range(15)]
    guard.passed(first, 0.0)
    second = [changed(number) for number in range(15, 25)]
    assert judged(guard, second, of, now=9.9)[1]
    assert judged(guard, second, of, now=10.1)[1] == []


def test_people_let_pass_what_they_name_up_to_how_much():
    guard = ShareGuard(Limits())
    drafts = [deleted(number) for number in range(50)]
    of = {Scope("gate", "acme"): 100, Scope("gate"): 1000}
    assert judged(guard, drafts, of, {"share.gate.acme": 49})[1]
    assert judged(guard, drafts, of, {"share.gate.other": 50, "share.gate": 50})[1]
    assert judged(guard, drafts, of, {"share.gate.acme": 50})[1] == []


def test_switched_off_it_holds_nothing():
    guard = ShareGuard(Limits(share=None))
    drafts = [deleted(number) for number in range(50)]
    assert judged(guard, drafts, ALL_SCOPES) == (drafts, [])


def test_how_many_rows_must_be_counted_is_enough_to_judge():
    guard = ShareGuard(Limits())
    asked = guard.in_question(weights([deleted(number) for number in range(20)]), 0.0)
    enough = asked[Scope("gate")]
    assert guard.too_many(Scope("gate"), {Scope("gate"): 20}, enough, 0.0) is False
    assert guard.too_many(Scope("gate"), {Scope("gate"): 20}, enough - 2, 0.0) is True


def test_the_window_is_bounded():
    window = Window(10.0)
    for number in range(10_000):
        window.note(Scope("gate", f"t{number}"), 1, 0.0)
    assert len(window._noted) <= 4096
    for tick in range(10_000):
        window.note(Scope("gate"), 1, tick / 1000)
    assert len(window._noted[Scope("gate")]) <= 110
    assert window.recent(Scope("gate"), 9.999) == 10_000
    assert window.recent(Scope("gate"), 30.0) == 0


def test_an_override_holds_until_its_time():
    soon = override("share.gate", 5, "2030-01-01T00:00:00Z")
    until = 1893456000.0
    assert allowances([soon], until - 1) == {"share.gate": 5}
    assert allowances([soon], until) == {}
    for strange in ({}, {"upTo": 1, "until": "tomorrow"}, {"upTo": "1", "until": soon.spec["until"]}):
        assert allowances([msgspec.structs.replace(soon, spec=strange)], 0.0) == {}


def test_holds_have_names_that_resources_can_have():
    assert hold_id(SHARE, "api_key", "acme") == "share.api-key.acme"
    assert hold_id(SHARE, "api_key") == "share.api-key"
    assert hold_id("soak") == "soak"
