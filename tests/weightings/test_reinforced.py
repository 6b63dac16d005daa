from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ensemble_kd.objectives import Soft
from ensemble_kd.types import Batch, Output, Progress
from ensemble_kd.weightings import Reinforced
from ensemble_kd.weightings.draws import draws


@pytest.fixture
def policy() -> Reinforced:
    torch.manual_seed(0)
    weighting = Reinforced(5, seed=3).double()
    torch.nn.init.normal_(weighting.policy.weight)
    torch.nn.init.normal_(weighting.policy.bias)
    return weighting


def reference_probabilities(logits: Tensor) -> list[float]:
    powers = [math.exp(z) for z in logits.tolist()]
    return [power / math.fsum(powers) for power in powers]


def reference_pi(weighting: Reinforced, said: list[Tensor], label: int) -> list[float]:
    """One sample: sigmoid(A . F_k + b) for each teacher."""
    p = [reference_probabilities(logits) for logits in said]
    mean = [math.fsum(q[c] for q in p) / len(p) for c in range(5)]
    result = []
    for own in p:
        state = [*mean, *own, -math.log(own[label])]
        row = weighting.policy.weight[0].tolist()
        score = weighting.policy.bias.item() + math.fsum(
            a * f for a, f in zip(row, state, strict=True)
        )
        result.append(1 / (1 + math.exp(-score)))
    return result


def reference_reward(
    student: Tensor, said: list[Tensor], weights: list[float], label: int, temperature: float | None
) -> float:
    """One sample: -CE, and with a temperature also -T^2 sum_k w_k KL_k."""
    reward = math.log(reference_probabilities(student)[label])
    if temperature is not None:
        q = reference_probabilities(student / temperature)
        for weight, logits in zip(weights, said, strict=True):
            p = reference_probabilities(logits / temperature)
            kl = math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
            reward -= weight * temperature**2 * kl
    return reward


def test_teachers_are_selected_with_the_policys_probability(
    situation: Callable[..., Any], policy: Reinforced
) -> None:
    given = situation(shape=(30,), step=4)
    weights, chance = policy(*given), draws(3, 4, (3, 30))
    for i, label in enumerate(given[2].target.tolist()):
        pi = reference_pi(policy, [t.logits[i] for t in given[0]], label)
        selected = [u < p for u, p in zip(chance[:, i].tolist(), pi, strict=True)]
        want = [s / max(sum(selected), 1) for s in selected]
        assert weights[:, i].tolist() == pytest.approx(want)
    assert policy.measurements(weights)["selected"].item() == (weights > 0).double().mean()


@pytest.mark.parametrize("reward", ["label", "label_and_soft"])
@pytest.mark.parametrize("baseline", [True, False])
def test_the_policys_loss_is_reinforce(
    situation: Callable[..., Any], policy: Reinforced, reward: Any, baseline: bool
) -> None:
    temperature = 2.0
    weighting = Reinforced(5, reward, temperature, baseline, seed=3).double()
    weighting.load_state_dict(policy.state_dict())
    teachers, before, batch, progress = situation(shape=(8,))
    after = Output(before.logits + situation(seed=1, shape=(8,))[1].logits / 4)
    weights = weighting(teachers, before, batch, progress)
    terms = weighting.afterwards(weights, teachers, before, after, batch, progress)
    total = 0.0
    used = temperature if reward == "label_and_soft" else None
    for i, label in enumerate(batch.target.tolist()):
        said, w = [t.logits[i] for t in teachers], weights[:, i].tolist()
        gain = reference_reward(after.logits[i], said, w, label, used)
        if baseline:
            gain -= reference_reward(before.logits[i], said, [1 / 3] * 3, label, used)
        for pi, selected in zip(reference_pi(weighting, said, label), w, strict=True):
            total += gain * math.log(pi if selected else 1 - pi)
    assert list(terms) == ["policy"]
    assert terms["policy"].item() == pytest.approx(-total / 8, rel=1e-9)


def test_its_gradient_is_for_the_policy_only(
    situation: Callable[..., Any], policy: Reinforced
) -> None:
    """With respect to the bias: the gain times the decision less its probability."""
    teachers, before, batch, progress = situation()
    teachers = tuple(Output(t.logits.requires_grad_()) for t in teachers)
    after = Output((before.logits * 1.1).requires_grad_())
    weights = policy(teachers, before, batch, progress)
    torch.autograd.backward(
        policy.afterwards(weights, teachers, before, after, batch, progress)["policy"]
    )
    assert after.logits.grad is None
    assert all(teacher.logits.grad is None for teacher in teachers)
    want = 0.0
    for i, label in enumerate(batch.target.tolist()):
        said = [t.logits[i].detach() for t in teachers]
        gain = reference_reward(after.logits[i].detach(), said, [], label, None)
        gain -= reference_reward(before.logits[i], said, [], label, None)
        for pi, weight in zip(
            reference_pi(policy, said, label), weights[:, i].tolist(), strict=True
        ):
            want -= gain * ((weight > 0) - pi) / 4
    assert policy.policy.bias.grad is not None
    assert policy.policy.bias.grad.item() == pytest.approx(want, rel=1e-6)


