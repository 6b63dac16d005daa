"""DistilBERT's three terms together, on masked sentences, against loops over tokens."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from ensemble_kd.objectives import Term
from ensemble_kd.types import UNLABELLED, Batch, Output, Progress, Tokens

FOLDER = Path(__file__).parents[2] / "conf" / "objective"
LENGTHS, LONGEST, TOKENS, WIDTH, T = (4, 6, 2), 6, 7, 5, 2.0
START = Progress(0, 0, 0.0)


@pytest.fixture
def terms() -> dict[str, Term]:
    merged = OmegaConf.merge(*(OmegaConf.load(FOLDER / f"{n}.yaml") for n in ("kd", "distilbert")))
    return dict(instantiate(OmegaConf.create({"objective": merged}).objective.terms))


@pytest.fixture
def batch() -> Batch:
    """Three texts; of the first two tokens are hidden, of the others one each."""
    mask = torch.arange(LONGEST) < torch.tensor(LENGTHS)[:, None]
    ids = torch.ones(3, LONGEST, dtype=torch.int64)
    target = torch.full((3, LONGEST), UNLABELLED)
    for (text, place), token in {(0, 1): 3, (0, 2): 0, (1, 5): 6, (2, 0): 2}.items():
        target[text, place] = token
    tokens = Tokens(ids, mask, ids, torch.zeros(3, 0, dtype=torch.uint8))
    return Batch(tokens, target, torch.arange(3), target != UNLABELLED, places=mask)


def said(seed: int) -> Output:
    """Logits and last states; what stands at padding is not finite."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, LONGEST, TOKENS, generator=generator, dtype=torch.float64)
    states = torch.randn(3, LONGEST, WIDTH, generator=generator, dtype=torch.float64)
    for text, length in enumerate(LENGTHS):
        states[text, length:] = torch.nan
    return Output(logits.requires_grad_(), {"body": states.requires_grad_()})


def softmax(scores: list[float], temperature: float) -> list[float]:
    powers = [math.exp(score / temperature) for score in scores]
    return [power / math.fsum(powers) for power in powers]


def cosine(one: list[float], other: list[float]) -> float:
    dot = math.fsum(a * b for a, b in zip(one, other, strict=True))
    return dot / math.sqrt(math.fsum(a * a for a in one) * math.fsum(b * b for b in other))


def reference(student: Output, teacher: Output, target: Tensor) -> dict[str, float]:
    labels, softs, angles = [], [], []
    for text, length in enumerate(LENGTHS):
        own, other = (each.logits[text].tolist() for each in (student, teacher))
        for place in range(length):
            if target[text, place] != UNLABELLED:
                labels.append(-math.log(softmax(own[place], 1.0)[int(target[text, place])]))
            pairs = zip(softmax(other[place], T), softmax(own[place], T), strict=True)
            softs.append(T**2 * math.fsum(t * math.log(t / p) for t, p in pairs))
        states = (each.features["body"][text, :length].tolist() for each in (student, teacher))
        apart = [1 - cosine(one, other) for one, other in zip(*states, strict=True)]
        angles.append(math.fsum(apart) / length)
    return {
        "label": 2.0 * math.fsum(labels) / len(labels),
        "soft": 5.0 * math.fsum(softs) / len(softs),
        "cosine": 1.0 * math.fsum(angles) / len(angles),
    }


def test_the_terms_have_the_weights_of_the_paper_and_leave_padding_out(
    terms: dict[str, Term], batch: Batch
) -> None:
    student, teacher = said(0), said(1)
    for term in terms.values():
        term.objective.meet(student, (teacher,))
    weights = torch.ones(1, 3, LONGEST, dtype=torch.float64)
    values = {
        name: term(student, (teacher,), weights, batch, START).item()
        for name, term in terms.items()
    }
    assert values == pytest.approx(reference(student, teacher, batch.target))


def test_labels_move_hidden_tokens_and_soft_targets_all_of_them(
    terms: dict[str, Term], batch: Batch
) -> None:
    assert batch.mask is not None
    assert batch.places is not None
    weights = torch.ones(1, 3, LONGEST, dtype=torch.float64)
    for name, expected in (("label", batch.mask), ("soft", batch.places)):
        student = said(0)
        terms[name](student, (said(1),), weights, batch, START).backward()
        assert student.logits.grad is not None
        assert torch.equal(student.logits.grad.abs().sum(dim=2) > 0, expected)


def test_the_cosine_moves_the_states_of_tokens_only(terms: dict[str, Term], batch: Batch) -> None:
    student, teacher = said(0), said(1)
    terms["cosine"].objective.meet(student, (teacher,))
    weights = torch.ones(1, 3, LONGEST, dtype=torch.float64)
    terms["cosine"](student, (teacher,), weights, batch, START).backward()
    moved = student.features["body"].grad
    assert moved is not None
    assert torch.equal(moved.abs().sum(dim=2) > 0, batch.inputs.mask)
    assert student.logits.grad is None
