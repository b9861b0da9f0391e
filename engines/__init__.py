"""Real parts for tests, benchmarks and demonstrations: Apache Kafka and PostgreSQL, without Docker.

Not shipped in the wheel. `kafka.py` starts brokers, `postgres.py` a server, `proxy.py` spoils the road to
them; `jars.py` fetches Kafka once (`make kafka`). Each part listens on loopback only, lives in a folder of
its own, and is gone when whoever started it is gone, however that ended (`guard.py`).
"""
