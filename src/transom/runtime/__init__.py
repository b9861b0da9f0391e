"""What every process stands on: clock, randomness, tasks, queues, configuration, telemetry, processes.

Time and randomness enter the system here and nowhere else (invariant 12), so that a test or a simulation
can hand in its own.
"""
