"""Paired studies: the same student in several settings, seed by seed, against references.

What was measured before, by the same code, is kept, so that a study can be stopped and started
again. Test accuracy is read once, after training, and selects nothing.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ensemble_kd.assessment import named_predictors
from ensemble_kd.build import build
from ensemble_kd.config import compose, plain
from ensemble_kd.engine import Engine
from ensemble_kd.plan import make_plan
from ensemble_kd.stage import training_code_digest
from ensemble_kd.statistics import sign_flip, t_interval
from ensemble_kd.store import Store
from ensemble_kd.training import accuracy

DOCS = Path(__file__).resolve().parents[1] / "docs"
COMMON = ("data=fashion_mnist", "data.source.limit=2000", "data.labelled=null", "logger=none")
"""1,800 labelled training images: all that is left of 2,000 after validation."""
CONTROL = "no teachers"


class Study(NamedTuple):
    """What is compared.

    Attributes:
        raw: the file of figures.
        settings: overrides of each setting, by its name.
        also: further predictors of the first setting's run that are reported, by the name under
            which they are, such as the control.
    """

    raw: Path
    settings: Mapping[str, Sequence[str]]
    also: Mapping[str, str]


class Row(NamedTuple):
    """Test accuracy of the delivered student of one setting with one seed, and the code it was."""

    method: str
    seed: int
    accuracy: float
    code: str


class Compared(NamedTuple):
    """A setting against another one, over the seeds that both have, in points of accuracy."""

    mean: float
    low: float
    high: float
    p_value: float


def command(
    description: str | None,
    train: Callable[[Sequence[int], Path], None],
    report: Callable[[], None],
    place: tuple[str, str] = ("--store", "outputs/store"),
) -> None:
    """The command line of a study: ``run`` trains and reports, ``report`` only reports.

    Args:
        description: what the help says.
        train: trains whatever has no figure yet, for some seeds, and keeps it in a folder.
        report: writes the page.
        place: the option that names the folder, and its default.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(6)))
    parser.add_argument(place[0], dest="folder", type=Path, default=Path(place[1]))
    arguments = parser.parse_args()
    if arguments.what == "run":
        os.environ.setdefault("ENSEMBLE_KD_DATA", "data")
        train(arguments.seeds, arguments.folder)
    report()


def run(study: Study, seeds: Iterable[int], folder: Path) -> None:
    """Train whatever has no figure yet, seed by seed, and write each figure at once."""
    store = Store(folder)
    code = training_code_digest()[:12]
    older = {row.code for row in rows(study.raw)} - {code}
    if older:
        raise SystemExit(
            f"{study.raw} holds figures of other code ({', '.join(sorted(older))}): move it away"
        )
    for seed in seeds:
        for name, overrides in study.settings.items():
            done = {(row.method, row.seed) for row in rows(study.raw)}
            if (name, seed) in done:
                continue
            found = measured(name, (*overrides, f"seed={seed}"), study.also, store)
            fresh = {key: value for key, value in found.items() if (key, seed) not in done}
            for key, value in fresh.items():
                print(f"{key} seed {seed}: {value:.4f}", flush=True)
            append(study.raw, [Row(key, seed, value, code) for key, value in fresh.items()])


def measured(
    name: str, overrides: Sequence[str], also: Mapping[str, str], store: Store
) -> dict[str, float]:
    """Train a setting; the test accuracy of its student, and of what else is reported."""
    config = compose([*overrides])
    plan, keeping = make_plan(config), build(plain(config.cache, "cache"), "cache")
    products = Engine(plan, store, Path("unused"), False, keeping).products()
    networks = named_predictors(plan, products)
    batches = list(plan.data.test_dataloader())
    student = products["student"].learner.deliverable()
    rest = {
        reported: accuracy(networks[predictor], batches)
        for reported, predictor in also.items()
        if predictor in networks
    }
    return {name: accuracy(student, batches), **rest}


def append(raw: Path, fresh: Sequence[Row]) -> None:
    new = not raw.exists()
    with raw.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(Row._fields)
        for row in fresh:
            writer.writerow((row.method, row.seed, f"{row.accuracy:.4f}", row.code))


def rows(raw: Path) -> list[Row]:
    """What was measured so far."""
    if not raw.exists():
        return []
    with raw.open(newline="") as file:
        return [
            Row(row["method"], int(row["seed"]), float(row["accuracy"]), row["code"])
            for row in csv.DictReader(file)
        ]


def by_setting(raw: Path) -> dict[str, dict[int, float]]:
    """Accuracies by setting and seed."""
    found: dict[str, dict[int, float]] = {}
    for row in rows(raw):
        found.setdefault(row.method, {})[row.seed] = row.accuracy
    return found


def compare(one: Mapping[int, float], other: Mapping[int, float]) -> Compared:
    """Mean difference, its 95% t interval, and the exact two-sided sign-flip p-value."""
    seeds = sorted(set(one) & set(other))
    difference = 100 * np.array([one[seed] - other[seed] for seed in seeds])
    interval = t_interval(difference)
    if interval is None:
        raise ValueError(f"expected two seeds or more that both settings have, got {len(seeds)}")
    return Compared(float(difference.mean()), *interval, float(sign_flip(difference)))


def cells(one: Mapping[int, float], other: Mapping[int, float]) -> list[str]:
    """A comparison as two cells of a table: the difference with its interval, and the p-value."""
    found = compare(one, other)
    interval = f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
    return [interval, f"{found.p_value:.3f}"]


def explained(seeds: int) -> list[str]:
    """How to read the table: lines of a page."""
    return [
        f"- {seeds} seeds, paired: a seed decides split, order and initial weights everywhere.",
        "- Accuracy on the 10,000 official test images, read once, after training.",
        "- Difference in points with its 95% interval (Student's t over seeds), and the exact",
        f"  two-sided sign-flip p-value, at least {2 / 2**seeds:.3f} with {seeds} seeds, and",
        "  uncorrected for the number of rows: no single row proves anything.",
    ]


def plot(
    path: Path, found: Mapping[str, Mapping[int, float]], ranked: Sequence[str], reference: str
) -> None:
    """Each setting's difference to a reference, with its interval."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.2 + 0.3 * len(ranked)), layout="constrained")
    axes = figure.subplots()
    for place, name in enumerate(reversed(ranked)):
        bar = compare(found[name], found[reference])
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
    figure.savefig(path, dpi=110)
