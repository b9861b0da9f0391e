"""Kafka logs for tests: what a test makes in a cluster that others share is removed when it ends."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator
from typing import Any

from aiokafka.protocol.admin import DeleteGroupsRequest, DeleteTopicsRequest, ListGroupsRequest

from engines.kafka import Brokers
from transom.logs.kafka import KafkaLog
from transom.logs.kafka_cluster import KafkaCluster
from transom.runtime.clock import SystemClock
from transom.runtime.randomness import Randomness


def kafka_log(brokers: Brokers) -> KafkaLog:
    """A log of its own connections on `brokers`."""
    return KafkaLog(f"kafka://{brokers.bootstrap}", SystemClock(), Randomness())


@contextlib.asynccontextmanager
async def emptied_log(brokers: Brokers) -> AsyncIterator[KafkaLog]:
    """A log on a cluster without topics and groups."""
    log = kafka_log(brokers)
    try:
        yield log
    finally:
        await log.close()
        await empty(brokers)


async def empty(brokers: Brokers) -> None:
    """Remove every topic and group of the cluster."""
    log = kafka_log(brokers)
    cluster = log._cluster
    try:
        names = list(await log.topics())
        if names:
            answer = await cluster.ask(None, DeleteTopicsRequest(names, 10_000))
            assert {code for _, code, *_ in answer.topic_error_codes} == {0}
            async with asyncio.timeout(30):
                while set(names) & (await cluster.layouts(None)).keys():  # they learn of it a moment later
                    await asyncio.sleep(0.01)
        for node in range(1, brokers.count + 1):
            # A broker that has just come back may not take every connection yet.
            ask = functools.partial(_patiently, cluster, node)
            async with asyncio.timeout(30):
                while groups := [name for name, _ in (await ask(ListGroupsRequest())).groups]:
                    # A member that did not say that it leaves stays until its time is up.
                    await ask(DeleteGroupsRequest(groups))
                    await asyncio.sleep(0.1)
    finally:
        await log.close()


async def _patiently(cluster: KafkaCluster, node: int, request: Any) -> Any:
    return await cluster.retrying("clear up", lambda: cluster.ask(node, request))
