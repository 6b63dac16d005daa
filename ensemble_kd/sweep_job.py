"""One job of a sweep, in whichever process or on whichever machine a launcher starts it."""

from __future__ import annotations

import importlib.util
import io
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
from ensemble_kd.files import write_whole

FAILURE = "failure.txt"
"""Beside where the results would be: in one line, why there are none."""

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
        process: the one that was started by hand; what other processes print is told apart.
    """

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
            (folder / FAILURE).unlink(missing_ok=True)
            try:
                return _accuracy(config, folder)
            except UserError as mistake:
                print(f"{'' if elsewhere else name}error: {mistake}", file=sys.stderr)
                write_whole(folder / FAILURE, f"{mistake}\n")
                return math.nan


def _accuracy(config: DictConfig, folder: Path) -> float:
    """Carry out a run; the student's validation accuracy, NaN where it is not known."""
    from ensemble_kd.plan import make_plan
    from ensemble_kd.run import carry_out

    result = carry_out(make_plan(config), config, folder)
    accuracy = result.results["predictors"]["student"]["val"]["accuracy"]
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
