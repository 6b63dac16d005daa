from __future__ import annotations

import torch

from ensemble_kd.weightings.draws import draws


def test_the_same_question_has_the_same_answer() -> None:
    first = draws(3, 5, (2, 4))
    torch.rand(7)
    assert torch.equal(draws(3, 5, (2, 4)), first)


def test_asking_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    want = torch.rand(3)
    torch.manual_seed(0)
    draws(3, 5, (2,))
    assert torch.equal(torch.rand(3), want)


def test_seeds_and_steps_are_different_questions() -> None:
    answers = {draws(seed, step, ()).item() for seed in range(-3, 20) for step in range(50)}
    assert len(answers) == 23 * 50


def test_they_are_uniform() -> None:
    values = torch.stack([draws(1, step, ()) for step in range(4000)])
    assert (values >= 0).all()
    assert (values < 1).all()
    counts = values.histc(10, 0, 1)
    # Ten standard deviations would be 190; this is a fixed sequence.
    assert (counts - 400).abs().max() < 80
