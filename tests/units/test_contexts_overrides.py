"""What people allow of what is held, for how much, and when a hold or a refusal goes by itself."""

import msgspec
import pytest

from hub_contexts_parts import GateContext, GateValue, gate, gates, override, tenant, works


@pytest.fixture
async def hub(tmp_path):
    async with works(tmp_path) as made:
        yield made


@pytest.fixture
def small_pages(monkeypatch):
    monkeypatch.setattr("transom.hub.contexts.builder._PAGE", 10)
    monkeypatch.setattr("transom.hub.contexts.builder._INLINE", 10)


async def test_an_override_too_small_for_what_is_held_lets_nothing_pass_in_its_place(hub):
    many = gates(100)
    await hub.put(*many)
    await hub.build()
    hub.clock.advance(60)
    await hub.remove(*(each.key for each in many[:40]))
    await hub.put(override("share.gate.acme", 39))
    await hub.build()
    hub.clock.advance(60)
    await hub.remove(*(each.key for each in many[40:70]))
    await hub.build()
    assert (hub.holds, len(await hub.values())) == (["share.gate.acme"], 100)


async def test_an_override_is_for_what_was_held_and_for_nothing_that_comes_after(tmp_path):
    async with works(tmp_path) as hub:
        many = gates(100)
        await hub.put(*many)
        await hub.build()
        hub.clock.advance(60)
        await hub.remove(*(each.key for each in many[:30]))
        await hub.build()
        await hub.put(override("share.gate.acme", 30))
        await hub.build()
        assert (hub.holds, len(await hub.values())) == ([], 70)
        hub.clock.advance(60)
        await hub.remove(*(each.key for each in many[30:60]))
        await hub.build()
        assert (hub.holds, len(await hub.values())) == (["share.gate.acme"], 70)
        again = await hub.again()  # a restart does not make it good again either
        await again.build()
        assert (again.holds, len(await again.values())) == (["share.gate.acme"], 70)
        await again.put(override("share.gate.acme", 30, "2098-01-01T00:00:00Z"))  # given again, it is another
        await again.build()
        assert (again.holds, len(await again.values())) == ([], 40)


async def test_what_is_allowed_ahead_is_so_many_rows_and_no_more(tmp_path):
    async with works(tmp_path) as hub:
        many = gates(100)
        await hub.put(*many, override("share.gate.acme", 30))
        await hub.build()
        hub.clock.advance(60)
        for part in (many[:25], many[25:50]):
            await hub.remove(*(each.key for each in part))
            await hub.build()
            hub.clock.advance(60)
        assert (hub.holds, len(await hub.values())) == (["share.gate.acme"], 75)


@pytest.mark.usefixtures("small_pages")
async def test_what_comes_while_what_was_allowed_is_written_is_held_still(tmp_path):
    async with works(tmp_path) as hub:
        many = gates(100)
        await hub.put(*many)
        await hub.build()
        hub.clock.advance(60)
        await hub.remove(*(each.key for each in many[:40]))
        await hub.build()
        held = len(await hub.values())
        (hold,) = hub.builder.state.holds
        await hub.put(override("share.gate.acme", hold.deletes))
        while len(await hub.values()) == held:
            await hub.builder.do_some()
        await hub.remove(*(each.key for each in many[60:]))
        await hub.build()
        assert len(await hub.values()) == held - hold.deletes
        assert hub.holds == ["share.gate.acme"]


async def test_a_hold_tells_what_waits_in_it_now(hub):
    many = gates(100)
    await hub.put(*many)
    await hub.build()
    hub.clock.advance(60)
    await hub.remove(*(each.key for each in many[:40]))
    await hub.build()
    assert waiting(hub) == (0, 40)
    hub.clock.advance(60)
    await hub.put(tenant(title="Acme"))  # it waits with what is held
    await hub.build()
    assert waiting(hub) == (60, 40)
    for part in (many[:8], many[8:40]):  # declared again: few enough to pass, and too many
        hub.clock.advance(60)
        await hub.put(*part)
        await hub.build()
    assert waiting(hub) == (92, 0)
    assert b"".join((await hub.values()).values()).count(b"Acme") == 8


def waiting(hub):
    (hold,) = hub.builder.state.holds
    return hold.changes, hold.deletes


