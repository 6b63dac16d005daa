"""What an epoch over in-memory data costs: whole batches by index against one sample at a time.

    python -m benchmarks.data

Each line compares, within one process and in turns, ``ensemble_kd.data.Batches`` with PyTorch's
``DataLoader`` over a ``TensorDataset`` (default collate, no workers): both deliver shuffled,
standardised float32 batches with targets and indices. Further lines compare batches without and
with augmentation. The median of the ratios is what to read: times depend on the machine and on what
else it does.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from ensemble_kd.data import Augmentation, Batches, Flip, Noise, Shift, Table
from ensemble_kd.data.orders import Place, Shuffled

ROUNDS = 15


def seconds(loader: Iterable[object]) -> float:
    """Time of one pass."""
    start = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - start


def batches(
    inputs: Tensor, target: Tensor, size: int, augment: Augmentation | None = None
) -> Batches:
    """This project's loader."""
    order = Shuffled(torch.arange(len(target)), size, seed=1, drop_last=False)
    return Batches(Table(inputs, target, 0.3, 0.4), order, Place, augment)


def collated(inputs: Tensor, target: Tensor, size: int) -> Iterable[object]:
    """The loader of the tutorials, over samples that were standardised beforehand."""
    values = inputs.float() / 255 if inputs.dtype == torch.uint8 else inputs
    data = TensorDataset((values - 0.3) / 0.4, target, torch.arange(len(target)))
    return DataLoader(data, batch_size=size, shuffle=True)


def compare(name: str, first: Iterable[object], second: Iterable[object]) -> None:
    """Print the medians of both and of how many times longer the second one takes."""
    times = [(seconds(first), seconds(second)) for _ in range(ROUNDS + 1)][1:]
    ours, theirs = (statistics.median(column) * 1e3 for column in zip(*times, strict=True))
    ratio = statistics.median(b / a for a, b in times)
    print(f"{name:42s} {ours:9.2f} ms {theirs:9.2f} ms {ratio:7.2f} x")


def main() -> None:
    """Run all comparisons."""
    torch.manual_seed(0)
    print(f"{'an epoch':42s} {'by index':>12s} {'other':>12s}   ratio")
    for name, count, shape, size, dtype in (
        ("digits, batch 64", 1257, (1, 8, 8), 64, torch.float32),
        ("Fashion-MNIST 10,000, batch 128", 10_000, (1, 28, 28), 128, torch.uint8),
        ("CIFAR 10,000, batch 128", 10_000, (3, 32, 32), 128, torch.uint8),
    ):
        inputs = torch.randint(0, 256, (count, *shape)).to(dtype)
        if dtype == torch.float32:
            inputs /= 255
        target = torch.randint(0, 10, (count,))
        plain = batches(inputs, target, size)
        compare(f"{name}: default collate", plain, collated(inputs, target, size))
        for augment in (Noise(0.1), Shift(2), Flip()):
            varied = batches(inputs, target, size, augment)
            compare(f"{name}: {augment!r}", plain, varied)


if __name__ == "__main__":
    main()
