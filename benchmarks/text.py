"""Every method for texts, on SST-2 and WNUT 2017: paired seeds, against no teacher and plain KD.

``python benchmarks/text.py run`` trains what has no figure yet, ``report`` writes the page. Each
method is an experiment of ``conf/experiment``, with its own sizes; nothing is tuned. Methods are
compared within a family, whose student, data and teachers are the same.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from paired import DOCS, Row, append, cells, command, compare, rows
from text_families import BEGUN, CONTROL, ELSEWHERE, FAMILIES, PRETRAINED, Family

from ensemble_kd.assessment import named_predictors
from ensemble_kd.build import build
from ensemble_kd.config import compose, plain
from ensemble_kd.engine import Engine, Product
from ensemble_kd.evaluation import Evaluation
from ensemble_kd.networks.early_exit import EarlyExit
from ensemble_kd.plan import Plan, make_plan
from ensemble_kd.scores import Scores
from ensemble_kd.speeds import Point, trade_off
from ensemble_kd.stage import training_code_digest
from ensemble_kd.store import Store
from ensemble_kd.taught import class_names

RAW, SPEEDS, PAGE = DOCS / "text.csv", DOCS / "text_speeds.csv", DOCS / "text.md"
ENOUGH = 6
"""Seeds from which on a two-sided sign-flip test can find anything at 5 %."""

SPED = (0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)


def run(seeds: Iterable[int], folder: Path) -> None:
    """Train whatever has no figure yet, seed by seed, and write each figure at once."""
    store = Store(folder)
    code = training_code_digest()[:12]
    older = {row.code for row in rows(RAW)} - {code}
    if older:
        raise SystemExit(
            f"{RAW} holds figures of other code ({', '.join(sorted(older))}): move it away, and "
            f"{SPEEDS.name} beside it"
        )
    for seed in seeds:
        for family in FAMILIES.values():
            for number, setting in enumerate(family.settings):
                done = {(row.method, row.seed) for row in rows(RAW)}
                if (label(family, setting), seed) not in done:
                    _one(family, setting, number == 0, seed, code, store)


def label(family: Family, setting: str) -> str:
    """A setting's name in the file of figures."""
    return f"{family.title}: {setting}"


def _one(family: Family, setting: str, first: bool, seed: int, code: str, store: Store) -> None:
    """Train one setting with one seed, and write its figures."""
    control = ("controls=[no_teacher]" if first else "controls=[]", f"seed={seed}", "logger=none")
    overrides = begun((*family.settings[setting], *control), seed, store)
    plan, products = trained(overrides, store)
    wanted = {setting: "student", **(family.also if first else {})}
    networks = named_predictors(plan, products)
    evaluation = Evaluation(spans=family.score == "span_f1")
    found = evaluation.measure(
        {name: networks[predictor] for name, predictor in wanted.items()},
        plan.data.test_dataloader(),
        plan.classes,
        names=class_names(plan.data),
    ).predictors
    figures = {name: figure(scores, family) for name, scores in found.items()}
    print(seed, family.title, {name: f"{value:.4f}" for name, value in figures.items()}, flush=True)
    student = products["student"].learner.deliverable()
    if isinstance(student, EarlyExit):
        write_speeds(seed, trade_off(student, list(plan.data.test_dataloader()), SPED))
    append(RAW, [Row(label(family, name), seed, value, code) for name, value in figures.items()])


def figure(scores: Scores, family: Family) -> float:
    """The one that the family is compared by.

    Raises:
        ValueError: it was not measured.
    """
    value = scores.accuracy if family.score == "accuracy" else scores.span_f1
    if value is None:
        raise ValueError(f"{family.title}: {family.score} was not measured")
    return value


def trained(overrides: Sequence[str], store: Store) -> tuple[Plan, Mapping[str, Product]]:
    """All stages that some overrides mean."""
    config = compose(overrides)
    plan = make_plan(config)
    keeping = build(plain(config.cache, "cache"), "cache")
    return plan, Engine(plan, store, Path("unused"), False, keeping).products()


def begun(overrides: Sequence[str], seed: int, store: Store) -> list[str]:
    """Overrides in which the networks that were pretrained stand as folders."""
    found = []
    for override in overrides:
        if override.startswith(BEGUN):
            pretrained = PRETRAINED[override.removeprefix(BEGUN)]
            _, products = trained(
                (*pretrained, "controls=[]", f"seed={seed}", "logger=none"), store
            )
            folder = products["student"].artefact.folder.absolute()
            override = f"initial={{artefact: '{folder}'}}"
        found.append(override)
    return found


def write_speeds(seed: int, points: Iterable[Point]) -> None:
    """Accuracy and blocks at each speed, behind those of other seeds."""
    new = not SPEEDS.exists()
    with SPEEDS.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(("seed", *Point._fields))
        for point in points:
            writer.writerow((seed, point.speed, f"{point.accuracy:.4f}", f"{point.layers:.3f}"))