def allowing_what_is_listed(hub):
    (hold,) = hub.builder.state.holds
    given = override(hold.id, hold.changes + hold.deletes)
    return msgspec.structs.replace(given, spec={**given.spec, "content": hold.content})


@pytest.mark.usefixtures("small_pages")
async def test_what_was_listed_is_allowed_and_no_other_rows_in_its_place(hub):
    many = gates(100)
    await hub.put(*many)
    await hub.build()
    hub.clock.advance(60)
    await hub.remove(*(each.key for each in many[:40]))
    await hub.build()
    listed = allowing_what_is_listed(hub)
    # As many others by the time it is given.
    hub.clock.advance(60)
    await hub.put(*many[:40])
    await hub.remove(*(each.key for each in many[40:80]))
    await hub.put(listed)
    await hub.build()
    left = len(await hub.values())
    hub.clock.advance(60)
    await hub.build()
    assert (hub.holds, len(await hub.values())) == (["share.gate.acme"], left)
    await hub.put(allowing_what_is_listed(hub))
    await hub.build()
    assert (hub.holds, set(await hub.values())) == ([], {f"gate/acme/{each.metadata.name}" for each in KEPT})


KEPT = [*gates(40), *gates(100)[80:]]


@pytest.mark.usefixtures("small_pages")
async def test_what_was_listed_goes_to_its_end_whatever_is_looked_at_meanwhile(hub):
    many = gates(100)
    await hub.put(*many)
    await hub.build()
    hub.clock.advance(60)
    await hub.remove(*(each.key for each in many[:40]))
    await hub.build()
    held, listed = len(await hub.values()), allowing_what_is_listed(hub)
    await hub.put(listed)
    while len(await hub.values()) == held:
        await hub.builder.do_some()
    await hub.put(override("soak", 3))  # what is held is looked at again
    for turn in range(100):
        hub.clock.advance(60)
        await hub.put(gate("g0099", value=str(turn)))  # and could be so for ever
        await hub.builder.do_some()
    assert (hub.holds, len(await hub.values())) == ([], held - listed.spec["upTo"])


async def test_what_was_listed_and_is_gone_allows_nothing_ahead(hub):
    many = gates(100)
    await hub.put(*many)
    await hub.build()
    hub.clock.advance(60)
    await hub.remove(*(each.key for each in many[:40]))
    await hub.build()
    listed = allowing_what_is_listed(hub)
    hub.clock.advance(60)
    await hub.put(*many[:40])
    await hub.build()
    assert hub.holds == []
    await hub.put(listed)
    await hub.build()
    hub.clock.advance(60)
    await hub.remove(*(each.key for each in many[40:80]))
    await hub.build()
    assert (hub.holds, len(await hub.values())) == (["share.gate.acme"], 100)


async def test_an_override_of_a_duplicate_can_be_given_again(hub):
    await hub.put(gate("old", key="k"))
    for turn, name in enumerate(("one", "two")):
        hub.clock.advance(60)
        await hub.put(gate(name, key="k", value=name))
        await hub.build()
        assert hub.holds == ["duplicate.gate.acme"]
        hub.clock.advance(60)
        await hub.put(override("duplicate.gate.acme", 5, f"209{turn}-01-01T00:00:00Z"))
        await hub.build()
        assert (await hub.rows())["gate/k"].subject == f"Gate/acme/{name}"
        await hub.remove(gate(("old", "one")[turn]).key)
        await hub.build()
        assert hub.holds == []


async def test_a_hold_goes_with_its_cause(hub):
    many = gates(100)
    await hub.put(*many)
    await hub.build()
    hub.clock.advance(60)
    await hub.remove(*(each.key for each in many))
    await hub.build()
    assert hub.holds == ["share.gate.acme"]
    hub.clock.advance(60)
    await hub.put(*many)
    await hub.build()
    assert hub.holds == []
    assert len(await hub.values()) == 100


async def test_refusals_are_remembered_by_kind_and_go_with_it(hub):
    await hub.put(gate("g", value="broken"))
    await hub.build()
    two = await hub.again(GateContext(), Other())
    await two.build()
    assert [each.kind for each in two.builder.state.refused] == ["gate"]
    without = await two.again(Other())
    assert without.builder.state.refused == ()


class Other(GateContext):
    """Made of the same resources, and content with all of them."""

    name = "other"

    def build(self, subject, tenant):
        return GateValue("v")
