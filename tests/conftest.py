"""Its folder is on the import path of every test, so that `hub_parts` and others beside it can be shared."""

import os
import signal
import sys

from hypothesis import settings

from engines.process import memory_folder

pytest_plugins = ["engines_fixtures", "scenario_engines", "store_places", "warm_start"]

# Started in the background by a shell, a process ignores SIGINT, and so does all that it starts in turn.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Some machines forbid it; hundreds of processes would then compile every module they import.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Thousands of stores would wait for the disk at each of their commits.
if memory := memory_folder():
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", memory)

# How long an example takes is the machine's affair.
settings.register_profile("transom", deadline=None)
settings.load_profile("transom")
