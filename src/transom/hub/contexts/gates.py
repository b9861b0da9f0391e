"""The soak gate: what goes in bulk goes to one region first, to the others once that one served well with it.

A pure state machine: what is known goes in, the revision up to which the other regions' bulk lane may go
comes out (`approved`). A record refused in the soak region closes the gate until somebody allows `soak` by
name, which opens it for what waits then; all else (an error, a gateway that fell silent, a worker that ails)
begins the time of waiting again. Restricting rows never come here: they take the fast lane. Next on the
data's way: `rows` ends at the gate.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec

from transom.model.roads import GatewayBeat

NOBODY = ""
"""The soak region when no gateway is heard anywhere. Where there never was one, time alone opens the gate;
where there were some, their silence is no sign of health.
"""
_TROUBLE_CHARACTERS_MAX = 300


class Counts(msgspec.Struct, frozen=True):
    """What a gateway had counted when it was looked at first."""

    refused: int
    errors: int


class Soak(msgspec.Struct, frozen=True):
    """Bulk rows up to `target` are tried in `region`.

    `since`: it has served well from then on (monotonic seconds; None: it does not, or not yet, and `trouble`
    says why). `failed`: why the gate stays closed until somebody decides.
    """

    target: int
    region: str
    counts: dict[str, Counts] = {}
    since: float | None = None
    trouble: str = ""
    failed: str = ""


class Gates(msgspec.Struct, frozen=True):
    """Bulk rows up to `approved` may go everywhere; those above are in `soak`, or wait for one to begin.

    `peopled` are the regions, of those there are, in which a gateway was ever heard.
    """

    approved: int = 0
    soak: Soak | None = None
    peopled: tuple[str, ...] = ()

    def upto(self, region: str) -> int | None:
        """The revision up to which the bulk lane of a region may go; None: there is no gate."""
        return None if self.soak is not None and self.soak.region == region else self.approved

    def kept(self) -> "Gates":
        """What is remembered beyond this process: waiting begins again in the next."""
        soak = self.soak and msgspec.structs.replace(self.soak, since=None, trouble="")
        return msgspec.structs.replace(self, soak=soak)


class Sight(NamedTuple):
    """What is known now. `newest` is the newest bulk row, `writing` whether more of its kind are coming,
    `heard` the newest beats of gateways heard lately, `known` the names of those that were not forgotten yet.
    People let up to `allowed` rows pass (0: none) up to the revision `allowed_upto`, and `waiting` are as
    many above `approved` and up to there. `now` is in monotonic seconds.
    """

    newest: int
    writing: bool
    waiting: int
    regions: frozenset[str]
    frozen: frozenset[str]
    heard: Mapping[str, Sequence[GatewayBeat]]
    epoch: int
    known: Mapping[str, Collection[str]]
    allowed: int
    allowed_upto: int
    now: float


class Grant(msgspec.Struct, frozen=True):
    """What one override of the soak is for: the rows that waited when it was looked at first, up to `upto`.

    `uid` and `generation` are the override's: given again, it is another.
    """

    uid: str
    generation: int
    upto: int


class Rules(NamedTuple):
    """`soak_seconds` of good service open the gate; `soak_region` is tried first where it can be."""

    soak_seconds: float = 60.0
    soak_region: str = ""


def looked(gates: Gates, sight: Sight, rules: Rules) -> Gates:
    """The gates after a look."""
    heard = {region for where in (sight.heard, sight.known) for region, names in where.items() if names}
    peopled = tuple(sorted(heard.union(gates.peopled) & sight.regions))
    if sight.newest <= gates.approved:
        return Gates(gates.approved, None, peopled)
    if len(sight.regions) <= 1:
        return Gates(sight.newest, None, peopled)
    if gates.approved < sight.allowed_upto and sight.waiting <= sight.allowed:
        # What came after that was allowed to nobody.
        return looked(Gates(sight.allowed_upto, None, peopled), sight, rules)
    soak = gates.soak
    if soak is None or not _can_go_on(soak, sight):
        soak = _begun(sight, rules)
    if not soak.failed and sight.writing and soak.target < sight.newest:
        soak = msgspec.structs.replace(soak, target=sight.newest, since=None)
    soak = _watched(soak, sight, peopled)
    if soak.since is not None and sight.now - soak.since >= rules.soak_seconds:
        return Gates(soak.target, None, peopled)
    return Gates(gates.approved, soak, peopled)


def _can_go_on(soak: Soak, sight: Sight) -> bool:
    """Whether the soak's region is one still; where nobody was heard, somebody may be heard by now."""
    if soak.region == NOBODY:
        return not any(sight.heard.get(region) for region in sight.regions - sight.frozen)
    return soak.region in sight.regions


