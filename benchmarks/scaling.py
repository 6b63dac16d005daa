"""One and two processes, and forecasts held against what runs really take.

``python benchmarks/scaling.py run`` measures, ``report`` writes the page from the figures; ``run
--only ranks`` (or ``cells``, ``imagenet``) measures a part. Machines are noisy: one and two
processes take turns, and with one process a forecast is of CPU time.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import scaling_cells
import scaling_ranks
from timing import DOCS, table

from ensemble_kd.forecast import Cluster, Job, forecast
from ensemble_kd.forecast.__main__ import planned, resident
from ensemble_kd.forecast.served import Asked
from ensemble_kd.forecast.shown import amount, duration
from ensemble_kd.forecast.survey import Survey

RAW, PAGE = DOCS / "scaling.csv", DOCS / "scaling.md"
ROUNDS, SECONDS = 3, 6.0
FIGURES = ("seconds", "memory", "disk", "network")
COLUMNS = ("part", "case", "what", "predicted", "measured")

INPUTS, CLASSES, SAMPLES, HELD_OUT = (3, 224, 224), 1000, 1_281_167, 50_000
LARGE = (
    *("student=resnet8", "teacher.members=[resnet20,resnet20,resnet20]", "batch_size=32"),
    *("epochs=90", "teacher.epochs=90", "teacher.gate=false", "controls=[]"),
    *("teacher.runtime=plain", "evaluation.robustness=null", "data.augment=[]"),
)
KEPT = {
    "answers in every epoch": ("cache=off",),
    "answers kept on disk": ("cache=disk", "cache.format=float16"),
}
PROCESSES = (1, 8)


class Row(NamedTuple):
    """A figure: what was forecast, where something was, and what was seen, where it was.

    Attributes:
        part: ``ranks``, ``cells`` or ``imagenet``.
        case: of what.
        what: which figure.
        predicted: nothing for what was only measured.
        measured: nothing for what is only forecast.
    """

    part: str
    case: str
    what: str
    predicted: float | None
    measured: float | None


def ranks() -> list[Row]:
    """The same training on one and on two processes, in turns."""
    found = []
    for _ in range(ROUNDS):
        for case in scaling_ranks.CASES:
            one = scaling_ranks.compared(case)
            print(one, flush=True)
            figures = zip(one._fields[1:], one[1:], strict=True)
            found += [Row("ranks", case, name, None, value) for name, value in figures]
    return found


def cells() -> list[Row]:
    """Every kind of run, forecast and carried out."""
    found = []
    link = scaling_ranks.link()
    for cell in scaling_cells.CELLS:
        with tempfile.TemporaryDirectory() as folder:
            figures = scaling_cells.compared(cell, Path(folder) / "cell", SECONDS, link)
        for one in figures:
            print(f"{one.cell}, {one.part}, {one.what}: {one.predicted / one.measured:.2f}")
            found.append(Row("cells", f"{one.cell}, {one.part}", one.what, *one[3:]))
        sys.stdout.flush()
    return found


def imagenet() -> list[Row]:
    """Forecasts for data that are not here."""
    found = []
    for kept, own in KEPT.items():
        job, base = scaling_cells.apart(surveyed, own)
        for ranks in PROCESSES:
            said = forecast(job, Cluster(ranks, base=base))
            case = f"{kept}, R = {ranks}"
            print(f"{case}: {duration(said.total.seconds.middle)}", flush=True)
            for row in (*said.rows, said.total):
                figures = (row.seconds.middle, row.memory, row.disk, row.network)
                for what, value in zip(FIGURES, figures, strict=True):
                    found.append(Row("imagenet", f"{case}: {row.name}", what, value, None))
    return found


def surveyed(own: Sequence[str]) -> tuple[Job, int]:
    """What was measured for data of the size of ImageNet, and what a process takes anyway."""
    plan, config = planned([*LARGE, *own], (), INPUTS, CLASSES)
    survey = Survey(plan, config, Asked(SAMPLES, HELD_OUT, 25.0), made_up=True)
    return survey.job(), max(0, resident() - survey.held())


PARTS: dict[str, Callable[[], list[Row]]] = {"ranks": ranks, "cells": cells, "imagenet": imagenet}


def run(only: Sequence[str]) -> None:
    """Measure some parts, and leave the figures of the others as they are."""
    for name in only:
        fresh = PARTS[name]()
        write([*(row for row in rows() if row.part != name), *fresh])


def rows() -> list[Row]:
    """All figures that there are."""
    if not RAW.exists():
        return []
    with RAW.open(newline="") as file:
        return [
            Row(
                *(line["part"], line["case"], line["what"]),
                _number(line["predicted"]),
                _number(line["measured"]),
            )
            for line in csv.DictReader(file)
        ]


def write(found: Sequence[Row]) -> None:
    """Write all figures, part by part."""
    ordered = [row for part in PARTS for row in found if row.part == part]
    with RAW.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in ordered:
            writer.writerow([*row[:3], *("" if v is None else f"{v:.6g}" for v in row[3:])])


def _number(text: str) -> float | None:
    return float(text) if text else None


def page(found: Sequence[Row]) -> str:
    """The page of the figures."""
    lines = INTRODUCTION.strip().splitlines()
    lines += ["", "## One and two processes", "", *RANKS.strip().splitlines(), ""]
    lines += of_ranks([row for row in found if row.part == "ranks"])
    lines += ["", "## Forecast and measured", "", *CELLS.strip().splitlines(), ""]
    lines += of_cells([row for row in found if row.part == "cells"])
    lines += ["", "## Data of the size of ImageNet", "", *IMAGENET.strip().splitlines(), ""]
    lines += of_imagenet([row for row in found if row.part == "imagenet"])
    return "\n".join(lines) + "\n"


def of_ranks(found: Sequence[Row]) -> list[str]:
    """Medians over the rounds; of differences the largest."""
    lines = []
    for case in dict.fromkeys(row.case for row in found):
        values: dict[str, list[float]] = {}
        for row in found:
            if row.case == case and row.measured is not None:
                values.setdefault(row.what, []).append(row.measured)
        speeds = [f"{statistics.median(values[key]):.2f}" for key in ("throughput", "with_start")]
        ends = [f"{max(values[key]):.1e}" for key in ("difference", "merged")]
        lines.append([case, str(len(values["throughput"])), *speeds, *ends])
    columns = (
        "student",
        "rounds",
        "throughput",
        "with the start",
        "weights differ by",
        "metrics by",
    )
    return table(columns, lines)


def of_cells(found: Sequence[Row]) -> list[str]:
    """For each kind of figure, the ratios of forecast and measured."""
    kinds: dict[str, list[tuple[float, str]]] = {}
    for row in found:
        if row.predicted is not None and row.measured:
            kinds.setdefault(kind(row), []).append((row.predicted / row.measured, row.case))
    lines = []
    for name, ratios in kinds.items():
        values = [value for value, _ in ratios]
        worst, where = max(ratios, key=lambda each: max(each[0], 1 / max(each[0], 1e-9)))
        spread = f"{min(values):.2f} to {max(values):.2f}"
        cells = (f"{statistics.median(values):.2f}", spread, f"{worst:.2f}", where)
        lines.append([name, str(len(values)), *cells])
    return table(("figure", "n", "median", "range", "worst", "where"), lines)


def kind(row: Row) -> str:
    """What a figure is of: the part of a run, without its number, and the unit."""
    part = row.case.rpartition(", ")[2].partition("/")[0]
    return row.what if part == "all" else f"{row.what} of {part}"


def of_imagenet(found: Sequence[Row]) -> list[str]:
    """The parts of each forecast."""
    values = {(row.case, row.what): row.predicted or 0.0 for row in found}
    lines = []
    for name in dict.fromkeys(row.case for row in found):
        case, _, part = name.partition(": ")
        sizes = [amount(values[name, what]) for what in FIGURES[1:]]
        lines.append([case, part, duration(values[name, "seconds"]), *sizes])
    return table(("forecast", "part", "time", "memory", "disk", "network"), lines)


INTRODUCTION = """
# Measured: several processes, and forecasts

