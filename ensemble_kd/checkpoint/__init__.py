"""Checkpoints: a stage that was cut off goes on as if it had not been."""

from ensemble_kd.checkpoint.checkpointing import Checkpointing
from ensemble_kd.checkpoint.files import FOLDER, Checkpoints
from ensemble_kd.checkpoint.unfinished import finished, taken_up

__all__ = ["FOLDER", "Checkpointing", "Checkpoints", "finished", "taken_up"]
