"""What the exit code of a verb means."""

REFUSED = 1
USAGE = 2
UNREACHABLE = 3
TIMED_OUT = 4
INTERRUPTED = 130

EXPLAINED = """\b
Exit codes:
  0  it is done
  1  refused, or failed
  2  wrong usage or configuration (a port in use, a file with mistakes)
  3  the hub, or a Kafka cluster, cannot be reached
  4  the time was up before it was so
"""