Written by `python benchmarks/scaling.py report`; the raw figures are in [scaling.csv](scaling.csv),
measured by `python benchmarks/scaling.py run`. One machine (2 cores of a shared x86-64 server, no
GPU), one thread for each process. Nothing here was measured on several machines or on a GPU.
"""

RANKS = f"""
The student of a run on digits for {scaling_ranks.EPOCHS} epochs, with batches of
{scaling_ranks.BATCH} samples in all, on one process and on two (`trainer=ddp`, gloo). Throughput:
samples per second of two processes as a multiple of those of one, all epochs but the first; with
the start: of the whole training, in which two processes import everything anew. Medians of
rounds in which both take turns. Weights: the largest difference in a tensor as a share of
its largest value, the largest of all rounds; metrics: between the validation accuracy that the
processes merge and the one that a single process computes. BatchNorm sees the half of a batch that
its process has, and so makes another student on two processes.
"""

CELLS = """
Runs with N = 1, 3, 5 teachers, K = 1 or 3 stages (two assistants), R = 1 or 2 processes and answers
kept nowhere, in memory or on disk, on random images of 16 pixels. Each is forecast with a few
seconds of measurements, then carried out in a process of its own. Ratios are forecast / measured;
times are CPU seconds with one process, wall seconds with two. Memory is the resident set of a
process at its largest; disk all files of the store; network what the loopback device sent.
"""

IMAGENET = """
Extrapolated, and not held against anything: 1,281,167 training samples of 3 x 224 x 224 in 1,000
classes, 50,000 to validate and to test, three ResNet-20 that teach a ResNet-8 for 90 epochs each,
in batches of 32 for each process, on processors like the one that measured (one thread), as
`--inputs 3,224,224 --classes 1000 --samples 1281167 --held-out 50000` says it; each process sends
1.25 GB/s. These networks are made for small images: at this size a ResNet-20 has about the
arithmetic of a ResNet-18.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("run", "report"))
    parser.add_argument("--only", choices=tuple(PARTS), nargs="+", default=list(PARTS))
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    if asked.command == "run":
        run(asked.only)
    PAGE.write_text(page(rows()))
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
