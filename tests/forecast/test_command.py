"""The command: what it measures on digits, what it prints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ensemble_kd.config import compose
from ensemble_kd.forecast.__main__ import main, planned
from ensemble_kd.forecast.allocated import Allocated
from ensemble_kd.forecast.samples import in_batches_of, of_size
from ensemble_kd.forecast.shown import amount, duration
from ensemble_kd.plan import make_plan
from ensemble_kd.types import Batch

QUICK = ("student=mlp_small", "teacher.members=[mlp_large,mlp_large]", "--seconds=1")
PARTS = ["teacher/0", "teacher/1", "student", "control/no_teacher", "evaluation"]


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main([*QUICK, *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_forecast_of_digits(capsys: pytest.CaptureFixture[str]) -> None:
    more = ("data.cycle=2", "cache=disk", "cache.format=float16", "evaluation.robustness=null")
    found = said(capsys, *more, "--ranks=2", "--samples=10000", "data.labelled=null")
    parts = {part["name"]: part for part in found["parts"]}
    assert list(parts) == [*PARTS[:2], "answers for student", *PARTS[2:]]
    assert parts["student"]["steps"] == 40 * (10_000 // (2 * 64))
    stages = {stage["name"]: stage for stage in found["measured"]["stages"]}
    # Two hidden layers of 256, with BatchNorm in place of a bias: of each layer two numbers that
    # are learned, and the mean, the variance and a count of batches.
    numbers = 64 * 256 + 256 * 256 + 256 * 10 + 10 + 4 * 256
    assert stages["teacher/0"]["gradients"] == 4 * numbers
    assert stages["teacher/0"]["buffers"] == 2 * (2 * 256 * 4 + 8)
    assert stages["teacher/0"]["weights"] == 4 * numbers + stages["teacher/0"]["buffers"]
    assert stages["teacher/0"]["state"] == 2 * 4 * numbers + 4 * 8  # AdamW counts for each tensor
    assert stages["student"]["kept"] == ["teacher/0", "teacher/1"]
    row, index = 2 * 10, 8
    disk = parts["answers for student"]["disk"]
    assert disk == pytest.approx(2 * 10_000 * (2 * row + index), rel=0.02)
    for part in found["parts"]:
        low, middle, high = (part["seconds"][key] for key in ("low", "middle", "high"))
        assert 0 < low <= middle <= high
    assert parts["student"]["step_network"] > 0
    assert found["total"]["seconds"]["middle"] == pytest.approx(
        sum(part["seconds"]["middle"] for part in found["parts"])
    )
    assert not list(Path().rglob("*.safetensors"))


def test_samples_that_are_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    shape = ("--inputs=3,20,20", "--classes=70", "--samples=5000000", "--held-out=100")
    arguments = [*QUICK, *shape, "controls=[]", "data.augment=[]", "evaluation.robustness=null"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "5,000,000 training samples, 1 process with batches of 64" in printed
    assert "taken to be read batch by batch" in printed
    lines = printed.splitlines()
    assert any(line.startswith("total") for line in lines)
    student = next(line for line in lines if line.startswith("student"))
    assert f"{40 * (5_000_000 // 64):,}" in student


@pytest.mark.parametrize(
    ("arguments", "mistake"),
    [
        (["--inputs=3,8,8"], "--inputs and --classes: expected both or neither"),
        (["student=resnet21"], "resnet21"),
        (["batch_size=0"], "batch_size: expected an integer >= 1, got 0"),
        (["--config-dir=nowhere"], "--config-dir: expected a folder, got nowhere"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], mistake: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert mistake in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize("flag", ["--samples=0", "--ranks=x", "--bandwidth=-1", "--inputs=3,0"])
def test_flags_are_checked(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([flag])
    assert stopped.value.code == 2
    assert "must be" in capsys.readouterr().err


def test_the_plan_is_that_of_the_run() -> None:
    asked = ["student=mlp_small", "teacher=single"]
    plan, _ = planned(asked)
    expected = make_plan(compose(asked))
    assert [stage.name for stage in plan.stages] == [stage.name for stage in expected.stages]
    data = make_plan(compose(asked)).data
    smaller = in_batches_of(data.train_dataloader(), 16)
    assert {len(batch.index) for batch in smaller} == {16}
    assert len(next(iter(data.train_dataloader())).index) == 64


def test_batches_of_another_size_hold_the_same_samples_again() -> None:
    batch = Batch(torch.arange(3.0), torch.arange(3), torch.arange(3), view=torch.zeros(3))
    made = of_size(batch, 7)
    assert made.inputs.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert made.index.tolist() == made.target.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert of_size(batch, 2).inputs.tolist() == [0, 1]


def test_allocated_sees_what_is_there_at_the_same_time() -> None:
    kept = torch.zeros(1000)
    with Allocated() as counted:
        first = torch.ones(500)  # 2,000 bytes
        del first
        second = torch.ones(750) + 1  # twice 3,000 bytes, of which the first goes
        second.add_(1)
        view = second[:10]
        kept.add_(1)
        most = counted.most
        now = counted.now
    assert most == 2 * 3000
    assert now == 3000
    assert view.shape == (10,)


def test_allocated_sees_what_a_backward_pass_needs() -> None:
    network = nn.Sequential(nn.Linear(64, 64, bias=False), nn.ReLU(), nn.Linear(64, 1, bias=False))
    inputs = torch.randn(100, 64)
    with Allocated() as counted:
        said = network(inputs)
        hidden = 4 * 100 * 64
        assert counted.most == 2 * hidden  # before and after the activation
        assert counted.now == hidden + 4 * 100  # it needs no more than what comes after
        said.sum().backward()
        del said
    assert counted.now == 4 * (64 * 64 + 64)  # the gradients
    assert counted.most >= 2 * hidden + 4 * 64


def test_units() -> None:
    assert [amount(size) for size in (0, 999, 1000, 1.5e9, 2e18)] == [
        *("0 B", "999 B", "1 kB", "1.5 GB", "2e+03 PB")
    ]
    assert [duration(each) for each in (0.012, 90, 600, 36_000, 1e6, 1e9)] == [
        *("12 ms", "90 s", "10 min", "10 h", "11.6 days", "31.7 years")
    ]
