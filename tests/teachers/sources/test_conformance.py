"""What holds for teachers from everywhere."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ensemble_kd.teachers.foreign import Foreign
from ensemble_kd.teachers.sources import Source
from ensemble_kd.types import Output

Ask = Callable[..., Any]


def some(inputs: Any, rows: slice) -> Any:
    return pytree.tree_map(lambda part: part[rows], inputs)


def test_says_what_its_own_runtime_says(kind: str, make: Any, ask: Ask) -> None:
    case = make(kind)
    loaded = case.source.load(case.told)
    with torch.no_grad():
        said = ask(loaded, case.inputs)
    assert isinstance(said, Output)
    assert said.logits.dtype == torch.float32
    assert said.logits.shape == case.native.shape
    if case.probabilities:
        # A probability of zero has no logit: it becomes the smallest one that has.
        expected = case.native.clamp(min=1e-7)
        expected = expected / expected.sum(dim=-1, keepdim=True)
        torch.testing.assert_close(
            said.logits.softmax(-1).double(), expected.double(), rtol=1e-5, atol=1e-6
        )
    else:
        torch.testing.assert_close(said.logits, case.native, rtol=1e-4, atol=1e-5)
    assert case.native.argmax(-1).unique().numel() > 1  # the order of the classes is seen


def test_is_at_rest(kind: str, make: Any) -> None:
    case = make(kind)
    network = case.source.load(case.told).network
    assert not any(part.training for part in network.modules())
    tensors = [*network.parameters(), *network.buffers()]
    assert {tensor.device.type for tensor in tensors} <= {"cpu"}


def test_says_the_same_again_and_after_it_was_moved(kind: str, make: Any, ask: Ask) -> None:
    case = make(kind)
    loaded = case.source.load(case.told)
    with torch.no_grad():
        first, second = (ask(loaded, case.inputs).logits for _ in range(2))
        loaded.network.to("cpu")
        third = ask(loaded, case.inputs).logits
    assert torch.equal(first, second)
    assert torch.equal(first, third)
    assert not first.requires_grad


def test_batches_of_any_size(kind: str, make: Any, ask: Ask) -> None:
    case = make(kind)
    loaded = case.source.load(case.told)
    count = len(pytree.tree_leaves(case.inputs)[0])
    with torch.no_grad():
        whole = ask(loaded, case.inputs).logits
        for size in (1, 5):
            pieces = [slice(at, at + size) for at in range(0, count, size)]
            parts = [ask(loaded, some(case.inputs, piece)).logits for piece in pieces]
            torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-4, atol=1e-5)


def test_copies_and_pickles_say_the_same(kind: str, make: Any, ask: Ask) -> None:
    case = make(kind)
    loaded = case.source.load(case.told)
    with torch.no_grad():
        said = ask(loaded, case.inputs).logits
        for again in (copy.deepcopy(loaded.network), pickle.loads(pickle.dumps(loaded.network))):
            assert torch.equal(ask(loaded._replace(network=again), case.inputs).logits, said)
    if isinstance(loaded.network, Foreign):
        assert copy.deepcopy(loaded.network) is loaded.network


def moved(source: Source, old: Path, new: Path) -> Source:
    """The same source, whose files lie in another folder."""
    told = {k: v.replace(str(old), str(new)) for k, v in vars(source).items() if type(v) is str}
    return dataclasses.replace(source, **told)  # type: ignore[type-var]  # sources are dataclasses


def test_the_digest_is_that_of_what_it_says(kind: str, make: Any, tmp_path: Path) -> None:
    case, other = make(kind), make(kind, 1, "other")
    shutil.copytree(tmp_path / "teacher", tmp_path / "copy")
    copied = moved(case.source, tmp_path / "teacher", tmp_path / "copy")
    digest = case.source.load(case.told).digest
    assert len(digest) == 64
    assert copied != case.source
    assert copied.load(case.told).digest == digest
    assert other.source.load(other.told).digest != digest


def test_its_gradient_is_nobodys(kind: str, make: Any, ask: Ask) -> None:
    from ensemble_kd.teachers import Frozen
    from ensemble_kd.types import Batch

    case = make(kind)
    network = case.source.load(case.told).network
    frozen = Frozen(network)
    index = case.inputs if kind == "recorded" else torch.arange(len(case.native))
    said = frozen.answer(Batch(case.inputs, torch.zeros(len(case.native)), index)).logits
    assert not said.requires_grad
    assert not said.is_inference()
    assert isinstance(said, Tensor)
    assert torch.isfinite(said).all()
