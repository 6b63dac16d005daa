"""python benchmarks/kills.py: runs that are killed again and again, beside runs that are not.

Each case is one command. It runs once undisturbed; then it is started in a store of its own, ended
from outside, and started again, the very same command, until it was ended often enough; then it
may finish. The weights of the student and the curves of all stages must be the same to the last
bit. A process is ended by SIGKILL at a random moment of its work, by SIGKILL as soon as a
checkpoint or an artefact is being written, or by SIGINT, which is what Ctrl-C sends.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from timing import DOCS

from ensemble_kd.files import file_digest

TABLE = DOCS / "kills.csv"
SMALL = (
    *("teacher.members=[cnn_small,cnn_tiny]", "epochs=5", "teacher.epochs=2", "controls=[]"),
    *("report.plots=false", "report.onnx=false", "report.page=false", "report.table=false"),
    *("logger=none", "checkpoint.every_n_steps=3"),
)
CASES = {
    "parallel": (),
    "parallel, dropout, select=best": ("student.dropout=0.3", "select=best"),
    "parallel, objective=crd": ("objective=crd",),
    "parallel, weighting=reinforced": ("weighting=reinforced", "data.labelled=null"),
    "parallel, 16-mixed, accumulated": (
        *("trainer.precision=16-mixed", "trainer.accumulate_grad_batches=2"),
    ),
    "mutual": ("strategy=mutual", "student.dropout=0.3"),
    "adversarial": ("strategy=adversarial",),
    "annealing": ("strategy=annealing",),
    "born_again": ("strategy=born_again",),
    "codistillation": ("strategy=codistillation",),
    "kdcl": ("strategy=kdcl",),
    "local_targets": ("strategy=local_targets",),
    "okddip": ("strategy=okddip",),
    "peer_collaborative": ("strategy=peer_collaborative",),
    "progressive": ("strategy=progressive",),
}
WAYS = ("moment", "checkpoint", "moment", "artefact", "interrupt")
"""How a process is ended, in turn."""

GOES_ON = "continues from epoch"
POLL = 0.0005


class Found(NamedTuple):
    """What became of a case.

    Attributes:
        ended: how often the command was ended, by the way.
        continued: how often a stage went on from a checkpoint.
        same: whether weights and curves are those of the undisturbed run.
    """

    ended: Counter[str]
    continued: int
    same: bool


def start(settings: tuple[str, ...], root: Path) -> subprocess.Popen[str]:
    """The command of a case."""
    places = (f"paths.store={root / 'store'}", f"hydra.run.dir={root / 'run'}")
    return subprocess.Popen(
        [sys.executable, "-m", "ensemble_kd", *SMALL, *settings, *places],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Whoever runs this in the background of a shell has it ignored, and so would the process.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def writing(root: Path, way: str) -> bool:
    """Whether a checkpoint, or the files of an artefact, are being written right now."""
    pattern = "*/checkpoint/unfinished" if way == "checkpoint" else "*/weights.safetensors"
    return next((root / "store" / ".unfinished").glob(pattern), None) is not None


def end(process: subprocess.Popen[str], root: Path, way: str, work: float) -> str:
    """End a process; returns what it said. It may have finished before."""
    if process.stdout is None:
        raise ValueError("the process must be listened to")
    first = process.stdout.readline()  # imports are done, and the work begins
    until = time.monotonic() + random.uniform(0, work)
    waits = way in ("checkpoint", "artefact")
    while process.poll() is None:
        if waits and time.monotonic() > until - work / 2 and writing(root, way):
            break
        if not waits and time.monotonic() > until:
            break
        time.sleep(POLL)
    process.send_signal(signal.SIGINT if way == "interrupt" else signal.SIGKILL)
    return first + process.communicate()[0]


def digests(root: Path) -> list[str]:
    """Of what a run must leave the same."""
    said = (root / "run" / "student" / "weights.safetensors", root / "run" / "curves.csv")
    return [file_digest(path) for path in said]


def undisturbed(settings: tuple[str, ...], root: Path) -> float:
    """Run a case once; returns the seconds of its work."""
    process = start(settings, root)
    if process.stdout is None:
        raise ValueError("the process must be listened to")
    first, started = process.stdout.readline(), time.monotonic()
    said = first + process.communicate()[0]
    if process.returncode:
        raise SystemExit(said)
    return time.monotonic() - started


def killed(
    settings: tuple[str, ...], root: Path, ways: Sequence[str], work: float
) -> tuple[str, Counter[str]]:
    """End the command of a case some times, then let it finish; returns all that it said."""
    said, ended = "", Counter[str]()
    for way in ways:
        process = start(settings, root)
        said += end(process, root, way, work / len(ways) * 1.5)
        if process.returncode not in (0, -signal.SIGKILL, 130):
            raise SystemExit(said)
        ended[way] += process.returncode != 0
        if (root / "run" / "results.json").exists():
            return said, ended
    process = start(settings, root)
    said += process.communicate()[0]
    if process.returncode:
        raise SystemExit(said)
    return said, ended


def measured(settings: tuple[str, ...], ways: Sequence[str]) -> Found:
    """Hold a case that is ended some times against itself undisturbed."""
    with tempfile.TemporaryDirectory() as folder:
        whole, cut = Path(folder, "whole"), Path(folder, "cut")
        work = undisturbed(settings, whole)
        said, ended = killed(settings, cut, ways, work)
        return Found(ended, said.count(GOES_ON), digests(whole) == digests(cut))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument("--times", type=int, default=3, help="how often each is ended")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--table", type=Path, default=TABLE)
    asked = parser.parse_args()
    random.seed(asked.seed)
    turns = itertools.cycle(WAYS)
    rows: list[dict[str, object]] = []
    for name in asked.cases:
        found = measured(CASES[name], [next(turns) for _ in range(asked.times)])
        ways = {way: found.ended[way] for way in dict.fromkeys(WAYS)}
        rows.append({"case": name, **ways, "continued": found.continued, "same": found.same})
        print(", ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
        with asked.table.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    ended = sum(int(str(row[way])) for row in rows for way in dict.fromkeys(WAYS))
    same = sum(bool(row["same"]) for row in rows)
    print(f"{ended} times ended in {len(rows)} cases, {same} of which left the same bits")
    if same < len(rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
