"""What an epoch costs: whole batches by index against one sample at a time.

    python benchmarks/data.py

Each line compares, within one process and in turns, ``ensemble_kd.data.Batches`` with PyTorch's
``DataLoader`` over a ``TensorDataset`` (default collate, no workers): both deliver shuffled,
standardised float32 batches with targets and indices. Further lines compare batches without and
with augmentation. The last lines are of JPEG files, decoded whenever they are read by this process
or by workers, against a ``DataLoader`` without workers over single images. The median of the ratios
is what to read: times depend on the machine and on what else it does.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from timing import publish, table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from ensemble_kd.data import Augmentation, Batches, Flip, ImageFolder, Noise, Shift, Table
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


class Files(Dataset[tuple[Tensor, int, int]]):
    """Single images as tutorials read them: decoded, scaled, cropped, standardised, one by one."""

    def __init__(self, paths: list[Path], size: int) -> None:
        self.paths = paths
        self.size = size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[Tensor, int, int]:
        with Image.open(self.paths[number]) as image:
            scaled = ImageOps.fit(
                image.convert("RGB"), (self.size, self.size), Image.Resampling.BILINEAR
            )
        values = torch.from_numpy(np.array(scaled)).permute(2, 0, 1).float() / 255
        return (values - 0.3) / 0.4, number % 10, number


def write(root: Path, count: int, height: int, width: int) -> None:
    """JPEG files of smooth noise, in ten classes."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = root / "train" / str(number % 10) / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8))
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(path, quality=90)


def compare_files(
    name: str, root: Path, count: int, shape: tuple[int, int], size: int
) -> list[list[str]]:
    """What an epoch over files costs, with and without workers, as rows of a table."""
    write(root, count, *shape)
    rows = []
    for workers in (0, 2):
        data = ImageFolder(
            root,
            [size, size],
            mean=0.3,
            std=0.4,
            val_share=0.1,
            test_share=0.1,
            workers=workers,
            keep="off",
            drop_last=False,
        )
        ours = data.train_dataloader()
        taught = [root / "train" / name for name in data.source.load().train.inputs.names]
        shown = [taught[row] for batch in ours for row in batch.index.tolist()]
        theirs = DataLoader(Files(shown, size), batch_size=64, shuffle=True)
        rows.append(compare(f"{name}: {workers} workers", ours, theirs))
    return rows


def compare(name: str, first: Iterable[object], second: Iterable[object]) -> list[str]:
    """The medians of both and of how many times longer the second one takes: a row of a table."""
    times = [(seconds(first), seconds(second)) for _ in range(ROUNDS + 1)][1:]
    ours, theirs = (statistics.median(column) * 1e3 for column in zip(*times, strict=True))
    ratio = statistics.median(b / a for a, b in times)
    return [name, f"{ours:.2f} ms", f"{theirs:.2f} ms", f"{ratio:.2f}"]


def main() -> None:
    """Run all comparisons."""
    torch.manual_seed(0)
    rows = []
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
        rows.append(compare(f"{name}: default collate", plain, collated(inputs, target, size)))
        for augment in (Noise(0.1), Shift(2), Flip()):
            varied = batches(inputs, target, size, augment)
            rows.append(compare(f"{name}: {augment!r}", plain, varied))
    with tempfile.TemporaryDirectory() as folder:
        rows += compare_files("500 JPEG 64x64", Path(folder, "small"), 500, (64, 64), 64)
        large = Path(folder, "large")
        rows += compare_files("200 JPEG 800x600 to 96x96", large, 200, (600, 800), 96)
    publish("data", table(("an epoch", "whole batches by index", "the other", "wall"), rows))


if __name__ == "__main__":
    main()
