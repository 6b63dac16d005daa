"""Teachers that answer from what was kept."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.asking.inquiry import Inquiry
from ensemble_kd.asking.recall import Recall
from ensemble_kd.cache import Float16, Float32, Format, Places, Sampled, TopK
from ensemble_kd.data import Digits, InMemory, Noise
from ensemble_kd.errors import UserError
from ensemble_kd.networks import Cnn, Mlp
from ensemble_kd.report.progress import StageProgress
from ensemble_kd.teachers import (
    Cached,
    Ensemble,
    Frozen,
    Keeping,
    LabelSpace,
    Memory,
    Remembered,
    covered,
    side_by_side,
)
from ensemble_kd.types import Progress

START = Progress(0, 0, 0.0)
SIZE = 32


def digits(cycle: int | None = 3, **settings: Any) -> InMemory:
    return InMemory(Digits(limit=200), batch_size=SIZE, augment=Noise(0.1), cycle=cycle, **settings)


def networks() -> list[nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [Cnn((1, 8, 8), 10, widths=(8, 16)), Mlp((1, 8, 8), 10, hidden=(32,))]


class Counting(nn.Module):
    """Counts its calls."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.calls = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        said: Tensor = self.network(inputs)
        return said


def asked(
    data: InMemory, teachers: list[Frozen], root: Path | None = None, format: Format | None = None
) -> list[Remembered]:
    """What teachers said of the training inputs."""
    recurring = data.recurring()
    assert recurring is not None
    kept = format or Float32()
    inquiry = Inquiry("train", data.digest, recurring, SIZE, "32-true", "cpu", 1, False, kept)
    named = {f"teacher/{number}": teacher for number, teacher in enumerate(teachers)}
    digests = {name: f"digest of {name}" for name in named}
    progress = StageProgress(1, 1, "student", 1, io.StringIO())
    found = Recall(root).of(
        named, digests, inquiry, lambda members, batches: Ensemble(members), progress
    )
    return list(found.values())


@pytest.mark.parametrize(
    "settings", [{}, {"labelled": 50}, {"labelled": 50, "labelled_only": True}]
)
def test_what_is_read_is_what_would_be_said_to_the_last_bit(settings: dict[str, Any]) -> None:
    data = digits(**settings)
    counted = [Counting(network) for network in networks()]
    teachers = [Frozen(network) for network in counted]
    ensemble = Cached(teachers, asked(data, teachers), SIZE)
    calls = [network.calls for network in counted]
    for epoch in range(5):  # views come again, in another order
        data.trainer = Place(epoch)  # type: ignore[assignment]
        for batch in data.train_dataloader():
            assert batch.view is not None
            assert 0 <= int(batch.view.min()) <= int(batch.view.max()) < 3
            said = ensemble(batch, START)
            assert [network.calls for network in counted] == calls
            for kept, teacher in zip(said, teachers, strict=True):
                assert torch.equal(kept.logits, teacher.own(batch.inputs).logits)
            calls = [network.calls for network in counted]


class Place:
    """Stands for a trainer that has come so far."""

    def __init__(self, epoch: int) -> None:
        self.current_epoch = epoch
        self.global_rank = 0
        self.world_size = 1
        self.accumulate_grad_batches = 1


def test_views_recur_after_the_cycle_and_not_before() -> None:
    seen: list[dict[int, Tensor]] = []
    data = digits(cycle=2)
    for epoch in range(4):
        data.trainer = Place(epoch)  # type: ignore[assignment]
        epochs: dict[int, Tensor] = {}
        for batch in data.train_dataloader():
            epochs |= {int(i): x for i, x in zip(batch.index, batch.inputs, strict=True)}
        seen.append(epochs)
    for index in set(seen[0]) & set(seen[1]) & set(seen[2]):
        assert torch.equal(seen[0][index], seen[2][index])
        assert not torch.equal(seen[0][index], seen[1][index])
    assert digits(cycle=2).digest != digits(cycle=3).digest != digits(cycle=None).digest


def test_without_recurring_views_teachers_answer_live() -> None:
    data = digits(cycle=None)
    assert data.recurring() is None
    (teacher, _) = [Frozen(network) for network in networks()]
    batch = next(iter(data.train_dataloader()))
    assert batch.view is None
    refusing: Any = None
    (said,) = Cached([teacher], [refusing], SIZE)(batch, START)
    assert torch.equal(said.logits, teacher(batch.inputs).logits)


def test_inputs_that_are_never_varied_recur() -> None:
    data = InMemory(Digits(limit=100), batch_size=SIZE)
    recurring = data.recurring()
    assert recurring is not None
    assert recurring.views == 1
    batch = next(iter(data.train_dataloader()))
    assert batch.view is not None
    assert torch.equal(recurring.inputs(batch.index, 0), batch.inputs)


def test_other_classes_are_translated_after_the_reading() -> None:
    data = digits()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Mlp((1, 8, 8), 2)
    teacher = Frozen(network, [], LabelSpace(covered(["3", "7"], data.names), 10))
    ensemble = Cached([teacher], asked(data, [teacher]), SIZE)
    batch = next(iter(data.train_dataloader()))
    (said,) = ensemble(batch, START)
    live = teacher(batch.inputs)
    assert torch.equal(said.logits, live.logits)
    assert said.groups is not None
    assert live.groups is not None
    assert torch.equal(said.groups, live.groups)