def report() -> None:
    """Write the page."""
    seeds = {row.seed for row in rows(RAW)}
    if len(seeds) < 2:
        raise SystemExit(f"{RAW}: expected figures of two seeds or more, got {len(seeds)}")
    lines = [
        "# Measured: methods for texts",
        "",
        "Written by `python benchmarks/text.py report`; the raw figures are in",
        "[text.csv](text.csv) and [text_speeds.csv](text_speeds.csv).",
        "",
        f"- {len(seeds)} seeds, paired: a seed decides labelled texts, order and initial weights.",
        "- Everything is small and begins with new weights, so nothing here can be held against",
        "  published figures, whose networks were pretrained on large corpora.",
        "- Scores are those of the official test parts, read once, after training. Nothing is",
        "  tuned: each method has the weights of its experiment, the same optimiser and number of",
        "  epochs; pretraining comes on top.",
        *(f"- `experiment={name}` is left out: {why}." for name, why in ELSEWHERE.items()),
        "- Difference in points with its 95% interval (Student's t over seeds), and the exact",
        f"  two-sided sign-flip p-value, at least {2 / 2 ** len(seeds):.3f}, uncorrected for the",
        "  number of rows: no single row proves anything.",
    ]
    for family in FAMILIES.values():
        lines += table(family, by_setting(family))
    lines += speeds_table()
    PAGE.write_text("\n".join(lines) + "\n")
    print(PAGE.read_text())


def by_setting(family: Family) -> dict[str, dict[int, float]]:
    """The figures of a family by setting and seed."""
    names = {label(family, name): name for name in (*family.settings, *family.also)}
    found: dict[str, dict[int, float]] = {}
    for row in rows(RAW):
        if row.method in names:
            found.setdefault(names[row.method], {})[row.seed] = row.accuracy
    return found


def table(family: Family, found: Mapping[str, Mapping[int, float]]) -> list[str]:
    """The section of a family: its figures, and in words what helped."""
    what = "accuracy" if family.score == "accuracy" else "F1"
    said = " ".join(family.said)
    lines = ["", f"## {family.title}", "", f"{said[0].upper()}{said[1:]}.", ""]
    lines += [f"| method | {what} | against {CONTROL} | p | against {family.plain} | p |"]
    lines += ["|---|---|---|---|---|---|"]
    mean = {name: 100 * float(np.mean(list(values.values()))) for name, values in found.items()}
    for name in sorted(mean, key=lambda each: -mean[each]):
        row = [f"`{name}`" if name in family.settings else f"*{name}*", f"{mean[name]:.2f}"]
        for reference in (CONTROL, family.plain):
            compared = name != reference and name in family.settings and reference in found
            row += cells(found[name], found[reference]) if compared else ["", ""]
        lines.append(f"| {' | '.join(row)} |")
    return [*lines, "", *said_plainly(family, found)]


def said_plainly(family: Family, found: Mapping[str, Mapping[int, float]]) -> list[str]:
    """Which settings help, which do not, and which hurt, each against both references."""
    fewest = min(map(len, found.values()), default=ENOUGH)
    if fewest < ENOUGH:
        return [f"- {fewest} seeds, fewer than {ENOUGH}: nothing is claimed of any row."]
    lines = []
    for reference in dict.fromkeys((CONTROL, family.plain)):
        groups: dict[str, list[str]] = {"helps": [], "makes no clear difference": [], "hurts": []}
        for name in family.settings:
            if name != reference and name in found and reference in found:
                bar = compare(found[name], found[reference])
                word = "helps" if bar.low > 0 else "hurts" if bar.high < 0 else None
                groups[word or "makes no clear difference"].append(f"`{name}`")
        told = [f"{word}: {', '.join(names)}" for word, names in groups.items() if names]
        if told:
            lines.append(f"- Against {reference}: {'; '.join(told)}.")
    return lines


def speeds_table() -> list[str]:
    """What leaving early costs and saves, the mean over seeds."""
    if not SPEEDS.exists():
        return []
    points: dict[tuple[int, float], tuple[float, float]] = {}
    with SPEEDS.open(newline="") as file:
        for row in csv.DictReader(file):
            # Of a setting that was measured again, the last time counts.
            point = (int(row["seed"]), float(row["speed"]))
            points[point] = (float(row["accuracy"]), float(row["layers"]))
    lines = ["", "How much FastBERT's texts leave early:", ""]
    lines += ["| speed | accuracy | blocks of 4 |", "|---|---|---|"]
    for speed in SPED:
        of_speed = [measured for (_, each), measured in points.items() if each == speed]
        if of_speed:
            accuracy, layers = np.mean(of_speed, axis=0)
            lines.append(f"| {speed:g} | {100 * accuracy:.2f} | {layers:.2f} |")
    return lines


def main() -> None:
    command(__doc__, run, report)


if __name__ == "__main__":
    main()
