"""Runs every figure and prints the table. Name some to run only those: `python -m benchmarks idle`."""

import json
import os
import platform
import subprocess
import sys

import psutil

SCRIPTS = (
    "propagation",
    "throughput",
    "api",
    "idle",
    "cache",
    "decision",
    "gateway",
    "revocation",
    "many_regions",
    "contexts_scale",
    "stores",
    "relay",
    "real",
    "mirror",
)


def main() -> int:
    """Run the scripts; 0 when all ran, whether or not they met their targets."""
    figures: list[dict[str, object]] = []
    failed = False
    for script in sys.argv[1:] or SCRIPTS:
        command = [sys.executable, "-m", f"benchmarks.{script}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
            for line in running.stdout or ():
                print(line, end="", flush=True)
                figures.append(json.loads(line))
        failed |= running.returncode != 0
    memory = psutil.virtual_memory().total / 2**30
    system = f"{platform.system()} {platform.release()}"
    print(f"\n{os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}, {system}\n")
    print("| figure | value | target | met |\n|---|---|---|---|")
    for figure in figures:
        met = "" if figure["met"] is None else "yes" if figure["met"] else "NO"
        print(f"| {figure['figure']} | {figure['value']} {figure['unit']} | {figure['target']} | {met} |")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
