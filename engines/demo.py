"""`make demo-real`: the demonstration with one Kafka cluster for the hub and each region, and PostgreSQL.

Everything is in a new folder each time, which is gone at the end, the engines with it.
"""

import argparse
import contextlib
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import uvloop

from engines.kafka import Brokers
from engines.postgres import Postgres
from engines.process import EngineError
from transom.model.errors import TransomError
from transom.processes.up import run_up
from transom.processes.up_files import DEFAULT_REGIONS, Engines


def main(port: int | None) -> None:
    """Start the engines, then what `transom up --demo` starts, on them; Ctrl-C ends it.

    `port` is the hub's, the others' follow.
    """
    names = ["hub", *DEFAULT_REGIONS]
    print(f"starting PostgreSQL and Kafka for {', '.join(names)}; this takes some seconds …", flush=True)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="transom-demo-")))
        clusters = {name: Brokers() for name in names}
        postgres = Postgres()
        with ThreadPoolExecutor() as starting:
            for engine in starting.map(_started, [*clusters.values(), postgres]):
                stack.push(engine)
        store = stack.enter_context(postgres.database())
        logs = {name: f"kafka://{cluster.bootstrap}" for name, cluster in clusters.items()}
        print(
            f"store: {store}", *(f"log of {name}: {log}" for name, log in logs.items()), sep="\n", flush=True
        )
        uvloop.run(run_up(folder, port, DEFAULT_REGIONS, demo=True, engines=Engines(store, logs)))


def _started(engine: Brokers | Postgres) -> Brokers | Postgres:
    return engine.__enter__()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, help="of the hub (default: 8480); the regions' ports follow")
    try:
        main(parser.parse_args().port)
    except (EngineError, TransomError) as error:
        sys.exit(f"error: {error}")
