from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ensemble_kd.data import Augmentation, Flip, InMemory, Noise, Shift
from ensemble_kd.errors import UserError
from ensemble_kd.types import UNLABELLED

COUNTS = [60, 30, 30]
MakeSource = Callable[..., Any]


def rows(batches: Any) -> list[int]:
    return [row for batch in batches for row in batch.index.tolist()]


def test_splits_cover_and_batches_hold_what_the_source_holds(held: MakeSource) -> None:
    source = held(COUNTS)
    data = InMemory(source, batch_size=7, drop_last=False)
    loaders = (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    assert sorted(row for loader in loaders for row in rows(loader)) == list(range(120))
    assert [len(rows(loader)) for loader in loaders] == [84, 18, 18]
    assert data.sizes() == {"train": 84, "labelled": 84, "val": 18, "test": 18}
    assert data.inputs == (2, 3)
    assert data.classes == 3
    assert data.name == "Held"
    for loader in loaders:
        for batch in loader:
            assert batch.mask is None
            assert np.array_equal(batch.inputs.numpy(), source.inputs[batch.index.numpy()])
            assert np.array_equal(batch.target.numpy(), source.labels[batch.index.numpy()])
            assert torch.equal(batch.inputs[:, 0, 0].long(), batch.index)


def test_validation_and_test_are_whole_ordered_and_unaugmented(held: MakeSource) -> None:
    source = held(COUNTS, (1, 4, 4), test=50)
    data = InMemory(source, batch_size=8, augment=[Noise(0.5), Flip()], labelled=9)
    batches = list(data.test_dataloader())
    assert [len(batch.target) for batch in batches] == [8] * 6 + [2]
    assert rows(batches) == list(range(120, 170))
    assert torch.equal(
        torch.cat([batch.inputs for batch in batches]), torch.from_numpy(source.test.inputs)
    )
    assert data.sizes() == {"train": 102, "labelled": 9, "val": 18, "test": 50}
    val = list(data.val_dataloader())
    assert [len(batch.target) for batch in val] == [8, 8, 2]
    assert rows(val) == sorted(rows(val))
    for batch in val:
        assert batch.mask is None
        assert np.array_equal(batch.inputs.numpy(), source.inputs[batch.index.numpy()])
        assert np.array_equal(batch.target.numpy(), source.labels[batch.index.numpy()])


def test_labelled(held: MakeSource) -> None:
    source = held(COUNTS)
    data = InMemory(source, batch_size=84, labelled=12)
    (batch,) = data.train_dataloader()
    assert batch.mask is not None
    known = batch.index[batch.mask].numpy()
    assert np.bincount(source.labels[known]).tolist() == [6, 3, 3]
    assert np.array_equal(batch.target[batch.mask].numpy(), source.labels[known])
    assert batch.target[~batch.mask].unique().tolist() == [UNLABELLED]
    assert data.sizes()["labelled"] == 12


def test_labels_that_are_kept_back_are_nowhere_in_what_training_reads(held: MakeSource) -> None:
    data = InMemory(held(COUNTS), batch_size=20, labelled=12)
    loader = data.train_dataloader()
    target, mask = loader.table.target, loader.table.mask
    assert mask is not None
    assert int(mask.sum()) == 12
    assert target[~mask].unique().tolist() == [UNLABELLED]


def test_all_labels_need_no_mask(held: MakeSource) -> None:
    plain, full = InMemory(held(COUNTS)), InMemory(held(COUNTS), labelled=84)
    assert next(iter(full.train_dataloader())).mask is None
    assert plain.digest == full.digest


def test_one_label_of_each_class_at_least(held: MakeSource) -> None:
    data = InMemory(held([300, 5, 5]), batch_size=300, labelled=3)
    (batch,) = data.train_dataloader()
    assert batch.mask is not None
    assert sorted(batch.target[batch.mask].tolist()) == [0, 1, 2]


def test_labelled_only_spends_the_same_budget_on_the_labelled(held: MakeSource) -> None:
    (whole,) = InMemory(held(COUNTS), batch_size=84, labelled=12).train_dataloader()
    assert whole.mask is not None
    known = set(whole.index[whole.mask].tolist())
    data = InMemory(held(COUNTS), batch_size=8, labelled=12)
    ordinary = data.train_dataloader()
    data.labelled_only = True
    loader = data.train_dataloader()
    batches = list(loader)
    assert len(batches) == len(loader) == len(ordinary) == 10
    assert all(len(batch.target) == 8 and batch.mask is None for batch in batches)
    assert all(int(batch.target.min()) >= 0 for batch in batches)
    seen = rows(batches)
    assert set(seen) == known
    assert max(map(seen.count, seen)) - min(map(seen.count, seen)) <= 1


def test_labelled_only_varies_each_visit(held: MakeSource) -> None:
    data = InMemory(held([12, 12], (1, 4, 4)), batch_size=4, labelled=2, augment=Noise(1.0))
    data.labelled_only = True
    looks: dict[int, list[Tensor]] = {}
    for batch in data.train_dataloader():
        for row, inputs in zip(batch.index.tolist(), batch.inputs, strict=True):
            looks.setdefault(row, []).append(inputs)
    assert sorted(map(len, looks.values())) == [8, 8]
    for seen in looks.values():
        assert len({tuple(inputs.flatten().tolist()) for inputs in seen}) == 8


def test_labelled_only_changes_nothing_when_all_are(held: MakeSource) -> None:
    data = InMemory(held(COUNTS), batch_size=8, augment=Noise(0.1))
    once = list(data.train_dataloader())
    data.labelled_only = True
    for a, b in zip(once, data.train_dataloader(), strict=True):
        assert torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.index, b.index)


