"""How `transom contexts` tells what the hub says: rows and lines, without asking anything."""

from collections.abc import Iterator

from transom.cli.output import age, span
from transom.model.names import spoken
from transom.model.resources import JsonObject

STATUS_HEAD = (
    "REGION",
    "STATE",
    "AGE",
    "FAST",
    "BULK",
    "PENDING",
    "GATEWAYS",
    "ROWS",
    "REFUSED",
    "DIFFERENCES",
)
DIFF_HEAD = ("REGION", "CHANGE", "KEY", "TENANT", "LANE", "REVISION")
HOLDS_HEAD = ("HOLD", "GUARD", "KIND", "TENANT", "CHANGES", "DELETES", "OF", "SINCE", "EXAMPLES")

_EXAMPLES_SHOWN = 3


def status_row(item: JsonObject) -> tuple[str, ...]:
    """A region: its state, how old its oldest gateway's knowledge is, how far both lanes are.

    A gateway that fell silent does not count for the age while others speak.
    """
    beats: list[JsonObject] = item.get("gateways", [])
    there = [beat for beat in beats if not beat.get("silent")]
    ages = [beat.get("ageSeconds") for beat in there or beats]
    # A gateway that never knew anything is older than any that did.
    known = [seconds for seconds in ages if seconds is not None]
    return (
        item["region"],
        _state(item),
        span(max(known)) if known and len(known) == len(ages) else "-",
        str(item["fastRevision"]),
        str(item["bulkRevision"]),
        f"{item['pendingFast']}+{item['pendingBulk']}",
        ready_of(beats),
        str(max((beat.get("rows", 0) for beat in beats), default=0)),
        str(sum(beat.get("refusedCount", 0) for beat in beats)),
        str(item["sweepDifferences"]),
    )


def _state(item: JsonObject) -> str:
    if item["frozen"]:
        return "frozen"
    if not item["verified"]:
        return "filling"
    return "soaking" if item["soaking"] else "open"


def ready_of(beats: list[JsonObject]) -> str:
    """How many gateways are ready, of how many: 2/3."""
    return f"{sum(bool(beat.get('ready')) for beat in beats)}/{len(beats)}"


def diff_row(region: str, item: JsonObject) -> tuple[str, ...]:
    """A context that has not gone out."""
    return (
        region,
        item["change"],
        item["key"],
        item.get("tenant") or "-",
        item["lane"],
        str(item["revision"]),
    )


def rows_held(hold: JsonObject) -> int:
    """How many rows are held back, deleted ones among them."""
    return int(hold["changes"]) + int(hold["deletes"])


def hold_row(hold: JsonObject) -> tuple[str, ...]:
    """Something that a guard holds back."""
    examples: list[str] = hold.get("examples", [])
    more = ", …" if len(examples) > _EXAMPLES_SHOWN else ""
    return (
        hold["id"],
        hold["guard"],
        hold.get("kind") or "-",
        hold.get("tenant") or "-",
        str(hold["changes"]),
        str(hold["deletes"]),
        str(hold["of"]),
        f"{age(hold['since'])} ago" if hold.get("since") else "-",
        ", ".join(examples[:_EXAMPLES_SHOWN]) + more or "-",
    )


def gateway_lines(item: JsonObject) -> Iterator[str]:
    """What the gateways of a region have to complain about: records they refused, workers that do not run."""
    for beat in item.get("gateways", []):
        who = f"gateway {beat['gateway']} of {item['region']}"
        yield from (f"{who} refused {key}: {why}" for key, why in beat.get("refused", {}).items())
        yield from (f"{who}: {worker}: {why}" for worker, why in beat.get("workers", {}).items())


def refusal_line(item: JsonObject) -> str:
    """A subject of which no good context could be built."""
    subject = spoken(item["subject"])
    return f"{subject}: no good {item['kind']} context, the last good one stays: {item['why']}"