def _begun(sight: Sight, rules: Rules) -> Soak:
    fit = sorted(region for region in sight.regions - sight.frozen if sight.heard.get(region))
    region = rules.soak_region if rules.soak_region in fit else next(iter(fit), NOBODY)
    counts = {beat.gateway: _counts(beat) for beat in sight.heard.get(region, ())}
    return Soak(sight.newest, region, counts)


def _watched(soak: Soak, sight: Sight, peopled: Sequence[str]) -> Soak:
    """The soak after a look at its region."""
    if soak.failed:
        return soak
    if soak.region == NOBODY and peopled:
        silent = f"no gateway is heard where nothing is frozen; there were some in {', '.join(peopled)}"
        return msgspec.structs.replace(soak, since=None, trouble=silent[:_TROUBLE_CHARACTERS_MAX])
    if soak.region == NOBODY:
        return msgspec.structs.replace(
            soak,
            since=sight.now if soak.since is None else soak.since,
            trouble="no gateway was ever heard anywhere; it opens when the time is over",
        )
    beats = sight.heard.get(soak.region, ())
    refused = next((why for beat in beats if (why := _refused(beat, soak.counts.get(beat.gateway)))), "")
    if refused:
        return msgspec.structs.replace(soak, since=None, trouble="", failed=refused)
    trouble = _trouble(soak, sight, beats)
    counts = {**soak.counts, **{beat.gateway: _counts(beat) for beat in beats}}
    if trouble:
        return msgspec.structs.replace(soak, counts=counts, since=None, trouble=trouble)
    since = sight.now if soak.since is None else soak.since
    return msgspec.structs.replace(soak, counts=counts, since=since, trouble="")


def _refused(beat: GatewayBeat, before: Counts | None) -> str:
    # One that was started anew counts from 0; one that was not seen before may have refused others long ago.
    if before is None or beat.refused_count in (0, before.refused):
        return ""
    examples = "; ".join(f"{key}: {why}" for key, why in list(beat.refused.items())[-3:])
    return f"gateway {beat.gateway!r} of {beat.region!r} refused records ({examples})"


def _trouble(soak: Soak, sight: Sight, beats: Sequence[GatewayBeat]) -> str:
    """Why the soak region does not serve well with what is tried, empty when it does."""
    if soak.region in sight.frozen:
        return f"region {soak.region!r} is frozen"
    # One that was forgotten is waited for no more; one that speaks again is looked at as any other.
    known = set(sight.known.get(soak.region, ()))
    silent = sorted((set(soak.counts) & known) - {beat.gateway for beat in beats})
    if silent or not beats:
        return f"no word from {', '.join(silent) or 'any gateway'} of {soak.region!r}"
    for beat in beats:
        wrong = _wrong_with(beat, soak, sight.epoch)
        if wrong:
            return f"gateway {beat.gateway!r} of {soak.region!r} {wrong}"
    return ""


def _wrong_with(beat: GatewayBeat, soak: Soak, epoch: int) -> str:
    before = soak.counts.get(beat.gateway)
    if beat.epoch != epoch or beat.bulk_revision < soak.target:
        return "has not read it yet"
    if not beat.ready:
        return "is not ready"
    if beat.workers:
        return f"has workers that do not run: {', '.join(sorted(beat.workers))}"
    if before is not None and _counts(beat) != before:
        return "failed requests, or was started anew"
    return ""


def _counts(beat: GatewayBeat) -> Counts:
    return Counts(beat.refused_count, beat.errors)
