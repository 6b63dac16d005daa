"""What teachers are asked, and all that decides about their answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor

from ensemble_kd.cache import Float32, Format
from ensemble_kd.data import Recurring
from ensemble_kd.fingerprint import foreign_code
from ensemble_kd.precision import autocast
from ensemble_kd.report.results import versions
from ensemble_kd.stage import training_code_digest
from ensemble_kd.teachers import Frozen
from ensemble_kd.teachers.filling import LOGITS, parts


@dataclass(frozen=True)
class Inquiry:
    """What teachers are asked, and how.

    Attributes:
        split: of the data.
        data: digest of the data.
        recurring: the inputs.
        batch_size: of the training.
        precision: of the trainer.
        device: where to compute, such as cpu or cuda:1.
        threads: with how many, on a processor; sums over several of them round in another order.
        fast: whether the teachers' runtime may round in another way.
        format: how logits are kept on disk; features are kept as they are.
    """

    split: Literal["train", "val", "test"]
    data: str
    recurring: Recurring
    batch_size: int
    precision: str
    device: str
    threads: int
    fast: bool
    format: Format

    def described(self, teacher: Frozen, digest: str, part: str) -> dict[str, Any]:
        """All that decides about one part of the answers of one teacher, as plain values."""
        involved = [*teacher.network.modules(), self.recurring.augment]
        return {
            "teacher": digest,
            "answers": part,
            "data": self.data,
            "split": self.split,
            "samples": len(self.recurring.index),
            "views": self.recurring.views,
            "batch_size": self.batch_size,
            "device": _device_in_words(self.device),
            "precision": self.precision,
            "matmul_precision": torch.get_float32_matmul_precision(),
            "threads": self.threads,
            "runtime": "fast" if self.fast else "exact",
            "format": self.format_of(part).name,
            "code": training_code_digest(),
            "foreign_code": foreign_code(involved),
            "versions": versions(),
        }

    def format_of(self, part: str) -> Format:
        """How a part of the answers is kept on disk."""
        return self.format if part == LOGITS else Float32()

    def example(self, teacher: Frozen) -> dict[str, Tensor]:
        """What a teacher says of one sample, by part."""
        inputs = self.recurring.inputs(self.recurring.index[:1], 0)
        teacher.to(self.device)
        with autocast(self.precision, torch.device(self.device).type):
            said = teacher.own(move_data_to_device(inputs, torch.device(self.device)))
        return {part: values[0] for part, values in parts(said).items()}

    def size(self, teacher: Frozen) -> int:
        """Bytes that all answers of a teacher take in memory."""
        one = sum(values.nbytes for values in self.example(teacher).values())
        return self.recurring.views * len(self.recurring.index) * one


def _device_in_words(device: str) -> str:
    """What computes, as far as it decides how numbers are rounded."""
    if device == "cpu":
        return f"cpu, {torch.backends.cpu.get_cpu_capability()}"
    libraries = f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    return f"{torch.cuda.get_device_name(device)}, {libraries}"
