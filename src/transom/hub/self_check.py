"""What the hub looks at by itself once an hour: what quotas say is used, and where the audit is.

A sum that is not what is there is a broken promise, and said as loudly as can be. The audit's head goes to
the hub's log, signed: whoever collects logs keeps it where nobody with the store alone can take it back.
"""

from prometheus_client import Gauge

from transom.hub.audit import Audit
from transom.hub.store import Store
from transom.runtime.clock import Clock
from transom.runtime.randomness import Randomness
from transom.runtime.telemetry import get_logger, metrics

log_event = get_logger(__name__)

_EVERY_SECONDS = 3600.0

_differences = Gauge(
    "transom_quota_differences",
    "Sums of quotas that are not what is there, when last counted",
    registry=metrics,
)


async def check_now_and_then(store: Store, audit: Audit, clock: Clock, randomness: Randomness) -> None:
    """Check once an hour, for ever."""
    while True:
        await check(store, audit)
        await clock.sleep(randomness.jitter(_EVERY_SECONDS))


async def check(store: Store, audit: Audit) -> None:
    """Check once."""
    found = await store.quota_differences()
    _differences.set(len(found))
    for each in found:
        log_event.error(
            "a quota does not say what is used; delete it and make it again, then it counts anew",
            quota=str(each.quota),
            measure=each.measure,
            held=each.held,
            counted=each.counted,
        )
    head = await audit.head()
    log_event.info(
        "the audit's head", head=bytes(head.head).decode(), signature=head.signature, key_id=head.key_id
    )
