"""``samples.json``: which samples are shown, and as what."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ensemble_kd.errors import UserError
from ensemble_kd.networks.multi_head import Tasked
from ensemble_kd.predictions import Predictions
from ensemble_kd.report.samples import read_samples, shown_samples, write_samples
from ensemble_kd.types import NEVER, UNLABELLED, Batch, Tokens

CLASSES = ("cat", "dog", "<b>cow</b>")
NAMES = ("teacher/0", "ensemble", "control/no_teacher", "student")


def predictions(n: int, names: tuple[str, ...] = NAMES, seed: int = 0) -> Predictions:
    """Random logits; the numbers of the samples are no positions."""
    draw = torch.Generator().manual_seed(seed)
    logits = {name: 2 * torch.randn(n, len(CLASSES), generator=draw) for name in names}
    target = torch.randint(len(CLASSES), (n,), generator=draw)
    return Predictions(CLASSES, 1000 + 3 * torch.arange(n), target, logits)


def batches(inputs: Tensor, index: Tensor, size: int = 4) -> list[Batch]:
    """Inputs by sample, in batches."""
    return [
        Batch(inputs[rows], index[rows], index[rows])
        for rows in torch.arange(len(index)).split(size)
    ]


def reference_divergence(reference: Tensor, student: Tensor) -> float:
    """KL(reference || student) of two vectors of logits, as it is written down."""
    p, q = ([math.exp(float(each)) for each in logits] for logits in (reference, student))
    return sum(
        a / sum(p) * math.log(a / sum(p) / (b / sum(q))) for a, b in zip(p, q, strict=True) if a
    )


def texts(rows: Tensor) -> Tokens:
    """Texts (b, n) in bytes; their tokens do not matter."""
    none = torch.zeros(len(rows), 1).long()
    return Tokens(none, none.bool(), none, rows)


def picture(sample: dict[str, Any]) -> Image.Image:
    """The image of a sample."""
    return Image.open(io.BytesIO(base64.b64decode(sample["input"]["png"])))


@pytest.mark.parametrize("reference", ["ensemble", "control/no_teacher"])
def test_the_largest_divergences_come_first(reference: str) -> None:
    names = NAMES if reference == "ensemble" else ("control/no_teacher", "student")
    said = predictions(30, names)
    expected = {
        int(index): reference_divergence(said.logits[reference][row], said.logits["student"][row])
        for row, index in enumerate(said.index)
    }
    shown = shown_samples(said, batches(torch.randn(30, 5), said.index), count=7)
    order = sorted(expected, key=lambda index: -expected[index])
    assert [sample["index"] for sample in shown] == order[:7]
    for sample in shown:
        assert sample["against"] == reference
        assert sample["kl"] == pytest.approx(expected[sample["index"]], abs=1e-9)


def test_what_is_said_of_a_sample_is_the_class_ranked_first_and_its_probability() -> None:
    said = predictions(10)
    said.target[:5] = UNLABELLED
    shown = shown_samples(said, batches(torch.randn(10, 5), said.index))
    assert len(shown) == 10
    for sample in shown:
        row = said.index.tolist().index(sample["index"])
        assert sample["target"] == (None if row < 5 else CLASSES[int(said.target[row])])
        assert sample["place"] is None
        assert list(sample["said"]) == ["student", "ensemble", "control/no_teacher"]
        for name, each in sample["said"].items():
            raised = [math.exp(float(value)) for value in said.logits[name][row]]
            assert each["class"] == CLASSES[int(np.argmax(raised))]
            assert each["probability"] == pytest.approx(max(raised) / sum(raised), abs=1e-6)


def test_inputs_are_found_by_their_number_in_whatever_batch_they_are() -> None:
    said = predictions(12)
    inputs = said.index[:, None] + torch.arange(3.0)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    for sample in shown_samples(said, batches(inputs[order], said.index[order])):
        own = sample["index"]
        assert sample["input"] == {"kind": "table", "values": [own, own + 1, own + 2], "count": 3}


def test_no_batch_is_read_after_the_last_sample_that_is_wanted() -> None:
    said = predictions(8)
    first = batches(torch.randn(8, 2), said.index, size=8)[0]

    def served() -> Any:
        yield first
        raise AssertionError("one batch too many")

    assert len(shown_samples(said, served(), count=3)) == 3


def test_what_the_ensemble_rules_out_adds_nothing_and_what_the_student_does_is_infinite() -> None:
    logits = {
        "ensemble": torch.tensor([[0.0, 1.0, NEVER], [0.0, 1.0, -math.inf], [0.0, 1.0, 2.0]]),
        "student": torch.tensor([[0.5, 0.0, -9.0], [0.5, 0.0, 1.0], [0.0, 0.0, -math.inf]]),
    }
    said = Predictions(CLASSES, torch.arange(3), torch.zeros(3).long(), logits)
    shown = shown_samples(said, batches(torch.randn(3, 2), said.index))
    assert [sample["index"] for sample in shown] == [2, 1, 0]
    assert shown[0]["kl"] is None
    assert all(math.isfinite(sample["kl"]) for sample in shown[1:])


def test_there_are_none_without_a_reference() -> None:
    said = predictions(5, ("teacher/0", "student"))
    assert shown_samples(said, batches(torch.randn(5, 2), said.index)) == []


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7), (8, 8), (2, 4, 4)])
def test_an_image_runs_from_its_darkest_to_its_brightest_value(shape: tuple[int, ...]) -> None:
    said = predictions(3)
    inputs = torch.randn(3, *shape, generator=torch.Generator().manual_seed(3))
    for sample in shown_samples(said, batches(inputs, said.index)):
        own = inputs[said.index.tolist().index(sample["index"])].double().numpy()
        if own.ndim == 3:
            own = (
                own[0]
                if len(own) == 1
                else own.mean(0)
                if len(own) == 2
                else own.transpose(1, 2, 0)
            )
        expected = np.round(255 * (own - own.min()) / (own.max() - own.min()))
        image = picture(sample)
        assert np.array_equal(np.asarray(image), expected)
        assert sample["input"]["kind"] == "image"
        assert (sample["input"]["width"], sample["input"]["height"]) == image.size


def test_an_image_of_one_value_is_black_and_a_large_one_is_scaled_down() -> None:
    said = predictions(2)
    inputs = torch.full((2, 1, 300, 150), 0.7)
    for sample in shown_samples(said, batches(inputs, said.index)):
        image = picture(sample)
        assert image.size == (64, 128)
        assert np.asarray(image).max() == 0


def test_a_text_has_its_parts_and_its_task_is_passed_over() -> None:
    said = predictions(2)
    text = b"is it <b>true</b>?\x1f\xc3\xa9h\xc3"  # the last character is cut
    rows = torch.frombuffer(bytearray(text + b"\0\0"), dtype=torch.uint8).repeat(2, 1)
    tokens = texts(rows)
    for inputs in (tokens, Tasked(tokens, torch.tensor([0, 1]))):
        shown = shown_samples(said, [Batch(inputs, said.target, said.index)])
        parts = ["is it <b>true</b>?", "éh�"]
        assert shown[0]["input"] == {"kind": "text", "parts": parts, "word": None}


def test_a_long_text_and_a_wide_row_are_cut() -> None:
    said = predictions(1)
    rows = torch.full((1, 9000), ord("a"), dtype=torch.uint8)
    tokens = texts(rows)
    (sample,) = shown_samples(said, [Batch(tokens, said.target, said.index)])
    assert sample["input"]["parts"] == ["a" * 2000 + "…"]
    (sample,) = shown_samples(said, batches(torch.zeros(1, 500), said.index))
    assert (len(sample["input"]["values"]), sample["input"]["count"]) == (64, 500)


def test_of_a_sequence_the_place_with_the_largest_divergence_is_shown() -> None:
    index = torch.tensor([4, 4, 4, 9, 9])
    wrong = torch.tensor([0.0, 1.0, 5.0, 2.0, 3.0])
    ensemble = torch.zeros(5, 3)
    student = torch.zeros(5, 3)
    student[:, 0] = wrong
    logits = {"ensemble": ensemble, "student": student}
    said = Predictions(CLASSES, index, torch.tensor([0, 1, 2, 1, 0]), logits)
    text = torch.frombuffer(bytearray(b"New\x1fYork\x1fcity"), dtype=torch.uint8).repeat(2, 1)
    tokens = texts(text)
    shown = shown_samples(said, [Batch(tokens, torch.zeros(2, 4).long(), torch.tensor([9, 4]))])
    assert [(each["index"], each["place"]) for each in shown] == [(4, 2), (9, 1)]
    assert [each["target"] for each in shown] == [CLASSES[2], CLASSES[0]]
    assert [each["input"]["word"] for each in shown] == [2, 1]
    assert shown[0]["input"]["parts"] == ["New", "York", "city"]


def test_other_inputs_are_only_named() -> None:
    said = predictions(1)
    shown = shown_samples(said, batches(torch.zeros(1, 2, 2, 2, 2), said.index))
    assert shown[0]["input"] == {"kind": "other"}


def test_what_was_written_is_read_again_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    said = predictions(6)
    shown = shown_samples(said, batches(torch.randn(6, 1, 8, 8), said.index))
    for name in ("one.json", "other.json"):
        write_samples(shown, tmp_path / name)
    assert read_samples(tmp_path / "one.json") == shown
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "other.json").read_bytes()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("kl", "x", "samples.0.kl: expected a number, got"),
        ("said", {"student": 3}, "samples.0.said.student: expected keys and values, got 3"),
        ("input", {"kind": "sound"}, "samples.0.input.kind: expected image, text, table, other"),
        ("input", {"kind": "text", "word": 0}, "samples.0.input: expected the key 'parts'"),
    ],
)
def test_a_sample_that_is_wrong_inside_is_refused(
    tmp_path: Path, key: str, value: object, message: str
) -> None:
    said = predictions(1)
    shown = shown_samples(said, batches(torch.randn(1, 1, 8, 8), said.index))
    write_samples([shown[0] | {key: value}], tmp_path / "samples.json")
    with pytest.raises(UserError, match=message):
        read_samples(tmp_path / "samples.json")


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"schema": 7, "samples": []}', '{"schema": 1}', '{"schema": 1, "samples": 3}'],
)
def test_something_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "samples.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"samples\.json: .*expected"):
        read_samples(path)
    with pytest.raises(UserError, match="cannot read"):
        read_samples(tmp_path / "none.json")
