"""Real runs that are killed, or stopped by Ctrl-C: the same command ends with the same weights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ensemble_kd.files import file_digest

COMMAND = (
    *(sys.executable, "-m", "ensemble_kd", "strategy=mutual", "strategy.taught=false"),
    *("teacher=none", "controls=[]", "student.dropout=0.5", "epochs=3", "batch_size=128"),
    *("report.plots=false", "report.onnx=false", "report.page=false", "report.table=false"),
    *("checkpoint.every_n_steps=2", "logger=none"),
)
STOPPING = """
import os, signal, sys
from ensemble_kd.module import DistillationModule

after, how = int(sys.argv.pop(1)), int(sys.argv.pop(1))
step = DistillationModule.training_step

def counted(module, *arguments):
    global after
    after -= 1
    if after < 0:
        os.kill(os.getpid(), how)
    return step(module, *arguments)

DistillationModule.training_step = counted
# Whoever runs the tests in the background of a shell has it ignored, and so would this process.
signal.signal(signal.SIGINT, signal.default_int_handler)

from ensemble_kd.__main__ import main
main()
"""


def run(store: str, command: Sequence[str] = COMMAND) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, f"paths.store={store}"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def digests(store: str) -> list[str]:
    (folder,) = [path for path in Path(store).iterdir() if len(path.name) == 32]
    files = [path for path in sorted(folder.iterdir()) if path.name != "provenance.json"]
    return [f"{path.name} {file_digest(path)}" for path in files]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What an uninterrupted run leaves."""
    store = tmp_path_factory.mktemp("whole")
    finished = run(str(store), [*COMMAND, f"hydra.run.dir={store}/run"])
    assert finished.returncode == 0, finished.stderr
    return digests(str(store))


@pytest.mark.parametrize(
    ("how", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)]
)
def test_the_same_command_ends_with_the_same_weights(
    how: signal.Signals, status: int, whole: list[str]
) -> None:
    stopping = [sys.executable, "-c", STOPPING, "15", str(int(how)), *COMMAND[3:]]
    stopped = run("store", stopping)
    assert stopped.returncode == status, stopped.stderr
    if how == signal.SIGINT:
        assert stopped.stderr == (
            "interrupted in stage student: finished stages are kept in the store, and so is the "
            "last checkpoint of this one; the same command goes on from there\n"
        )
    again = run("store")
    assert again.returncode == 0, again.stderr
    assert "[1/1] student  continues from epoch 2, batch 7 ..." in again.stdout
    assert digests("store") == whole
