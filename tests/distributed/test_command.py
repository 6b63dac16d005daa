"""The command line in two processes: one run folder, one set of lines, one store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = (
    *("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "controls=[]"),
    *(
        "teacher.members=[cnn_tiny]",
        "+trainer.limit_train_batches=2",
        "report.plots=false",
        "report.page=false",
    ),
    "report.onnx=false",
)

pytestmark = pytest.mark.slow


@contextmanager
def torchrun(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command in two processes of one thread each, with the store ``store``."""
    own = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    environment = {**own, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    started = subprocess.Popen(
        [*launcher, "-m", "ensemble_kd", *arguments, "paths.store=store"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def weights(store: Path) -> dict[str, bytes]:
    """Those of each artefact, by digest; of nothing that is unfinished."""
    return {path.parent.name: path.read_bytes() for path in store.glob("[0-9a-f]*/*.safetensors")}


def test_torchrun_does_what_the_run_does_by_itself(
    own_folder: Path,
    command: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with torchrun(own_folder, *SMALL, "epochs=2") as started:
        said, complaints = started.communicate()
    assert started.returncode == 0, complaints
    assert complaints == ""
    assert said.count("[1/2] teacher/0") == said.count("[2/2] student") == 1
    assert said.count("run folder: ") == 1
    (folder,) = own_folder.glob("outputs/*/*")
    together = json.loads((folder / "results.json").read_text())

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    other = "hydra.run.dir=by_itself"
    assert command(*SMALL, "epochs=2", other, "paths.store=other") == 0
    assert capfd.readouterr().err == ""  # nor from the processes that it started
    alone = json.loads((own_folder / "by_itself" / "results.json").read_text())
    assert weights(own_folder / "store") == weights(own_folder / "other") != {}
    for split in ("val", "test"):
        found, expected = (each["predictors"]["student"][split] for each in (together, alone))
        assert found == expected
        assert found["n"] > 200  # the whole split, not a share


def test_a_mistake_is_said_once_and_nothing_is_written(own_folder: Path) -> None:
    with torchrun(own_folder, *SMALL, "trainer.devices=3") as started:
        said, complaints = started.communicate()
    assert started.returncode != 0
    assert said == ""
    assert complaints.count("error: ") == 1
    assert complaints.count("trainer.devices, trainer.num_nodes: expected 2 devices in all") == 1
    assert not list(own_folder.iterdir())


def test_the_death_of_one_process_ends_all_and_the_command_goes_on(own_folder: Path) -> None:
    asked = (*SMALL, "epochs=60")
    with torchrun(own_folder, *asked) as started:
        curves: list[Path] = []
        while started.poll() is None and not any(path.stat().st_size > 999 for path in curves):
            time.sleep(0.1)
            curves = list(own_folder.glob("store/.unfinished/*/curves.csv"))
        assert started.poll() is None, started.communicate()[1]
        os.kill(_second(started.pid), signal.SIGKILL)
        _, complaints = started.communicate()
    assert started.returncode != 0
    assert complaints.count("error: ") <= 1  # torchrun may end the first before it says so
    assert not weights(own_folder / "store")
    with torchrun(own_folder, *asked) as started:
        said, complaints = started.communicate()
    assert started.returncode == 0, complaints
    assert len(weights(own_folder / "store")) == 2
    assert "run folder: " in said


def _second(launcher: int) -> int:
    """The process of rank 1."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            said = (folder / "environ").read_text().split("\0")
        except (OSError, ValueError):
            continue
        if parent == launcher and "RANK=1" in said:
            return int(folder.name)
    raise AssertionError("there is no second process")
