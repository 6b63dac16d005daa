"""python benchmarks/sweep.py: twelve runs over three teachers as one sweep, and each run alone.

The sweep is one ``--multirun`` with ``cache=disk``: teachers and control are trained once, and the
teachers answer once. Alone, each run is a process of its own with a store of its own and live
teachers. All runs are those of ``python -m ensemble_kd`` on digits, with views that recur after
four epochs; compared are CPU seconds of all processes, and the students, bit by bit.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from timing import Ratio, bars, publish, table

from ensemble_kd.artefact import WEIGHTS
from ensemble_kd.files import file_digest

AXES = {"objective.temperature": ("1", "2", "4", "8"), "objective.soft_weight": ("0.5", "1", "2")}
COMMON = ("data.cycle=4", "logger=none", "report.plots=false", "report.table=false")
LIMIT = 0.35


def spent(command: Sequence[str]) -> float:
    """CPU seconds of a command and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    said = subprocess.run(command, capture_output=True, text=True, env=environment)
    if said.returncode:
        raise SystemExit(f"{' '.join(command)}: {said.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=40)
    arguments = parser.parse_args()
    program = [sys.executable, "-m", "ensemble_kd", f"epochs={arguments.epochs}", *COMMON]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        alone, weights = [], []
        for number, values in enumerate(product(*AXES.values())):
            run = folder / f"alone-{number}"
            settings = [f"{key}={value}" for key, value in zip(AXES, values, strict=True)]
            own = [f"paths.store={run}-store", f"hydra.run.dir={run}", "cache=off"]
            alone.append(spent([*program, *settings, *own]))
            weights.append(file_digest(run / "student" / WEIGHTS))
        axes = [f"{key}={','.join(values)}" for key, values in AXES.items()]
        own = [f"paths.store={folder}/store", f"hydra.sweep.dir={folder}/sweep", "cache=disk"]
        together = spent([*program, "--multirun", *axes, *own])
        same = sum(
            file_digest(folder / "sweep" / str(number) / "student" / WEIGHTS) == digest
            for number, digest in enumerate(weights)
        )
    share = together / sum(alone)
    rows = [
        ["each run alone", str(len(alone)), f"{sum(alone):.0f} s", "1"],
        ["one sweep, cache=disk", str(len(alone)), f"{together:.0f} s", f"{share:.3f}"],
    ]
    lines = table(("way", "runs", "CPU time", "ratio"), rows)
    lines += ["", f"{same} of {len(weights)} students are the same to the last bit."]
    publish("sweep", lines)
    once = Ratio(share, share, share, share)
    bars("sweep", {"12 runs as a sweep": once}, {"12 runs as a sweep": LIMIT}, "CPU time / alone")


if __name__ == "__main__":
    main()
