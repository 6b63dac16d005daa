from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def test_a_run_exchanges_copies_and_brings_the_replicas_nearer(
    trained: Callable[..., Any],
) -> None:
    """Against the same replicas on the same batches, whose burn-in never ends."""
    run = [
        *("strategy=codistillation", "teacher=none", "controls=[]", "epochs=6", "seed=1"),
        *("strategy.partition=same", "strategy.exchange=10"),
    ]
    together = trained(*run, "strategy.burn_in=20")
    apart = trained(*run, "strategy.burn_in=1000000")
    assert ("student", "student/soft") in together.curves
    assert ("student", "student/soft") not in apart.curves
    assert distance(together) < 0.95 * distance(apart)
    # 6 epochs of 19 batches end 4 steps after the last exchange.
    learner = together.products["student"].learner
    fresh, stale = learner.student, learner.strategy.copies.networks[0]
    assert any(
        not torch.equal(p, q) for p, q in zip(fresh.parameters(), stale.parameters(), strict=True)
    )
    unused = apart.products["student"].learner.strategy.copies.networks[0]
    assert any(
        not torch.equal(p, q) for p, q in zip(unused.parameters(), stale.parameters(), strict=True)
    )


def distance(done: Any) -> float:
    """Mean distance between the replicas' probabilities on the validation split."""
    apart = []
    with torch.no_grad():
        for batch in done.plan.data.val_dataloader():
            one, other = (network(batch.inputs).softmax(-1) for network in done.networks.values())
            apart.append((one - other).abs().sum(-1))
    return float(torch.cat(apart).mean())