def test_a_baseline_does_not_move_the_expected_gradient(policy: Reinforced) -> None:
    """What does not depend on the decisions times the gradient of log pi is zero on average."""
    teachers = tuple(Output(torch.randn(1, 5, dtype=torch.float64)) for _ in range(3))
    before, batch = (
        Output(torch.randn(1, 5).double()),
        Batch(None, torch.tensor([1]), torch.tensor([0])),
    )
    plain = Reinforced(5, baseline=False).double()
    plain.load_state_dict(policy.state_dict())
    pi = reference_pi(policy, [t.logits[0] for t in teachers], 1)
    expected = []
    for weighting in (policy, plain):
        total = 0.0
        for decision in itertools.product((0.0, 1.0), repeat=3):
            weights = torch.tensor(decision).double().unsqueeze(1)
            # Each decision leads to another student.
            after = Output(before.logits + (weights * torch.tensor([[1.0], [2], [-1]])).sum())
            after.logits[0, 1] += sum(decision)
            chance = math.prod(p if a else 1 - p for p, a in zip(pi, decision, strict=True))
            terms = weighting.afterwards(
                weights / weights.sum().clamp(min=1),
                teachers,
                before,
                after,
                batch,
                Progress(0, 0, 0),
            )
            (gradient,) = torch.autograd.grad(terms["policy"], weighting.policy.bias)
            total += chance * gradient.item()
        expected.append(total)
    assert expected[0] == pytest.approx(expected[1], rel=1e-9)
    assert abs(expected[0]) > 1e-3


def test_it_learns_whom_to_select() -> None:
    """One teacher is right and one wrong; the student takes a step towards those selected."""
    torch.manual_seed(0)
    target = torch.randint(3, (64,))
    right = Output(4.0 * torch.nn.functional.one_hot(target, 3))
    wrong = Output(4.0 * torch.nn.functional.one_hot((target + 1) % 3, 3))
    batch, teachers = Batch(None, target, torch.arange(64)), (right, wrong)
    weighting = Reinforced(3)
    optimizer = torch.optim.Adam(weighting.parameters(), 0.05)
    share = []
    for step in range(60):
        progress = Progress(step, 0, 0.0)
        before = Output(torch.zeros(64, 3, requires_grad=True))
        weights = weighting(teachers, before, batch, progress)
        share.append((weights > 0).float().mean(1))
        loss = Soft(1.0)(before, teachers, weights, batch, progress).sum()
        (gradient,) = torch.autograd.grad(loss, before.logits)
        after = Output((before.logits - gradient).detach())
        terms = weighting.afterwards(weights, teachers, before, after, batch, progress)
        optimizer.zero_grad()
        torch.autograd.backward(terms["policy"])
        optimizer.step()
    first, last = torch.stack(share[:5]).mean(0), torch.stack(share[-5:]).mean(0)
    assert (first - 0.5).abs().max() < 0.15
    assert last[0] > 0.85
    assert last[1] < 0.15


def test_it_starts_undecided(situation: Callable[..., Any]) -> None:
    weights = Reinforced(5)(*situation(shape=(2000,)))
    assert (weights > 0).double().mean().item() == pytest.approx(0.5, abs=0.03)


def test_saturated_logits_are_finite(situation: Callable[..., Any], policy: Reinforced) -> None:
    teachers, before, batch, progress = situation(scale=1e4, shape=(20,))
    weights = policy(teachers, before, batch, progress)
    loss = policy.afterwards(weights, teachers, before, before, batch, progress)["policy"]
    assert loss.isfinite()
    gradients = torch.autograd.grad(loss, list(policy.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="classes must be a positive number, got 0"):
        Reinforced(0)
    with pytest.raises(ValueError, match="temperature must be a positive finite number, got -1"):
        Reinforced(5, temperature=-1)
    with pytest.raises(ValueError, match="reward must be one of label, label_and_soft, got 'dev'"):
        Reinforced(5, "dev")  # type: ignore[arg-type]