def test_a_memory_is_read_by_sample_and_view() -> None:
    index = torch.tensor([2, 5, 9])
    memory = Memory(Places(index, 2), torch.arange(12.0).view(6, 1, 2))
    read = memory.read(torch.tensor([9, 2, 9]), torch.tensor([0, 1, 1]))
    assert read.tolist() == [[4.0, 5.0], [6.0, 7.0], [10.0, 11.0]]


@pytest.mark.parametrize("unknown", [4, 10, 100])
def test_a_sample_that_was_not_kept_is_an_error(unknown: int) -> None:
    memory = Memory(Places(torch.tensor([2, 5, 9]), 2), torch.zeros(6, 1, 2))
    for view in (0, 1):
        with pytest.raises(UserError, match="expected one of 3 samples in one of 2 views"):
            memory.read(torch.tensor([2, unknown]), torch.full((2,), view))


@pytest.mark.parametrize("view", [-1, 2])
def test_so_is_a_view(view: int) -> None:
    memory = Memory(Places(torch.tensor([2, 5, 9]), 2), torch.zeros(6, 1, 2))
    with pytest.raises(UserError, match="expected one of 3 samples in one of 2 views"):
        memory.read(torch.tensor([2, 9]), torch.tensor([0, view]))


def test_answers_of_several_teachers_are_joined_and_read_at_once() -> None:
    places = Places(torch.tensor([2, 5, 9]), 2)
    values = [torch.randn(6, 1, 4) for _ in range(3)]
    joined = side_by_side([Memory(places, each) for each in values])
    assert all(memory.values is joined[0].values for memory in joined)
    index, view = torch.tensor([9, 2]), torch.tensor([1, 0])
    for each, memory in zip(values, joined, strict=True):
        assert torch.equal(memory.read(index, view), each[[5, 0], 0])
    every = joined[1].read_all(index, view)
    assert all(torch.equal(said, each[[5, 0], 0]) for said, each in zip(every, values, strict=True))
    unlike = [Memory(places, torch.zeros(6, 1, 4)), Memory(places, torch.zeros(6, 1, 5))]
    assert side_by_side(unlike) == unlike


def test_a_joined_memory_is_read_at_once_only_by_its_teachers_in_their_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = digits()
    teachers = [Frozen(network) for network in (*networks(), *networks())]
    known = asked(data, teachers)
    batch = next(iter(data.train_dataloader()))
    looks: list[int] = []
    find = Places.of

    def counted(self: Places, *arguments: Any) -> Any:
        looks.append(1)
        return find(self, *arguments)

    monkeypatch.setattr(Places, "of", counted)
    for order, expected in (([0, 1, 2, 3], 1), ([1, 0, 2, 3], 4), ([0, 1], 2), ([2], 1)):
        looks.clear()
        chosen = Cached([teachers[k] for k in order], [known[k] for k in order], SIZE)
        said = chosen(batch, START)
        assert len(looks) == expected
        for k, output in zip(order, said, strict=True):
            assert torch.equal(output.logits, teachers[k](batch.inputs).logits)


@pytest.mark.parametrize(
    ("where", "limit", "epochs", "wanted"),
    [
        ("off", 1e9, 100, False),
        ("memory", 1.0, 1, True),
        ("auto", 1e9, 100, True),
        ("auto", 1e9, 3, False),  # each view is seen once
        ("auto", 999, 100, False),
        ("auto", 1000, 100, True),
    ],
)
def test_when_it_is_worth_while(where: Any, limit: float, epochs: int, wanted: bool) -> None:
    recurring = digits().recurring()
    assert recurring is not None
    assert Keeping(where, limit).wanted(recurring, epochs, 1000) is wanted


def test_a_batch_of_another_size_is_answered_live() -> None:
    data = digits(drop_last=False)
    counted = [Counting(network) for network in networks()]
    teachers = [Frozen(network) for network in counted]
    ensemble = Cached(teachers, asked(data, teachers), SIZE)
    sizes = []
    for batch in data.train_dataloader():
        before = counted[0].calls
        said = ensemble(batch, START)
        assert counted[0].calls - before == (len(batch.index) != SIZE)
        sizes.append(len(batch.index))
        for output, teacher in zip(said, teachers, strict=True):
            assert torch.equal(output.logits, teacher.own(batch.inputs).logits)
    assert sizes == [32, 32, 32, 32, 12]


def test_bad_settings() -> None:
    where: Any = "disc"
    with pytest.raises(ValueError, match="one of off, auto, memory, disk, got 'disc'"):
        Keeping(where)
    with pytest.raises(ValueError, match="limit must be"):
        Keeping("auto", 0)
    with pytest.raises((ValueError, UserError), match="float33"):
        Keeping("disk", format="float33")
    with pytest.raises(ValueError, match="cycle must be >= 1 or null"):
        digits(cycle=0)


@pytest.mark.parametrize("format", [Float16(), TopK(3), Sampled(8, 0)])
def test_what_a_format_drops_is_ruled_out_and_not_unknown(format: Any, tmp_path: Path) -> None:
    data = digits()
    (teacher, _) = [Frozen(network) for network in networks()]
    known = asked(data, [teacher], tmp_path, format)
    batch = next(iter(data.train_dataloader()))
    (said,) = Cached([teacher], known, SIZE, exact=False)(batch, START)
    assert torch.isfinite(said.logits).all()
    p, q = teacher(batch.inputs).logits.softmax(-1), said.logits.softmax(-1)
    assert (p - q).abs().max() < {"float16": 1e-3}.get(format.name, 1.0)
    assert torch.isfinite(q).all()
