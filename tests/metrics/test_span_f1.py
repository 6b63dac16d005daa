"""Entity-level precision, recall and F1 against a reference that walks word by word."""

from __future__ import annotations

import math
import pickle
import warnings
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from ensemble_kd.metrics import SpanF1
from ensemble_kd.types import UNLABELLED

NAMES = ("O", "B-a", "I-a", "B-b", "I-b")
WORDS = {name: number for number, name in enumerate(NAMES)}


def reference_entities(tags: Sequence[str]) -> set[tuple[int, int, str]]:
    """Beginning, end and type of each entity, as conlleval reads tags from the left."""
    found: set[tuple[int, int, str]] = set()
    open_since, open_type = -1, ""
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, kind = tag.partition("-")
        goes_on = prefix == "I" and kind == open_type and open_since >= 0
        if open_since >= 0 and not goes_on:
            found.add((open_since, place - 1, open_type))
            open_since = -1
        if prefix != "O" and not goes_on:
            open_since, open_type = place, kind
    return found


def reference(preds: Tensor, target: Tensor) -> dict[str, float]:
    correct = found = present = 0
    for row in range(len(target)):
        words = [place for place, tag in enumerate(target[row].tolist()) if tag != UNLABELLED]
        guessed = reference_entities([NAMES[int(preds[row, place])] for place in words])
        true = reference_entities([NAMES[int(target[row, place])] for place in words])
        correct += len(guessed & true)
        found += len(guessed)
        present += len(true)
    precision, recall = correct / max(found, 1), correct / max(present, 1)
    both = precision + recall
    f1 = 2 * precision * recall / both if both else 0.0
    return {"precision": precision, "recall": recall, "f1": f1}


