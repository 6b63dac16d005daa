"""Two processes that share each step end with the weights and the metrics of one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
NAMES = (
    "parallel",
    "partly_labelled_and_an_odd_last_batch",
    "best_epoch",
    "accumulated",
    "clipped",
    "gate_that_learns",
    "mutual",
    "sequential",
    "codistillation",
)
SHARED_OUT = ("best_epoch", "accumulated", "clipped", "gate_that_learns", "mutual")
CLOSE = 1e-5
"""Largest difference of a weight, divided by the largest weight; float32 rounds to 6e-8."""


def torchrun(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A command in two processes of one thread each."""
    kept = ("PATH", "HOME", "VIRTUAL_ENV", "ENSEMBLE_KD_DATA")
    own = {name: os.environ[name] for name in kept if name in os.environ}
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    return subprocess.run(
        [*launcher, *command],
        cwd=folder,
        env={**own, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """What each of two processes ended with."""
    folder = tmp_path_factory.mktemp("cases")
    ended = torchrun(folder, str(HERE / "cases.py"), str(folder))
    assert ended.returncode == 0, ended.stderr
    first, second = (torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    return first, second


@pytest.fixture(scope="module")
def cases() -> Any:
    import importlib.util

    spec = importlib.util.spec_from_file_location("distributed_cases", HERE / "cases.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    assert tuple(module.CASES) == NAMES
    assert module.SHARED_OUT == SHARED_OUT
    return module


@pytest.fixture(scope="module")
def of_one(cases: Any) -> dict[str, Any]:
    """What one process ended with, by case."""
    return {name: cases.trained(case, "cpu") for name, case in cases.CASES.items()}


@pytest.mark.parametrize(
    ("option", "name"),
    [*(("ddp", name) for name in NAMES), *(("fsdp", name) for name in SHARED_OUT)],
)
def test_two_processes_end_as_one(option: str, name: str, of_two: Any, of_one: Any) -> None:
    alone = of_one[name]
    first, second = (each[f"{option}/{name}"] for each in of_two)
    assert first["weights"].keys() == alone.weights.keys()
    for key, expected in alone.weights.items():
        found = first["weights"][key]
        assert torch.equal(found, second["weights"][key])
        assert (found - expected).abs().max() <= CLOSE * expected.abs().max(), key
    # The mean of the losses, of which each process has its own, and a count of right answers of 19
    # validation samples, which two processes cannot share equally.
    for expected_row, row in zip(alone.rows, first["rows"], strict=True):
        assert row == pytest.approx(expected_row, rel=CLOSE, abs=CLOSE)
        assert row["student/val_accuracy"] == expected_row["student/val_accuracy"]


def test_one_process_would_not_end_so_by_itself(of_two: Any, cases: Any) -> None:
    """The comparison tells a half of each step from the whole."""
    half = cases.trained(cases.CASES["parallel"], "cpu", 2)
    found = of_two[0]["ddp/parallel"]["weights"]
    assert max(float((found[k] - w).abs().max()) for k, w in half.weights.items()) > 1e-3


def test_what_the_processes_tell_each_other(of_two: Any) -> None:
    for rank, each in enumerate(of_two):
        assert each["heard"] == {
            "place": (rank, 2),
            "first": [0, 1, 1],  # alone while the others wait
            "entered": [0, "in", "out"] if rank == 0 else [0],
            "first fails": "process 0",
            "together": rank,
            "second fails": "process 1",
            "agreed": "same",
            "not agreed": (
                "it: the processes of this run do not agree: expected the same code, packages, "
                "configuration and data on every machine"
            ),
        }


def test_networks_that_are_copied_cannot_be_shared_out(of_two: Any) -> None:
    for each in of_two:
        assert "cannot be shared out: trainer=ddp" in each["refusal"]
        assert "\n" not in each["refusal"]