def test_views(held: MakeSource) -> None:
    data = InMemory(held(COUNTS, (1, 4, 4)), batch_size=8, augment=Noise(0.1))
    plain = next(iter(data.train_dataloader()))
    data.views = 3
    batch = next(iter(data.train_dataloader()))
    assert torch.equal(batch.inputs, plain.inputs)
    assert [view.shape for view in batch.views] == [plain.inputs.shape] * 2
    assert next(iter(data.val_dataloader())).views == ()


def test_seeds_differ_and_repeat(held: MakeSource) -> None:
    def drawn(seed: int) -> list[object]:
        data = InMemory(held(COUNTS), batch_size=8, seed=seed, labelled=12, augment=Noise(0.1))
        train = list(data.train_dataloader())
        return [
            rows(data.val_dataloader()),
            rows(data.test_dataloader()),
            rows(train),
            [batch.target.tolist() for batch in train],
            [batch.inputs.tolist() for batch in train],
        ]

    assert drawn(3) == drawn(3)
    assert all(a != b for a, b in zip(drawn(3), drawn(4), strict=True))


class Doubled(Augmentation):
    """No dataclass: its repr names an address."""

    def __call__(self, inputs: Tensor, index: Tensor, epoch: Tensor | int, seed: int) -> Tensor:
        return 2 * inputs


def test_an_augmentation_of_the_users_own(held: MakeSource) -> None:
    source = held(COUNTS)
    one, two = (InMemory(source, batch_size=8, augment=Doubled()) for _ in range(2))
    batch = next(iter(one.train_dataloader()))
    assert np.array_equal(batch.inputs.numpy(), 2 * source.inputs[batch.index.numpy()])
    # What it does is not known, so two of them never count as the same.
    assert one.digest != two.digest