def sample(texts: int, tokens: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Tags that are often entities, guesses that are often right, words at most places."""
    generator = torch.Generator().manual_seed(seed)
    shape = (texts, tokens)
    target = torch.randint(len(NAMES), shape, generator=generator)
    guess = torch.randint(len(NAMES), shape, generator=generator)
    right = torch.rand(shape, generator=generator) < 0.8
    places = torch.rand(shape, generator=generator) < 0.7
    return torch.where(right, target, guess), target.masked_fill(~places, UNLABELLED)


def measured(metric: SpanF1) -> dict[str, float]:
    return {name: float(value) for name, value in metric.compute().items()}


def of(preds: Tensor, target: Tensor) -> dict[str, float]:
    metric = SpanF1(NAMES)
    metric.update(preds, target)
    return measured(metric)


@pytest.mark.parametrize("shape", [(6, 1), (1, 40), (7, 12), (40, 3), (9, 33)], ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_reference(shape: tuple[int, int], seed: int) -> None:
    preds, target = sample(*shape, seed)
    assert of(preds, target) == pytest.approx(reference(preds, target))


def test_the_reference_tells_these_samples_apart() -> None:
    found = [reference(*sample(7, 12, seed))["f1"] for seed in range(4)]
    assert all(0.2 < f1 < 0.9 for f1 in found)
    assert len(set(found)) == 4


@pytest.mark.parametrize("sizes", [(1, 11), (4, 4, 4), (11, 1)], ids=str)
def test_is_the_same_however_the_texts_are_cut(sizes: Sequence[int]) -> None:
    preds, target = sample(12, 9)
    metric = SpanF1(NAMES)
    for parts in zip(*(each.split(list(sizes)) for each in (preds, target)), strict=True):
        metric.update(*parts)
    assert measured(metric) == pytest.approx(reference(preds, target))


@pytest.mark.parametrize("first", [1, 6, 11])
def test_merges_states_as_if_one_metric_had_seen_everything(first: int) -> None:
    preds, target = sample(12, 9)
    one, other = SpanF1(NAMES), SpanF1(NAMES)
    one.update(preds[:first], target[:first])
    other.update(preds[first:], target[first:])
    one.merge_state(other)
    assert measured(one) == pytest.approx(reference(preds, target))


def test_sums_what_two_processes_counted() -> None:
    preds, target = sample(12, 9)
    one, other = SpanF1(NAMES), SpanF1(NAMES)
    one.update(preds[:5], target[:5])
    other.update(preds[5:], target[5:])
    # In the order in which the states are gathered.
    others = iter([getattr(other, name) for name in one._defaults])
    one.sync(
        dist_sync_fn=lambda own, group: [own, next(others)], distributed_available=lambda: True
    )
    values = {name: float(getattr(one, name)) for name in one._defaults}
    together = SpanF1(NAMES)
    together.update(preds, target)
    assert values == {name: float(getattr(together, name)) for name in together._defaults}


def test_survives_pickling_in_the_middle() -> None:
    preds, target = sample(12, 9)
    metric = SpanF1(NAMES)
    metric.update(preds[:5], target[:5])
    revived: SpanF1 = pickle.loads(pickle.dumps(metric))
    revived.update(preds[5:], target[5:])
    assert measured(revived) == pytest.approx(reference(preds, target))


def test_reset_forgets() -> None:
    preds, target = sample(12, 9)
    metric = SpanF1(NAMES)
    metric.update(*sample(30, 9, seed=7))
    metric.reset()
    metric.update(preds, target)
    assert measured(metric) == pytest.approx(reference(preds, target))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_takes_logits_of_any_floating_type(dtype: torch.dtype) -> None:
    preds, target = sample(12, 9)
    noise = torch.randn(12, 9, len(NAMES), generator=torch.Generator().manual_seed(3))
    logits = (torch.nn.functional.one_hot(preds, len(NAMES)) * 20 + noise).to(dtype)
    assert of(logits, target) == pytest.approx(reference(preds, target))


def test_words_without_a_label_do_not_count() -> None:
    preds, target = sample(12, 9)
    target[3:6] = UNLABELLED
    target[7, 4:] = UNLABELLED
    assert of(preds, target) == pytest.approx(reference(preds, target))


def tags(*texts: str) -> Tensor:
    return torch.tensor([[WORDS[name] for name in text.split()] for text in texts])


@pytest.mark.parametrize(
    ("guess", "truth", "counts"),
    [
        ("B-a I-a O O", "B-a I-a O O", (1, 1, 1)),
        ("B-a I-a I-a O", "B-a I-a O O", (0, 1, 1)),  # too long
        ("O B-a O O", "B-a I-a O O", (0, 1, 1)),  # begins too late
        ("B-b I-b O O", "B-a I-a O O", (0, 1, 1)),  # another type
        ("I-a I-a O O", "B-a I-a O O", (1, 1, 1)),  # nothing to go on with: begins an entity
        ("B-a I-b O O", "B-a B-b O O", (2, 2, 2)),  # likewise behind another type
        ("B-a B-a O O", "B-a I-a O O", (0, 2, 1)),  # two of them side by side
        ("O O O B-a", "O O O B-a", (1, 1, 1)),  # at the very end
    ],
)
def test_what_counts_as_found(guess: str, truth: str, counts: tuple[int, int, int]) -> None:
    metric = SpanF1(NAMES)
    metric.update(tags(guess), tags(truth))
    assert (int(metric.correct), int(metric.found), int(metric.present)) == counts


def test_entities_end_with_their_text() -> None:
    metric = SpanF1(NAMES)
    metric.update(tags("O B-a", "I-a O"), tags("O B-a", "I-a O"))
    assert (int(metric.correct), int(metric.found)) == (2, 2)


def test_what_stands_between_words_does_not_interrupt() -> None:
    guess, truth = tags("B-a O I-a"), tags("B-a B-b I-a")
    truth[0, 1] = UNLABELLED
    metric = SpanF1(NAMES)
    metric.update(guess, truth)
    assert (int(metric.correct), int(metric.found), int(metric.present)) == (1, 1, 1)


def test_of_nothing_is_nan_and_of_no_entity_zero() -> None:
    metric = SpanF1(NAMES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torchmetrics warns of compute before update
        assert all(math.isnan(value) for value in measured(metric).values())
    metric.update(tags("O O"), tags("O O"))
    assert measured(metric) == {"precision": 0.0, "recall": 0.0, "f1": 0.0}


@pytest.mark.parametrize("names", [("O", "person"), ("O", "B-"), ("O", "S-a"), ("O",), ()], ids=str)
def test_names_that_are_no_tags_are_refused(names: Sequence[str]) -> None:
    with pytest.raises(ValueError, match="names must"):
        SpanF1(names)


def test_a_class_without_a_name_is_refused() -> None:
    metric = SpanF1(NAMES)
    with pytest.raises(ValueError, match=r"classes must be in 0\.\.4, .* got 0\.\.5"):
        metric.update(torch.tensor([[0, 5]]), torch.tensor([[0, 0]]))


def test_shapes_that_do_not_fit_are_refused() -> None:
    metric = SpanF1(NAMES)
    with pytest.raises(ValueError, match=r"must be \(texts, tokens\)"):
        metric.update(torch.zeros(2, 3, 5, dtype=torch.long), torch.zeros(2, 3, dtype=torch.long))
