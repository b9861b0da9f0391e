"""transom's Kafka mirror beside MirrorMaker 2: the same brokers, the same data, in turns.

One source and one target broker, the mirror and this process share the machine's cores. What a batch holds is
exact (`mirror_load.py`); MirrorMaker has its published tuning (`engines/mirrormaker.py`) and is told the
codec, which it would undo otherwise. Records per CPU-second are those of a mirror's own process, between two
moments of one long backlog, so that whatever is under way is so at both; the part before is as long as Java
needs to compile what it runs. A ratio is of two runs that follow each other; of those, the median.
"""

import time
from collections.abc import Mapping
from statistics import median
from typing import NamedTuple

import uvloop

from benchmarks import mirror_groups, mirror_latency
from benchmarks.mirror_load import make_batches, wire
from benchmarks.mirror_sides import Clusters, Moment, Side, Starter, clusters, mirrormaker, passing, transom
from benchmarks.report import figure, note, percentile
from engines.proxy import KAFKA, Proxy

RUNS = 3
SIDES: Mapping[str, Starter] = {"mirror": transom, "mirrormaker": mirrormaker}
PARTITIONS = 8
BATCH_BYTES = 16 << 10
ROUND_TRIP_SECONDS = 0.1
_MANY = 500
_BACKLOG_BYTES = 1 << 30


class Kind(NamedTuple):
    """A kind of data: how large a record's value is, a batch at most, and how the topic keeps it."""

    record_bytes: int
    batch_bytes: int
    codec: str
    warm: int
    """How many records pass before it is measured,"""
    records: int
    """and how many then."""
    cpu_ratio_min: float


KINDS = {
    "100b": Kind(100, BATCH_BYTES, "none", 2_000_000, 2_000_000, 10),
    "100b_lz4": Kind(100, BATCH_BYTES, "lz4", 2_000_000, 2_000_000, 10),
    "1kib": Kind(1024, BATCH_BYTES, "none", 300_000, 300_000, 3),
    "single": Kind(100, 1, "none", 150_000, 150_000, 1),
}
"""LZ4 batches are as many records as fit 16 KiB before they are compressed, which the source's broker does:
they take 9 KiB. `single`: one record a batch.
"""
_TAIL = 0.15
"""What is left of a backlog when the measurement ends, as a share of what was measured."""


async def main() -> None:
    """Print the figures."""
    async with clusters() as both:
        rates = [await work(both, name, kind) for name, kind in KINDS.items()]
        await distance(both)
        await latency(both, rates[0] / 10)
        await memory(both)
        await groups(both)


# --- processor time and throughput ---


