from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from ensemble_kd.types import Batch, Output, Progress

Situation = tuple[tuple[Output, ...], Output, Batch, Progress]


@pytest.fixture(scope="session")
def situation() -> Callable[..., Situation]:
    """A maker of what a weighting is given: teachers, student, batch and progress."""

    def make(
        seed: int = 0,
        members: int = 3,
        shape: tuple[int, ...] = (4,),
        classes: int = 5,
        scale: float = 2.0,
        dtype: torch.dtype = torch.float64,
        step: int = 0,
    ) -> Situation:
        generator = torch.Generator().manual_seed(seed)
        size = (members + 1, *shape, classes)
        logits = scale * torch.randn(size, generator=generator, dtype=torch.float64)
        logits = logits.clamp(-1e4, 1e4).to(dtype)
        target = torch.randint(classes, shape, generator=generator)
        batch = Batch(None, target, torch.arange(shape[0]))
        teachers = tuple(Output(z.clone()) for z in logits[1:])
        return teachers, Output(logits[0].clone()), batch, Progress(step, 0, 0.0)

    return make
