"""The control plane on the real engines: one Kafka for the hub and for each of three regions, one PostgreSQL.

The same as `propagation`, `throughput` and `idle` measure on files, with brokers and database on the same two
cores; the processor time of the engines is not in the figures of ours. PostgreSQL waits for the disk at every
commit; Kafka leaves that to the system, as it does by default.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from statistics import median

import uvloop

from benchmarks import idle, propagation, throughput
from benchmarks.report import figure, note, percentile
from engines.kafka import Brokers
from engines.postgres import Postgres
from transom.processes.up_files import Engines


@contextlib.asynccontextmanager
async def real_engines() -> AsyncGenerator[Engines]:
    """Empty engines for the hub and the regions that the figures are of."""
    async with contextlib.AsyncExitStack() as stack:
        clusters = {name: Brokers() for name in ("hub", *throughput.REGIONS)}
        async with asyncio.TaskGroup() as group:
            for cluster in clusters.values():
                group.create_task(asyncio.to_thread(stack.enter_context, cluster))
        postgres = await stack.enter_async_context(Postgres(durable=True))
        store = stack.enter_context(postgres.database())
        yield Engines(store, {name: f"kafka://{cluster.bootstrap}" for name, cluster in clusters.items()})


async def main() -> None:
    """Print the figures."""
    measured: list[list[float]] = []
    for _ in range(3):
        async with real_engines() as engines:
            latencies, _ = await propagation.measure(100, engines=engines)
            measured.append(latencies)
    halves = [percentile(latencies, 50) for latencies in measured]
    tails = [percentile(latencies, 99) for latencies in measured]
    figure("real_commit_to_three_tables_p50", median(halves), "ms", target="<= 25", runs=halves)
    figure("real_commit_to_three_tables_p99", median(tails), "ms", target="<= 100", runs=tails)
    rates: list[float] = []
    for _ in range(3):
        async with real_engines() as engines:
            rates.append(1000 / await throughput.seconds(1000, engines))
    figure("real_deployments_a_second", median(rates), "1/s", target=">= 100", runs=rates)
    async with real_engines() as engines:
        shares, sizes, gateways = await idle.measure(engines)
    figure("real_idle_processor_most", max(shares), "% of a core", target="<= 2", runs=shares)
    figure("real_idle_memory_most", max(sizes), "MiB", target="<= 110", runs=sizes)
    note("real_idle_processor_gateway", max(shares[-gateways:]), "% of a core", runs=shares[-gateways:])


if __name__ == "__main__":
    uvloop.run(main())
