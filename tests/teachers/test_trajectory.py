from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_model
from torch import nn

from ensemble_kd.errors import UserError
from ensemble_kd.teachers import Frozen, Trajectory
from ensemble_kd.types import Batch, Progress

BATCH = Batch(torch.arange(6.0).view(3, 2), torch.zeros(3, dtype=torch.long), torch.arange(3))


class Constant(nn.Module):
    """Says one number of every sample; its normalisation would show a training mode."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(float(value)))
        self.norm = nn.BatchNorm1d(2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        said: torch.Tensor = 0 * self.norm(inputs) + self.value
        return said


def saved(folder: Path, values: list[float]) -> list[Path]:
    folder.mkdir()
    files = [folder / f"epoch-{number:04d}.safetensors" for number in range(len(values))]
    for file, value in zip(files, values, strict=True):
        save_model(Constant(value), str(file))
    return files


def at(fraction: float) -> Progress:
    return Progress(0, 0, fraction)


def test_each_answers_as_it_did_at_the_same_point(tmp_path: Path) -> None:
    """Five checkpoints and two of them, over the same stage."""
    files = [saved(tmp_path / "a", [0.0, 1, 2, 3, 4]), saved(tmp_path / "b", [10.0, 11])]
    ensemble = Trajectory([Frozen(Constant(-1.0)), Frozen(Constant(-2.0))], files)
    want = {
        0.0: (0, 10), 0.19: (0, 10), 0.2: (1, 10), 0.49: (2, 10), 0.5: (2, 11), 0.61: (3, 11),
        0.8: (4, 11), 0.999: (4, 11), 1.0: (4, 11),
    }  # fmt: skip
    for fraction, values in want.items():
        said = [output.logits for output in ensemble(BATCH, at(fraction))]
        assert [float(logits.unique()) for logits in said] == list(values), fraction
    # A resumed run or another stage may step back.
    assert float(ensemble(BATCH, at(0.0))[0].logits.unique()) == 0


@pytest.mark.parametrize(("epochs", "batches"), [(7, 13), (49, 1), (11, 3)])
def test_a_student_trained_as_long_learns_in_epoch_i_from_epoch_i(
    tmp_path: Path, epochs: int, batches: int
) -> None:
    files = [saved(tmp_path / "a", [float(number) for number in range(epochs)])]
    ensemble = Trajectory([Frozen(Constant(-1.0))], files)
    for step in range(epochs * batches):
        progress = Progress(step, step // batches, step / (epochs * batches))
        assert float(ensemble(BATCH, progress)[0].logits.unique()) == step // batches


def test_the_finished_teachers_stay_as_they_are(tmp_path: Path) -> None:
    teacher = Constant(-1.0)
    before = copy.deepcopy(teacher.state_dict())
    ensemble = Trajectory([Frozen(teacher)], [saved(tmp_path / "a", [5.0])])
    ensemble.train()
    (said,) = ensemble(BATCH, at(0.3))
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not said.logits.requires_grad
    assert len(ensemble) == 1
    assert list(ensemble.parameters()) == []
    assert ensemble.state_dict() == {}


def test_it_asks_for_the_weights_of_every_epoch() -> None:
    assert Trajectory.needs_snapshots


def test_a_teacher_without_checkpoints_is_named(tmp_path: Path) -> None:
    teachers = [Frozen(Constant(0.0)), Frozen(Constant(0.0))]
    with pytest.raises(UserError, match=r"teacher 1 kept no weights .* let this run train it"):
        Trajectory(teachers, [saved(tmp_path / "a", [1.0]), []])


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_broken_checkpoint_is_named(tmp_path: Path, content: bytes | None) -> None:
    (file,) = saved(tmp_path / "a", [1.0])
    ensemble = Trajectory([Frozen(Constant(0.0))], [[file]])
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"epoch-0000.*: not a checkpoint of teacher 0") as refusal:
        ensemble(BATCH, at(0.0))
    assert "\n" not in str(refusal.value)


def test_a_checkpoint_of_another_network_is_named(tmp_path: Path) -> None:
    file = tmp_path / "epoch-0000.safetensors"
    save_model(nn.Linear(2, 2), str(file))
    with pytest.raises(UserError, match="not a checkpoint of teacher 0"):
        Trajectory([Frozen(Constant(0.0))], [[file]])(BATCH, at(0.0))
