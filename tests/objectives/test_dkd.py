from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from ensemble_kd.functional import Merge
from ensemble_kd.objectives import Dkd, Soft
from ensemble_kd.types import UNLABELLED, Batch, Output, Progress

Said = Callable[..., tuple[Output, tuple[Output, ...], Tensor, Batch]]
Case = tuple[tuple[Output, tuple[Output, ...], Tensor, Batch], float, Merge]
Compared = Callable[..., list[list[tuple[float, list[float], list[float]]]]]
PROGRESS = Progress(0, 0, 0.0)


def reference_kl(p: list[float], q: list[float]) -> float:
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def reference_parts(p: list[float], q: list[float], label: int) -> tuple[float, float]:
    """KL of (label, not label), and of the other classes renormalised among themselves."""
    tckd = reference_kl([p[label], 1 - p[label]], [q[label], 1 - q[label]])
    others = [c for c in range(len(p)) if c != label]
    p_rest, q_rest = (math.fsum(x[c] for c in others) for x in (p, q))
    nckd = reference_kl([p[c] / p_rest for c in others], [q[c] / q_rest for c in others])
    return tckd, nckd


def reference_dkd(p: list[float], q: list[float], label: int, alpha: float, beta: float) -> float:
    tckd, nckd = reference_parts(p, q, label)
    return alpha * tckd + beta * nckd


def test_it_is_the_definition(case: Case, reference_compared: Compared) -> None:
    (student, teachers, weights, batch), temperature, merge = case
    got = Dkd(0.7, 3.0, temperature, merge)(student, teachers, weights, batch, PROGRESS)
    logits = [teacher.logits for teacher in teachers]
    samples = reference_compared(student.logits, logits, weights, temperature, merge)
    labels = batch.target.flatten().tolist()
    want = [
        temperature**2 * math.fsum(w * reference_dkd(p, q, label, 0.7, 3.0) for w, p, q in sample)
        for sample, label in zip(samples, labels, strict=True)
    ]
    assert got.shape == batch.target.shape
    assert got.flatten().tolist() == pytest.approx(want, rel=1e-9, abs=1e-12)


def test_kd_is_the_target_part_and_the_rest_of_the_others_part(said: Said) -> None:
    """KD = TCKD + (1 - p_label) NCKD, so that alpha = beta = 1 is KD + p_label NCKD."""
    student, teachers, _, batch = said(1, 1, labelled=True)
    voices = (student, teachers, torch.ones(1, 4, dtype=torch.float64), batch, PROGRESS)
    tckd, nckd = Dkd(1.0, 0.0, 3.0)(*voices), Dkd(0.0, 1.0, 3.0)(*voices)
    p = (teachers[0].logits / 3).softmax(-1).gather(-1, batch.target.unsqueeze(-1)).squeeze(-1)
    kd = Soft(3.0)(*voices)
    torch.testing.assert_close(tckd + (1 - p) * nckd, kd)
    torch.testing.assert_close(Dkd(1.0, 1.0, 3.0)(*voices), kd + p * nckd)


def test_its_gradient_is_that_of_the_published_formula(said: Said) -> None:
    """With 1000 taken off the label's logit and a binary cross-entropy, in float64."""
    student, teachers, _, batch = said(2, 1, labelled=True)
    z, t = student.logits, teachers[0].logits
    hot = torch.nn.functional.one_hot(batch.target, 5)
    q, p = (z / 4).softmax(-1), (t / 4).softmax(-1)
    pair_q, pair_p = (torch.stack([(x * hot).sum(-1), (x * (1 - hot)).sum(-1)], -1) for x in (q, p))
    tckd = (pair_p * (pair_p / pair_q).log()).sum(-1)
    log_q, log_p = ((x / 4 - 1000 * hot).log_softmax(-1) for x in (z, t))
    nckd = (log_p.exp() * (log_p - log_q)).sum(-1)
    want = 16 * (tckd + 8 * nckd)
    one = torch.ones(1, 4, dtype=torch.float64)
    got = Dkd()(student, teachers, one, batch, PROGRESS)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(
        torch.autograd.grad(got.sum(), z), torch.autograd.grad(want.sum(), z)
    )


def test_a_sure_teacher_still_teaches_the_others() -> None:
    """What DKD is for: KD hardly hears the others of a teacher who is sure."""
    own = torch.tensor([[15.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    taught = torch.tensor([[15.0, 2.0, 0.0, -2.0]], dtype=torch.float64)
    batch = Batch(None, torch.tensor([0]), torch.tensor([0]))
    voices = (Output(own), (Output(taught),), torch.ones(1, 1), batch, PROGRESS)
    assert Soft(1.0)(*voices) < 1e-4
    assert Dkd(1.0, 1.0, 1.0)(*voices) > 0.1


def test_an_unlabelled_sample_is_zero(said: Said) -> None:
    student, teachers, weights, batch = said(4, 2, labelled=True)
    hidden = batch._replace(target=batch.target.index_fill(0, torch.tensor([1]), UNLABELLED))
    values = Dkd()(student, teachers, weights, hidden, PROGRESS)
    known = Dkd()(student, teachers, weights, batch, PROGRESS)
    assert values[1] == 0
    assert torch.equal(values[[0, 2, 3]], known[[0, 2, 3]])
    (gradient,) = torch.autograd.grad(values.sum(), student.logits)
    assert (gradient[1] == 0).all()
    assert (gradient[[0, 2, 3]].abs().sum(-1) > 0).all()


WARM_UP = Path(__file__).parents[2] / "conf" / "objective" / "dkd.yaml"


@pytest.mark.parametrize("epoch", [0, 1, 9, 18, 19, 100, 239])
def test_the_warm_up_is_that_of_the_paper(epoch: int) -> None:
    """min(e / 20, 1) for the e-th of 240 epochs, counted from one, at the start of each."""
    root = OmegaConf.create({"objective": OmegaConf.load(WARM_UP)})
    schedule = instantiate(root.objective.terms)["dkd"].schedule
    assert schedule(epoch / 240) == pytest.approx(min((epoch + 1) / 20, 1), rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": -1.0}, "alpha must be a finite number >= 0, got -1.0"),
        ({"beta": math.inf}, "beta must be a finite number >= 0, got inf"),
        ({"beta": math.nan}, "beta must be a finite number >= 0, got nan"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Dkd(**arguments)
