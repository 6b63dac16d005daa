"""Further processes on this machine that fill the same records."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import weakref
from contextlib import suppress
from types import TracebackType
from typing import IO

import torch
from omegaconf import DictConfig, OmegaConf

from ensemble_kd.config import control_nodes, plain

PATIENCE = 10.0
"""Seconds that a process has to end once it was told to."""


Worker = tuple[subprocess.Popen[bytes], IO[bytes]]
"""A process, and where it complains."""


class Crew:
    """Processes that fill the records of a configuration while this context is open.

    They take part as any other process would that fills these records: what they leave undone,
    because they were killed or failed, is done by the others. Afterwards none of them runs.

    Args:
        config: from which a plan was made, without open questions.
        size: how many, >= 0.
        stage: the only one whose teachers they ask; None for all.
        ahead: they ask about the batches of the stage's first epoch, in their order.
    """

    def __init__(
        self, config: DictConfig, size: int, stage: str | None = None, ahead: bool = False
    ) -> None:
        self.size = size
        said = plain(config, "config")
        # Their names may be those of options that only this process was shown.
        controls = control_nodes(config).items()
        said["controls"] = [{"name": name, **node} for name, node in controls]
        self.said = OmegaConf.to_yaml(OmegaConf.create(said))
        self._command = [sys.executable, "-m", "ensemble_kd.cache", "fill", "--assist"]
        self._command += ["--threads", str(torch.get_num_threads())]
        self._command += [] if stage is None else ["--stage", stage]
        self._command += ["--ahead"] if ahead else []
        self._workers: list[Worker] = []
        self._lost: set[int] = set()
        # Also when this process ends, or nobody wants them any longer.
        weakref.finalize(self, _end, self._workers)

    def __enter__(self) -> Crew:
        self.start()
        return self

    def start(self) -> None:
        """Have them begin."""
        for _ in range(self.size):
            complaints = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as it runs
            worker = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
            )
            self._workers.append((worker, complaints))
            if worker.stdin is not None:
                with suppress(BrokenPipeError):  # it is gone already, and has said why
                    worker.stdin.write(self.said.encode())
                    worker.stdin.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if failure is None:
            self._report()
        _end(self._workers)

    @property
    def alive(self) -> bool:
        """Whether one of them still runs; a line on stderr tells of each that failed."""
        self._report()
        return any(worker.poll() is None for worker, _ in self._workers)

    def _report(self) -> None:
        for worker, complaints in self._workers:
            if worker.poll() and worker.pid not in self._lost:
                self._lost.add(worker.pid)
                said = f"a process that asks teachers stopped: {_last_line(complaints)}"
                print(f"warning: {said}; what it left is done without it", file=sys.stderr)


def _end(workers: list[Worker]) -> None:
    for worker, _ in workers:
        worker.terminate()
    for worker, complaints in workers:
        try:
            worker.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
        complaints.close()
    workers.clear()


def _last_line(complaints: IO[bytes]) -> str:
    complaints.seek(0)
    lines = complaints.read().decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else "it was killed"
