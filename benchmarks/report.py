"""How figures are printed: one JSON line each; `python -m benchmarks` makes a table of them."""

import json
from collections.abc import Sequence


def figure(name: str, value: float, unit: str, *, target: str, runs: Sequence[float] = ()) -> None:
    """Print one figure; `target` is a comparison and a number ("<= 15"), `runs` what it was taken from."""
    comparison, limit = target.split()
    met = value <= float(limit) if comparison == "<=" else value >= float(limit)
    _print(name, value, unit, {"target": target, "met": met}, runs)


def note(name: str, value: float, unit: str, *, runs: Sequence[float] = ()) -> None:
    """Print what nothing was promised of, but what the figures beside it are read by."""
    _print(name, value, unit, {"target": "", "met": None}, runs)


def _print(name: str, value: float, unit: str, judged: dict[str, object], runs: Sequence[float]) -> None:
    line: dict[str, object] = {"figure": name, "value": round(value, 3), "unit": unit, **judged}
    if runs:
        line["runs"] = [round(run, 3) for run in runs]
    print(json.dumps(line), flush=True)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
