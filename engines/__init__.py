"""Real parts for tests, benchmarks and demonstrations: Apache Kafka, PostgreSQL and others, without Docker.

Not shipped in the wheel. `kafka.py` starts brokers, `postgres.py` a server, `debezium.py` what carries rows
from one to the other, `mirrormaker.py` what carries topics between brokers; `proxy.py` spoils the road to
them, `jars.py` fetches jars once (`make kafka`). Each part listens on loopback only, lives in a folder of its
own, and is gone when whoever started it is gone, however that ended (`guard.py`).
"""
