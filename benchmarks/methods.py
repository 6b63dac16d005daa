"""Every strategy and every weighting on Fashion-MNIST: same student, same budget, paired seeds.

``python benchmarks/methods.py run`` trains; what was measured before, by the same code, is kept, so
that it can be stopped and started again. ``python benchmarks/methods.py report`` writes the page.
Each method is held against the same student without teachers, and against plain distillation from
the uniform mean of the teachers, on the official test images. Nothing is tuned: every method has
the defaults of its configuration, every network the same optimiser and number of epochs. Test
accuracy is read once, after training, and selects nothing.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from ensemble_kd.config import compose
from ensemble_kd.engine import Engine
from ensemble_kd.groups import options
from ensemble_kd.paths import conf_dir
from ensemble_kd.plan import make_plan
from ensemble_kd.run import named_predictors
from ensemble_kd.stage import training_code_digest
from ensemble_kd.store import Store
from ensemble_kd.training import accuracy

DOCS = Path(__file__).resolve().parents[1] / "docs"
RAW, PAGE, PLOT = DOCS / "measured.csv", DOCS / "measured.md", DOCS / "measured.png"
COMMON = (
    "data=fashion_mnist",
    "data.source.limit=2000",
    "data.labelled=null",
    "student=cnn_tiny",
    "teacher.members=[cnn_medium,cnn_medium,cnn_medium]",
    "epochs=10",
    "logger=none",
)
ELSEWHERE = {"multi_task": "it needs data of several tasks"}
"""Strategies that cannot be run on this data, and why."""
WEIGHTS = {"fixed": ("weighting.weights=[3,2,1]",)}
"""What an option cannot do without."""
CONTROL, UNIFORM = "no teachers", "strategy=parallel"


class Row(NamedTuple):
    """Test accuracy of the delivered student of one method with one seed, and the code it was."""

    method: str
    seed: int
    accuracy: float
    code: str


def methods() -> dict[str, tuple[str, ...]]:
    """The overrides of each method, by its name."""
    groups = options([conf_dir()])
    named: dict[str, tuple[str, ...]] = {
        f"strategy={name}": (f"strategy={name}",)
        for name in groups["strategy"]
        if name not in ELSEWHERE
    }
    named["strategy=assistant strategy.dense=true"] = (
        "strategy=assistant",
        "strategy.assistants=[cnn_medium,cnn_small]",
        "strategy.dense=true",
    )
    for name in groups["weighting"]:
        if name != "uniform":
            named[f"weighting={name}"] = (f"weighting={name}", *WEIGHTS.get(name, ()))
    return named


def measure(name: str, overrides: Sequence[str], seed: int, store: Store) -> list[Row]:
    """Train a method with one seed; its row, and the row of the control of the same seed."""
    plan = make_plan(compose([*COMMON, *overrides, f"seed={seed}"]))
    products = Engine(plan, store, Path("unused"), logger=False).products()
    code = training_code_digest()[:12]
    networks = named_predictors(plan, products)
    batches = list(plan.data.test_dataloader())
    student = products["student"].learner.deliverable()
    return [
        Row(name, seed, accuracy(student, batches), code),
        Row(CONTROL, seed, accuracy(networks["control"], batches), code),
        Row("the three teachers' mean", seed, accuracy(networks["ensemble"], batches), code),
    ]


def run(seeds: Iterable[int], folder: Path) -> None:
    store = Store(folder)
    older = {row.code for row in rows()} - {training_code_digest()[:12]}
    if older:
        raise SystemExit(
            f"{RAW} holds figures of other code ({', '.join(sorted(older))}): move it away first"
        )
    for seed in seeds:
        for name, overrides in methods().items():
            done = {(row.method, row.seed) for row in rows()}
            if (name, seed) in done:
                continue
            fresh = [
                row
                for row in measure(name, overrides, seed, store)
                if (row.method, row.seed) not in done
            ]
            print(*(f"{row.method} seed {row.seed}: {row.accuracy:.4f}" for row in fresh), sep="\n")
            new = not RAW.exists()
            with RAW.open("a", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                if new:
                    writer.writerow(Row._fields)
                for row in fresh:
                    writer.writerow((row.method, row.seed, f"{row.accuracy:.4f}", row.code))


def rows() -> list[Row]:
    """What was measured so far."""
    if not RAW.exists():
        return []
    with RAW.open(newline="") as file:
        return [
            Row(row["method"], int(row["seed"]), float(row["accuracy"]), row["code"])
            for row in csv.DictReader(file)
        ]


class Compared(NamedTuple):
    """A method against another one, over the seeds that both have, in points of accuracy."""

    mean: float
    low: float
    high: float
    p_value: float


def compare(one: Mapping[int, float], other: Mapping[int, float]) -> Compared:
    """Mean difference, its 95% t interval, and the exact two-sided sign-flip p-value."""
    seeds = sorted(set(one) & set(other))
    difference = 100 * np.array([one[seed] - other[seed] for seed in seeds])
    if not difference.any():
        return Compared(0.0, 0.0, 0.0, 1.0)
    mean = float(difference.mean())
    low, high = stats.t.interval(0.95, len(seeds) - 1, loc=mean, scale=stats.sem(difference))
    tested = stats.permutation_test(
        (difference,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    return Compared(mean, float(low), float(high), float(tested.pvalue))


def report() -> None:
    by_method: dict[str, dict[int, float]] = {}
    for row in rows():
        by_method.setdefault(row.method, {})[row.seed] = row.accuracy
    seeds = len(by_method[CONTROL])
    mean = {name: 100 * float(np.mean(list(found.values()))) for name, found in by_method.items()}
    lines = [
        "# Measured: every method on Fashion-MNIST",
        "",
        "Written by `python benchmarks/methods.py report`; the raw figures are in",
        "[measured.csv](measured.csv).",
        "",
        "- 1,800 labelled training images, 10 epochs, the student `cnn_tiny` (678 parameters);",
        "  teachers: three `cnn_medium`, trained on the same images for as many epochs.",
        f"- {seeds} seeds, paired: a seed decides split, order and initial weights of all methods.",
        "- Accuracy on the 10,000 official test images, read once, after training.",
        "- Nothing is tuned: defaults of each configuration. Methods that train several networks",
        "  use more computation than the control; those without teachers use none.",
        "- Difference in points with its 95% interval (Student's t over seeds), and the exact",
        f"  two-sided sign-flip p-value, at least {2 / 2**seeds:.3f} with {seeds} seeds, and",
        "  uncorrected for the number of methods: no single row proves anything.",
        *(f"- `strategy={name}` is left out: {why}." for name, why in ELSEWHERE.items()),
        "",
        "![Difference to the same student without teachers, by method](measured.png)",
        "",
        "| method | accuracy | against no teachers | p | against the uniform mean | p |",
        "|---|---|---|---|---|---|",
    ]
    ranked = sorted(mean, key=lambda name: -mean[name])
    for name in ranked:
        cells = [f"`{name}`" if "=" in name else f"*{name}*", f"{mean[name]:.2f}"]
        for reference in (CONTROL, UNIFORM):
            if name == reference or "=" not in name:
                cells += ["", ""]
                continue
            found = compare(by_method[name], by_method[reference])
            cells.append(f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]")
            cells.append(f"{found.p_value:.3f}")
        lines.append(f"| {' | '.join(cells)} |")
    PAGE.write_text("\n".join(lines) + "\n")
    plot([name for name in ranked if "=" in name], by_method)
    print(PAGE.read_text())


def plot(ranked: Sequence[str], by_method: Mapping[str, Mapping[int, float]]) -> None:
    from matplotlib.figure import Figure

    found = {name: compare(by_method[name], by_method[CONTROL]) for name in ranked}
    figure = Figure(figsize=(9, 1.2 + 0.3 * len(ranked)), layout="constrained")
    axes = figure.subplots()
    for place, name in enumerate(reversed(ranked)):
        bar = found[name]
        clear = bar.low > 0 or bar.high < 0
        color = "#0f6fae" if clear else "#999999"
        axes.plot([bar.low, bar.high], [place, place], color=color, linewidth=2)
        axes.plot(bar.mean, place, "o", color=color)
    axes.axvline(0, color="black", linewidth=1)
    axes.set_yticks(range(len(ranked)), list(reversed(ranked)))
    axes.set_xlabel(
        "points of test accuracy against the same student without teachers, 95% interval"
    )
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    axes.grid(axis="x", color="#e5e5e5")
    axes.set_axisbelow(True)
    figure.savefig(PLOT, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(6)))
    parser.add_argument("--store", type=Path, default=Path("outputs/store"))
    arguments = parser.parse_args()
    if arguments.what == "run":
        os.environ.setdefault("ENSEMBLE_KD_DATA", "data")
        run(arguments.seeds, arguments.store)
    report()


if __name__ == "__main__":
    main()
