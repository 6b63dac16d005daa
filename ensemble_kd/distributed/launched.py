"""What torchrun and srun say to each of the processes that they start together."""

from __future__ import annotations

import os
from typing import NamedTuple

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""In the environment, by torchrun and by whatever takes its place."""

SRUN = ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
"""By srun. A script of sbatch knows how many tasks there will be too, but it is none of them: it is
part of no step of which the first is the number."""

SUBMITIT = "SUBMITIT_EXECUTOR"
"""In a job of a sweep, which is a run by itself."""


class Place(NamedTuple):
    """Which of how many processes this is."""

    rank: int
    size: int


def by_torchrun() -> Place | None:
    """The place that torchrun gave this process among several."""
    if any(name not in os.environ for name in TORCHRUN):
        return None
    found = Place(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    return found if found.size > 1 else None


def by_srun() -> Place | None:
    """The place that srun gave this process among several."""
    if SUBMITIT in os.environ or any(name not in os.environ for name in SRUN):
        return None
    found = Place(int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"]))
    return found if found.size > 1 else None