def test_digest_knows_each_determinant(held: MakeSource) -> None:
    def digest(change: Callable[[Any], None] | None = None, **arguments: Any) -> str:
        source = held(COUNTS, (1, 4, 4), test=20)
        if change is not None:
            change(source)
        return InMemory(source, **{"labelled": 12, "augment": [Noise(0.1)], **arguments}).digest

    def brighter(source: Any) -> None:
        source.inputs[5] += 1

    def relabelled(source: Any) -> None:
        first, second = (int((source.labels == k).argmax()) for k in (1, 2))
        source.labels[[first, second]] = source.labels[[second, first]]

    def other_test(source: Any) -> None:
        source.test.inputs[0] += 1

    def other_mean(source: Any) -> None:
        source.mean = 0.5

    def other_std(source: Any) -> None:
        source.std = 0.5

    changed = [
        digest(),
        digest(brighter),
        digest(relabelled),
        digest(other_test),
        digest(other_mean),
        digest(other_std),
        digest(seed=1),
        digest(batch_size=32),
        digest(labelled=13),
        digest(labelled=None),
        digest(val_share=0.3),
        digest(drop_last=False),
        digest(augment=None),
        digest(augment=[Noise(0.2)]),
        digest(augment=[Shift(1)]),
        digest(augment=[Noise(0.1), Flip()]),
        digest(augment=[Flip(), Noise(0.1)]),
    ]
    assert len(set(changed)) == len(changed)
    assert all(len(said) == 64 and set(said) <= set("0123456789abcdef") for said in changed)
    # The same however it is written, and whatever is done with the data.
    assert digest() == changed[0]
    assert digest(augment=Noise(0.1)) != changed[12]
    assert digest(test_share=0.4) == changed[0]
    assert digest(labelled_only=True, views=2) == changed[0]


def test_digest_is_the_same_in_every_process_and_on_every_machine(held: MakeSource) -> None:
    """A literal, since a changed digest makes every stored network useless."""
    source = held([10, 10, 10])
    source.inputs = np.arange(30 * 6, dtype=np.float32).reshape(30, 2, 3)
    source.labels = np.arange(30) % 3
    data = InMemory(source, batch_size=8, seed=5, labelled=6, augment=[Noise(0.1)])
    assert data.digest == "67a715181296f32c2c5f41c1fa8bc7bd4f66998bc67ec9815de72d97b1b301ec"


def test_reading_happens_once_and_late(held: MakeSource, monkeypatch: pytest.MonkeyPatch) -> None:
    source = held(COUNTS)
    calls = []
    load = source.load

    def counted() -> Any:
        calls.append(1)
        return load()

    monkeypatch.setattr(source, "load", counted)
    data = InMemory(source)
    assert calls == []
    data.setup("fit")
    data.setup("test")
    data.prepare_data()
    _ = (data.inputs, data.classes, data.digest, data.sizes(), data.train_dataloader())
    assert calls == [1]


def test_read_only_arrays_are_copied_without_a_warning(held: MakeSource) -> None:
    source = held(COUNTS)
    source.inputs.setflags(write=False)
    assert len(rows(InMemory(source, batch_size=8).val_dataloader())) == 18


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
        ({"labelled": 0}, "labelled must be >= 1 or null for all labels, got 0"),
        ({"val_share": 0.0}, r"val_share must be in \(0, 1\), got 0.0"),
        ({"val_share": 1.0}, r"val_share must be in \(0, 1\), got 1.0"),
        ({"test_share": 0.0}, r"test_share must be in \(0, 0.85\)"),
        ({"val_share": 0.6, "test_share": 0.4}, r"test_share must be in \(0, 0.4\).*got 0.4"),
        ({"views": 0}, "views must be >= 1, got 0"),
    ],
)
def test_arguments_out_of_range(held: MakeSource, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InMemory(held(COUNTS), **arguments)


@pytest.mark.parametrize(
    ("counts", "arguments", "message"),
    [
        (COUNTS, {"labelled": 2}, r"data.labelled must be between 3 \(one of each class\) and 84"),
        (COUNTS, {"labelled": 85}, "data.labelled must be between 3 .* and 84, got 85"),
        ([60, 2], {}, r"data \(Held\): class 1 has 2 samples, at least 3 are needed"),
        ([4, 4], {"val_share": 0.4, "test_share": 0.5}, "the validation part must be between"),
        (COUNTS, {"augment": Flip()}, "Flip needs images"),
    ],
)
def test_data_that_does_not_allow_it(
    held: MakeSource, counts: list[int], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        InMemory(held(counts), **arguments).setup()
