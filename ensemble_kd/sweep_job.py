"""One job of a sweep, in whichever process or on whichever machine a launcher starts it."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from ensemble_kd.errors import UserError
from ensemble_kd.files import file_digest, write_whole
from ensemble_kd.hydra_node import expect_typed

FAILURE = "failure.txt"
"""Beside where the results would be: in one line, why there are none."""

BEGUN = ".sweep.json"
"""In the folder of a sweep: which one was begun there."""

LAUNCHERS = {
    "joblib": "joblib",
    "submitit_local": "submitit",
    "submitit_slurm": "submitit",
    "slurm": "submitit",
}
"""Options of the group ``hydra/launcher`` that a plugin of Hydra brings."""


@dataclass(frozen=True)
class SweepJob:
    """What Hydra calls for each configuration of a sweep.

    A launcher may pickle it and call it elsewhere, with Hydra's state and the resolvers of the
    configuration: it holds nothing itself, and the plan of a job is made where the job runs.

    Attributes:
        finished: run folders of jobs that an earlier start of the same sweep has finished.
        process: the one that was started by hand; what other processes print is told apart.
    """

    finished: frozenset[Path] = frozenset()
    process: int = field(default_factory=os.getpid)

    def __call__(self, config: DictConfig) -> float:
        """Carry out one job.

        Returns:
            The student's validation accuracy, for sweepers that choose by it; NaN for a job that
            failed by a mistake of the user's, which leaves its reason in ``failure.txt``.
        """
        from hydra.core.hydra_config import HydraConfig

        ours = HydraConfig.get()
        folder = Path(ours.runtime.output_dir)
        elsewhere = os.getpid() != self.process
        name = f"job {ours.job.num}: "
        with _prefixed(name) if elsewhere else nullcontext():
            before = "" if elsewhere else f"\n{name}"
            print(f"{before}{ours.job.override_dirname or 'defaults'}", flush=True)
            if folder.absolute() in self.finished:
                print(f"finished before: {folder}", flush=True)
                return _told(folder)
            (folder / FAILURE).unlink(missing_ok=True)
            try:
                expect_typed(config, ours.overrides.task)
                return _accuracy(config, folder)
            except UserError as mistake:
                print(f"{'' if elsewhere else name}error: {mistake}", file=sys.stderr)
                write_whole(folder / FAILURE, f"{mistake}\n")
                return math.nan


def _accuracy(config: DictConfig, folder: Path) -> float:
    """Carry out a run; the student's validation accuracy, NaN where it is not known."""
    from ensemble_kd.plan import make_plan
    from ensemble_kd.run import carry_out

    carry_out(make_plan(config), config, folder)
    return _told(folder)


def _told(folder: Path) -> float:
    """The same, of a run that is done."""
    from ensemble_kd.report.results import read_results
    from ensemble_kd.run import RESULTS

    results = read_results(folder / RESULTS)
    accuracy = results["predictors"]["student"]["val"]["accuracy"]
    return math.nan if accuracy is None else accuracy


@contextmanager
def _prefixed(prefix: str) -> Iterator[None]:
    """Put a prefix before each line that is printed: several processes write to one terminal."""
    with (
        closing(_Lines(sys.stdout, prefix)) as out,
        closing(_Lines(sys.stderr, prefix)) as err,
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        yield


class _Lines(io.TextIOBase):
    """Hands on whole lines, each with a prefix and all at once."""

    def __init__(self, file: TextIO, prefix: str) -> None:
        self._file = file
        self._prefix = prefix
        self._begun = ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        self._file.write("".join(f"{self._prefix}{line}\n" for line in lines))
        self._file.flush()
        return len(text)

    def close(self) -> None:
        if self._begun:
            self.write("\n")
        super().close()


def begin(folder: Path, overrides: Sequence[str], options: Sequence[Path]) -> SweepJob:
    """Begin a sweep, or go on with one that was cut off: what its jobs have finished is kept.

    Args:
        folder: of the sweep.
        overrides: of the command line.
        options: folders of groups.

    Raises:
        UserError: another sweep left results there, with which this one's would be mixed.
    """
    from ensemble_kd.run import RESULTS

    said, begun = _decided(overrides, options), folder / BEGUN
    same = begun.is_file() and begun.read_bytes() == said.encode()
    finished = sorted(path.parent for path in folder.glob(f"*/{RESULTS}"))
    for job in finished:
        if not same or (job / FAILURE).exists():
            raise UserError(
                f"{folder}: expected a new folder, or that of this very sweep, found another one's "
                f"{job.name}/{RESULTS}: choose another hydra.sweep.dir"
            )
    write_whole(begun, said)
    return SweepJob(frozenset(job.absolute() for job in finished))


def _decided(overrides: Sequence[str], options: Sequence[Path]) -> str:
    """What decides which jobs a sweep has, and what they find, as the content of a file."""
    from ensemble_kd.stage import training_code_digest

    # Where and how jobs run is no part of it.
    elsewhere = ("hydra.sweep.dir=", "hydra/launcher=", "hydra.launcher.", "hydra.mode=")
    files = hashlib.sha256()
    for path in (path for folder in options for path in sorted(folder.rglob("*.yaml"))):
        files.update(f"{path} {file_digest(path)}\n".encode())
    said = {
        "overrides": [each for each in overrides if not each.startswith(elsewhere)],
        "options": files.hexdigest(),
        "code": training_code_digest(),
    }
    return json.dumps(said, indent=2) + "\n"


def raise_failures(folder: Path) -> None:
    """Say which jobs of a sweep failed, when it is over.

    Args:
        folder: of the sweep.

    Raises:
        UserError: some did.
    """
    failed = sorted(folder.rglob(FAILURE))
    names = ", ".join(path.parent.relative_to(folder).as_posix() for path in failed)
    if failed:
        raise UserError(f"jobs of {folder} that failed: {names}; their {FAILURE} says why")


def is_lost_job(failure: Exception) -> bool:
    """Whether a launcher says that the process of a job ended before the job: killed, out of time.

    Args:
        failure: what came out of a sweep.
    """
    return type(failure).__module__.partition(".")[0] in ("joblib", "submitit")


def expect_launcher(overrides: Sequence[Override]) -> None:
    """The plugin of the launcher that a command line names must be installed.

    Raises:
        UserError: it is not.
    """
    for override in overrides:
        name = override.value() if override.key_or_group == "hydra/launcher" else None
        plugin = LAUNCHERS.get(name) if isinstance(name, str) else None
        if plugin is not None and not _installed(f"hydra_plugins.hydra_{plugin}_launcher"):
            raise UserError(
                f"hydra/launcher={name} needs the package 'hydra-{plugin}-launcher': "
                "pip install ensemble-kd[launchers]"
            )


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
