"""Real parts for tests, benchmarks and demonstrations: Apache Kafka, PostgreSQL and Debezium, without Docker.

Not shipped in the wheel. `kafka.py` starts brokers, `postgres.py` a server, `debezium.py` what carries rows
from one to the other, `proxy.py` spoils the road to them; `jars.py` fetches jars once (`make kafka`). Each
part listens on loopback only, lives in a folder of its own, and is gone when whoever started it is gone,
however that ended (`guard.py`).
"""
