"""python benchmarks/formats.py: what smaller formats of teachers' answers cost in bytes and lose.

``gradients`` measures, over real answers of trained teachers, how far the student's gradient of the
soft term is from that under exact answers; ``run`` trains the same student under each format, seed
by seed; ``report`` puts all of it on the page. ``run`` can be stopped and started again.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from paired import COMMON, DOCS, Study, by_setting, compare, explained, run
from scipy import stats
from timing import publish, table
from torch import Tensor

from ensemble_kd.cache import Format, format_named
from ensemble_kd.config import compose
from ensemble_kd.engine import Engine
from ensemble_kd.plan import make_plan
from ensemble_kd.store import Store

EXACT, SEED = "float32", 0
TRAINED = ("float16", "topk-1", "topk-3", "sampled-8-seed-0", "sampled-32-seed-0")
GRADIENTS = {
    "Fashion-MNIST, 10 classes": (COMMON, TRAINED),
    "CIFAR-100, 100 classes": (
        (
            "data=cifar100",
            "data.source.limit=4000",
            "data.labelled=null",
            "logger=none",
            "epochs=15",
        ),
        ("float16", "topk-1", "topk-8", "topk-32", "sampled-8-seed-0", "sampled-64-seed-0"),
    ),
}
CYCLE = ("data.cycle=4", "objective.temperature=1", "epochs=12")
SETTINGS = {
    name: (*COMMON, *CYCLE, "cache=disk", f"cache.format={name}") for name in (EXACT, *TRAINED)
}
STUDY = Study(DOCS / "formats.csv", SETTINGS, {})
RAW = DOCS / "formats_gradients.csv"
DRAWS = 64
"""Seeds over which the gradient under drawn classes is averaged."""
SIZES = {"digits": 10, "CIFAR-100": 100, "ImageNet": 1000}


class Lost(NamedTuple):
    """What one format does to the gradient, over samples.

    Attributes:
        data: what the teacher was trained on.
        format: its name.
        temperature: of the soft term.
        bias: of the mean gradient along the exact one, as a share of its size.
        low: its 95% interval over samples, from.
        high: to.
        error: root mean square of a single gradient's error, as a share of the exact one's size.
    """

    data: str
    format: str
    temperature: float
    bias: float
    low: float
    high: float
    error: float


def lost(data: str, name: str, said: Tensor, logits: Tensor, temperature: float) -> Lost:
    """Compare gradients d KL / d logits = T (q - p), sample by sample."""
    rows, views = torch.arange(len(said)), torch.zeros(len(said), dtype=torch.int64)
    q = (logits / temperature).softmax(-1).double()
    exact = q - (said.double() / temperature).softmax(-1)
    # Drawn classes are one estimate; only many of them show whether it is biased.
    seeds = range(DRAWS if "seed" in name else 1)
    mean, squared = torch.zeros_like(exact), torch.zeros((), dtype=torch.float64)
    for seed in seeds:
        format: Format = format_named(name.replace("seed-0", f"seed-{seed}"))
        read = format.decode(format.encode(said, rows, views), said.shape[-1])
        gradient = q - (read.double() / temperature).softmax(-1)
        mean += gradient / len(seeds)
        squared += (gradient - exact).square().sum(-1).mean() / len(seeds)
    # Of the size of all gradients: where student and teacher agree they are next to nothing.
    size = exact.square().sum(-1).mean()
    values = (((mean - exact) * exact).sum(-1) / size).numpy()
    low, high = stats.t.interval(0.95, len(values) - 1, loc=values.mean(), scale=stats.sem(values))
    error = float((squared / size).sqrt())
    return Lost(data, name, temperature, float(values.mean()), low, high, error)


def gradients(folder: Path) -> None:
    """Compare over what teacher and student of a run say of the validation split."""
    found = []
    for data, (overrides, formats) in GRADIENTS.items():
        plan = make_plan(compose([*overrides, f"seed={SEED}", "teacher=single", "controls=[]"]))
        products = Engine(plan, Store(folder), Path("unused"), logger=False).products()
        teacher, student = (products[name].deliverable() for name in ("teacher/0", "student"))
        with torch.inference_mode():
            batches = [batch.inputs for batch in plan.data.val_dataloader()]
            said, logits = (torch.cat([n(x) for x in batches]) for n in (teacher, student))
        found += [
            lost(data, name, said, logits, temperature)
            for name in formats
            for temperature in (1.0, 4.0)
        ]
    with RAW.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Lost._fields)
        writer.writerows([*one[:2], *(f"{number:.6g}" for number in one[2:])] for one in found)


def report() -> None:
    """The three tables."""
    sizes = [
        [name, *(str(format_named(name).row_bytes(classes)) for classes in SIZES.values())]
        for name in (EXACT, "float16", "topk-8", "topk-32", "sampled-8-seed-0", "sampled-64-seed-0")
    ]
    lines = table(("bytes of an answer", *(f"{n}, c = {c}" for n, c in SIZES.items())), sizes)
    with RAW.open(newline="") as file:
        rows = [
            [
                row["data"],
                row["format"],
                row["temperature"],
                f"{100 * float(row['bias']):+.2f}% [{100 * float(row['low']):+.2f}, "
                f"{100 * float(row['high']):+.2f}]",
                f"{100 * float(row['error']):.1f}%",
            ]
            for row in csv.DictReader(file)
        ]
    columns = ("teacher of", "format", "T", "bias of the gradient", "error of one gradient")
    lines += ["", *table(columns, rows), ""]
    publish("formats", lines + accuracies(by_setting(STUDY.raw)))


def accuracies(found: dict[str, dict[int, float]]) -> list[str]:
    """Test accuracy under each format, against exact answers."""
    rows = []
    for name in SETTINGS:
        mean = f"{100 * np.mean(list(found[name].values())):.2f}"
        if name == EXACT:
            rows.append([name, mean, "", ""])
            continue
        against = compare(found[name], found[EXACT])
        interval = f"{against.mean:+.2f} [{against.low:+.2f}, {against.high:+.2f}]"
        rows.append([name, mean, interval, f"{against.p_value:.3f}"])
    columns = ("answers kept as", "accuracy", f"against {EXACT}", "p")
    return [*table(columns, rows), "", *explained(len(found[EXACT]))]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["gradients", "run", "report"])
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--store", type=Path, default=Path("outputs/formats"))
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if chosen.step == "gradients":
        gradients(chosen.store)
    elif chosen.step == "run":
        run(STUDY, range(chosen.seeds), chosen.store)
    else:
        report()


if __name__ == "__main__":
    main()
