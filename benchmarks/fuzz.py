"""Thousands of wrong command lines: each must end well, or in one line and exit status 2.

``python benchmarks/fuzz.py`` plans them, ``--run`` carries them out for one batch where they can be
planned. What is neither success nor a line is a finding: a traceback, a warning, another exit
status, something written by a command that was refused, a case that takes too long.

    python benchmarks/fuzz.py --cases 5000 --seed 1
    python benchmarks/fuzz.py --cases 500 --seed 1 --run
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import IO, Any
from unittest import mock

from fuzzing import (
    COMMANDS,
    ONE_BATCH,
    TOGETHER,
    TOP,
    WORDS,
    Case,
    cases,
    groups,
    write_files,
)
from hypothesis import HealthCheck, Phase, given, seed, settings

DOCS = Path(__file__).resolve().parents[1] / "docs"
ADDRESS_SPACE = 8 * 2**30
NOTES = ("data: ", "warning: ")
SUCCESS, ONE_LINE, FINDING = "success", "one line", "finding"


def outcome(case: Case, run: bool) -> tuple[str, str]:
    """Carry out a command line in this process and this folder.

    Args:
        case: the command line.
        run: for one batch; else it is only planned.

    Returns:
        What came of it, and its line or what was wrong.
    """
    from ensemble_kd import job

    before = set() if run else _content()
    main, arguments = _command(case)
    arguments += ONE_BATCH if run and case.group != COMMANDS else ()
    said, errors = StringIO(), StringIO()
    stub = mock.patch.object(job, "_through_hydra") if not run else mock.patch.dict(os.environ)
    status: Any = 0
    try:
        with redirect_stdout(said), redirect_stderr(errors), warnings.catch_warnings(), stub:
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", ".*treespec, LeafSpec.*", FutureWarning)
            warnings.filterwarnings("ignore", ".*limit_val_batches")
            with mock.patch.object(sys, "argv", ["ensemble_kd", *arguments]):
                status = main()
    except SystemExit as stop:
        status = stop.code
    except BaseException:
        return FINDING, traceback.format_exc()
    *notes, line = errors.getvalue().split("\n")[:-1] or [""]
    if not status:
        return SUCCESS, ""
    if status != 2:
        return FINDING, f"exit status {status}: {line}"
    known = all(note.startswith(NOTES) for note in notes)
    if not known or not line.startswith("error: ") or not line.isprintable():
        return FINDING, f"not one line: {errors.getvalue()!r}"
    if not run and _content() != before:
        return FINDING, f"written: {sorted(_content() - before)}"
    return ONE_LINE, line.strip()


def _command(case: Case) -> tuple[Callable[[], int | None], list[str]]:
    """The entry of a command, and its arguments."""
    from ensemble_kd import __main__ as whole

    if case.group != COMMANDS:
        return whole.main, [*case.arguments]
    name, *arguments = case.arguments
    module = importlib.import_module(f"ensemble_kd.{name}")
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"ensemble_kd.{name}.__main__")
    return module.main, arguments


def _content() -> set[str]:
    return {str(path) for path in Path().rglob("*")}


def worker() -> None:
    """Carry out the cases that are read from stdin; what came of each is written to stdout."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    for line in sys.stdin:
        asked = json.loads(line)
        said = outcome(Case(asked["group"], tuple(asked["arguments"])), asked["run"])
        print(json.dumps(said), file=answers, flush=True)


class Worker:
    """A process that carries out cases, and another one when that ends or takes too long."""

    def __init__(self, folder: Path, patience: float) -> None:
        self.folder = folder
        self.patience = patience
        self.process = self._started()

    def _started(self) -> subprocess.Popen[str]:
        command = [sys.executable, str(Path(__file__).resolve()), "--worker"]
        with (self.folder.parent / "stderr").open("w") as errors:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def carry_out(self, case: Case, run: bool) -> tuple[str, str]:
        """What came of a case; a process that ended, or that is too slow, is a finding."""
        asked = {"group": case.group, "arguments": case.arguments, "run": run}
        print(json.dumps(asked), file=self._pipe(self.process.stdin), flush=True)
        out = self._pipe(self.process.stdout)
        ready, _, _ = select.select([out], [], [], self.patience)
        line = out.readline() if ready else ""
        if line:
            kind, said = json.loads(line)
            return kind, said
        self.process.kill()
        status = self.process.wait()
        self.process = self._started()
        return FINDING, f"process ended with {status}" if ready else f"took {self.patience} s"

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        if pipe is None:
            raise RuntimeError("expected a pipe to the process")
        return pipe

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


def drawn(group: str, count: int, number: int) -> Iterator[Case]:
    """Different cases of a group, at most so many."""
    found: dict[Case, None] = {}

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases(group))
    def draw(case: Case) -> None:
        found[case] = None

    draw()
    yield from found


def campaign(asked: argparse.Namespace) -> None:
    """Draw cases of every group, carry them out, count, and write down the findings."""
    every = [*groups(), TOP, TOGETHER, WORDS, COMMANDS]
    counts: Counter[tuple[str, str]] = Counter()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, asked.findings.open("a") as findings:
        work = Path(folder, "work")
        work.mkdir()
        write_files(work)
        worker = Worker(work, asked.patience)
        for group in asked.groups or every:
            for case in drawn(group, asked.cases // len(every) + 1, asked.seed):
                kind, said = worker.carry_out(case, asked.run)
                counts[group, kind] += 1
                if kind == FINDING or asked.all:
                    record = {"kind": kind, **case._asdict(), "said": said, "run": asked.run}
                    print(json.dumps(record), file=findings, flush=True)
            told = ", ".join(f"{kind} {counts[group, kind]}" for kind in KINDS)
            print(f"{group:16} {told}  ({time.monotonic() - started:.0f} s)", flush=True)
            if asked.write:
                level = "run" if asked.run else "plan"
                _write((level, asked.seed, group, *(counts[group, kind] for kind in KINDS)))
        worker.stop()
    print(f"all: {', '.join(f'{k} {sum(counts[g, k] for g in every)}' for k in KINDS)}")


KINDS = (SUCCESS, ONE_LINE, FINDING)


def _write(row: tuple[Any, ...]) -> None:
    path = DOCS / "fuzz.csv"
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(["level", "seed", "group", *(kind.replace(" ", "_") for kind in KINDS)])
        writer.writerow(row)


def main() -> None:
    """The command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=2000, help="of all groups together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", action="store_true", help="for one batch; else only planned")
    parser.add_argument("--groups", nargs="*", help="only these")
    parser.add_argument("--patience", type=float, default=60, help="seconds for each case")
    parser.add_argument("--findings", type=Path, default=Path("findings.jsonl"))
    parser.add_argument("--all", action="store_true", help="write down the others as well")
    parser.add_argument("--write", action="store_true", help="add the counts to docs/fuzz.csv")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        worker()
    else:
        campaign(asked)


if __name__ == "__main__":
    main()
