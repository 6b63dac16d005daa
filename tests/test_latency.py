"""What a prediction costs in time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.latency import latency


@pytest.mark.parametrize("wrap", ["tensor", "mapping", "tuple"])
def test_latency_is_the_time_of_a_pass(wrap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    spent = iter([9.0, 9.0, 0.01, 0.05, 0.02, 0.02, 0.02])  # two warm-ups, then what counts

    class Slow(nn.Module):
        def forward(self, inputs: Any) -> Tensor:
            now[0] += next(spent)
            return torch.zeros(8, 3)

    tensor = torch.zeros(8, 5)
    inputs: Any = {"tensor": tensor, "mapping": {"x": tensor}, "tuple": (tensor, 3)}[wrap]
    found = latency(Slow(), inputs, repeats=5, seconds=100.0)
    assert found.p50 == pytest.approx(20)
    # Between the two slowest of five: at the place 0.95 * 4, of 20 and 50 the 80 %.
    assert found.p95 == pytest.approx(20 + 0.8 * 30)


def test_latency_stops_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    network = nn.Linear(5, 3).train()
    runs = []

    def hook(*_: Any) -> None:
        now[0] += 1.0
        runs.append(network.training)

    network.register_forward_hook(hook)
    assert latency(network, torch.zeros(4, 5), seconds=0.5) == pytest.approx((1000, 1000))
    assert runs == [False] * 5  # two warm-ups and the three that are the least
    assert network.training
