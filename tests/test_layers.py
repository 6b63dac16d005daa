"""What features can be named, and which fit together."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from ensemble_kd.config import compose
from ensemble_kd.layers import Layer, layers_of, main, show, suggested
from ensemble_kd.networks import Cnn, Mlp
from ensemble_kd.plan import make_plan


def test_every_layer_is_listed_with_its_shape() -> None:
    layers = layers_of(Cnn([1, 8, 8], 10, [4, 6]), [1, 8, 8])
    by_path = {layer.path: layer for layer in layers}
    assert by_path["stages.0"].shape == (4, 8, 8)
    assert by_path["stages"] == Layer("stages", "Sequential", (6, 4, 4))
    assert layers[-1] == Layer("classifier", "Linear", (10,))


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        (Cnn([1, 8, 8], 10, [4, 6]), Cnn([1, 8, 8], 10, [4, 6, 8]), 3),
        (Mlp([1, 8, 8], 10, [4]), Mlp([1, 8, 8], 10, [4, 6]), 1),
        (Cnn([1, 8, 8], 10, [4, 6]), Mlp([1, 8, 8], 10, [4]), 1),
    ],
)
def test_what_is_suggested_is_of_one_kind(student: Cnn, teacher: Cnn, expected: int) -> None:
    own, other = layers_of(student, [1, 8, 8]), layers_of(teacher, [1, 8, 8])
    pairs = suggested(own, other)
    assert len(pairs) == expected
    assert all(len(one.shape) == len(two.shape) for one, two in pairs)
    assert all("classifier" not in (one.path, two.path) for one, two in pairs)


def test_a_suggestion_is_a_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    networks = ["student=cnn_tiny", "teacher.members=[cnn_small,cnn_small]"]
    show(networks)
    said = capsys.readouterr().out
    assert "teacher/0, teacher/1: Cnn" in said
    line = next(line for line in said.splitlines() if line.startswith("student and teacher/0:"))
    chosen = [f"objective.{word}" for word in line.partition(": ")[2].split()]
    make_plan(compose([*networks, "objective=hint", *chosen]))
    assert list(Path().iterdir()) == []


def test_a_mistake_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["student=cnn_tinny"], ["teacher.members=[nobody]"]):
        monkeypatch.setattr(sys, "argv", ["layers", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_teacher_that_is_no_network_has_none(
    own_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = np.zeros((1797, 10), dtype=np.float32)
    np.savez("said.npz", id=np.arange(1797), logits=rows)
    show(["teacher.members=[{recorded: said.npz}, cnn_tiny]"])
    said = capsys.readouterr().out
    assert "teacher/0: no network of PyTorch, and no layers to name" in said
    assert "student and teacher/1: student_layers=" in said
    assert "student and teacher/0" not in said