async def work(both: Clusters, name: str, kind: Kind) -> float:
    """Print records per CPU-second and per second; returns MirrorMaker's records a second."""
    topic = f"work-{name}".replace("_", "-")
    batches, each = make_batches(kind.record_bytes, kind.batch_bytes)
    total = kind.warm + int(kind.records * (1 + _TAIL))
    await both.at_source.create(topic, PARTITIONS, compression_type=kind.codec.replace("none", "producer"))
    await both.at_source.load(topic, PARTITIONS, batches, total // each + 1)
    passed: dict[str, list[_Passed]] = {side: [] for side in SIDES}
    for run in range(RUNS):
        for side in list(SIDES)[:: 1 if run % 2 else -1]:
            settings = {"target.producer.compression.type": kind.codec}
            async with SIDES[side](both.source.bootstrap, both.target.bootstrap, topic, settings) as mirror:
                passed[side].append(await _pass(both, mirror, topic, [kind.warm, kind.warm + kind.records]))
            await both.at_target.delete(mirror.copy(topic))
    await both.at_source.delete(topic)
    for side, runs in passed.items():
        _note_side(f"{side}_{name}", runs)
    pairs = list(zip(passed["mirror"], passed["mirrormaker"], strict=True))
    ratios = [one.per_cpu_second / other.per_cpu_second for one, other in pairs]
    wanted = f">= {kind.cpu_ratio_min}"
    figure(f"mirror_{name}_per_cpu_over_mirrormaker", median(ratios), "", target=wanted, runs=ratios)
    ratios = [one.per_second / other.per_second for one, other in pairs]
    figure(f"mirror_{name}_throughput_over_mirrormaker", median(ratios), "", target=">= 3", runs=ratios)
    await _limit(both, name, batches, each, kind.records)
    return median(run.per_second for run in passed["mirrormaker"])


class _Passed(NamedTuple):
    """What passed between two moments."""

    per_cpu_second: float
    per_second: float
    cores: float
    brokers_cores: float
    memory_bytes: int


def _note_side(name: str, runs: list[_Passed]) -> None:
    per_cpu, rates = [run.per_cpu_second for run in runs], [run.per_second for run in runs]
    note(f"{name}_records_per_cpu_second", median(per_cpu), "1/s", runs=per_cpu)
    note(f"{name}_records_per_second", median(rates), "1/s", runs=rates)
    note(f"{name}_cores", median(run.cores for run in runs), "cores")
    note(f"{name}_cores_of_brokers", median(run.brokers_cores for run in runs), "cores")
    note(f"{name}_memory", max(run.memory_bytes for run in runs) / 2**20, "MiB")


async def _pass(both: Clusters, mirror: Side, topic: str, marks: list[int]) -> _Passed:
    brokers = [*both.source.processes, *both.target.processes]
    first, last = await passing(mirror, both.at_target, topic, marks, brokers)
    return _between(first, last)


def _between(first: Moment, last: Moment) -> _Passed:
    records, seconds = last.records - first.records, last.at_seconds - first.at_seconds
    cpu = last.cpu_seconds - first.cpu_seconds
    return _Passed(
        records / cpu,
        records / seconds,
        cpu / seconds,
        (last.brokers_cpu_seconds - first.brokers_cpu_seconds) / seconds,
        last.memory_bytes,
    )


async def _limit(both: Clusters, name: str, batches: list[bytes], each: int, records: int) -> None:
    """Print what the target's broker takes from somebody who only sends it such batches."""
    topic = f"limit-{name}"
    await both.at_target.create(topic, PARTITIONS)
    began = time.perf_counter()
    await both.at_target.load(topic, PARTITIONS, batches, records // each, acks=-1)
    note(f"broker_{name}_records_per_second", records / (time.perf_counter() - began), "1/s")
    await both.at_target.delete(topic)


# --- a long road ---

_ROAD = {
    "target.producer.batch.size": 1_000_000,
    "target.producer.max.request.size": 16_000_000,
    "target.producer.buffer.memory": 134_217_728,
    "target.producer.max.in.flight.requests.per.connection": 5,
}
"""What MirrorMaker needs there: Connect's producers wait for each answer before the next request."""
_ROAD_WARM_BYTES = 50 << 20
_ROAD_BYTES = 100 << 20


async def distance(both: Clusters) -> None:
    """Print the megabytes a second of one partition, with a round trip on the way to the target."""
    batches, each = make_batches(1024, BATCH_BYTES)
    size = len(batches[0]) / each
    warm, measured = int(_ROAD_WARM_BYTES / size), int(_ROAD_BYTES / size)
    total = warm + int(measured * (1 + _TAIL))
    await both.at_source.create("far", 1)
    await both.at_source.load("far", 1, batches, total // each + 1)
    ports = both.target.ports[0]
    async with Proxy(ports.proxied, KAFKA, ports.proxy) as proxy:
        proxy.delay_seconds = ROUND_TRIP_SECONDS / 2
        await _road_limit(both, proxy.address)
        for side, start in SIDES.items():
            async with start(both.source.bootstrap, proxy.address, "far", _ROAD) as mirror:
                passed = await _pass(both, mirror, "far", [warm, warm + measured])
            await both.at_target.delete(mirror.copy("far"))
            rate = passed.per_second * size / 1e6
            if side == "mirror":
                figure("mirror_far_partition", rate, "MB/s", target=">= 20")
            else:
                note(f"{side}_far_partition", rate, "MB/s")
    await both.at_source.delete("far")


async def _road_limit(both: Clusters, address: str) -> None:
    """Print what the road itself, which this process is, carries."""
    batches, _ = make_batches(1024, 1_000_000)
    await both.at_target.create("road", PARTITIONS)
    async with wire(address) as far:
        await far.load("road", PARTITIONS, batches, 10 * PARTITIONS, connections=10)
        began = time.perf_counter()
        await far.load("road", PARTITIONS, batches, 500, connections=10)
        rate = 500 * len(batches[0]) / (time.perf_counter() - began) / 1e6
    note("road_limit", rate, "MB/s")
    await both.at_target.delete("road")


# --- latency, memory, groups ---


async def latency(both: Clusters, rate: float) -> None:
    """Print produce → readable at the target, at `rate` records a second."""
    tails: dict[str, list[float]] = {side: [] for side in SIDES}
    halves: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(RUNS):
        for side, start in SIDES.items():
            found = await mirror_latency.measure(both, start, rate)
            halves[side].append(percentile(found, 50))
            tails[side].append(percentile(found, 99))
    note("latency_rate", rate, "1/s")
    for side in SIDES:
        note(f"{side}_latency_p50", median(halves[side]), "ms", runs=halves[side])
        note(f"{side}_latency_p99", median(tails[side]), "ms", runs=tails[side])
    ratios = [one / other for one, other in zip(tails["mirror"], tails["mirrormaker"], strict=True)]
    figure("mirror_latency_p99_over_mirrormaker", median(ratios), "", target="<= 0.5", runs=ratios)


async def memory(both: Clusters) -> None:
    """Print the most memory that our mirror holds while it works off a large backlog of many partitions."""
    batches, each = make_batches(1024, BATCH_BYTES)
    count = _BACKLOG_BYTES // len(batches[0])
    await both.at_source.create("many", _MANY)
    await both.at_source.load("many", _MANY, batches, count)
    async with SIDES["mirror"](both.source.bootstrap, both.target.bootstrap, "many") as mirror:
        brokers = [*both.source.processes, *both.target.processes]
        (last,) = await passing(mirror, both.at_target, "many", [count * each], brokers)
    await both.at_target.delete(mirror.copy("many"))
    await both.at_source.delete("many")
    figure("mirror_memory_many_partitions", last.memory_bytes / 2**20, "MiB", target="<= 150")


async def groups(both: Clusters) -> None:
    """Print how far a group's position at the target is from the truth."""
    found = await mirror_groups.measure(both, SIDES["mirror"], {})
    figure("mirror_group_idle_error", abs(found.idle_error), "records", target="<= 0")
    figure("mirror_group_age_most", max(found.ages_seconds), "s", target="<= 1", runs=found.tenths())
    for name, settings in (("", {}), ("_offset_lag_max_0", {"flow.offset.lag.max": 0})):
        found = await mirror_groups.measure(both, SIDES["mirrormaker"], settings)
        note(f"mirrormaker_group{name}_idle_error", found.idle_error, "records")
        note(f"mirrormaker_group{name}_age_most", max(found.ages_seconds), "s", runs=found.tenths())


if __name__ == "__main__":
    uvloop.run(main())
