"""Sections of a run's page on where networks err: by confidence, by class, between classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ensemble_kd.report.page.content import Run
from ensemble_kd.report.page.parts import (
    Figure,
    Row,
    Section,
    Table,
    decimals,
    percent,
    sentence,
    signed,
)
from ensemble_kd.report.roles import ALONE, role
from ensemble_kd.report.svg import Cell, Drawing, Mark, heat_map, reliability_chart, row_chart
from ensemble_kd.report.svg import Row as Bar
from ensemble_kd.report.svg.bars import Bin
from ensemble_kd.report.svg.frame import percent as percent_tick

if TYPE_CHECKING:
    from ensemble_kd.predictions import Predictions

STUDENT, ENSEMBLE = "student", "ensemble"
SHOWN = (ENSEMBLE, STUDENT, ALONE)
BINS = 15
MOST = 25
"""Classes of a picture; of more, those with the largest differences."""
Counts = npt.NDArray[np.int64]


def reliability(run: Run) -> Section | None:
    """How often networks are right, by how sure they are."""
    said = run.predictions.get("test")
    if said is None or not bool((said.target >= 0).any()):
        return None
    panels = []
    for number, name in enumerate(name for name in SHOWN if name in said.logits):
        bins = reliability_bins(said, name)
        off = sum(each.share * (each.confidence - each.accuracy) for each in bins)
        drawing = Drawing(
            f"reliability-{number}",
            f"Reliability of {name}",
            f"{len(bins)} of {BINS} bins hold samples; mean confidence minus accuracy is "
            f"{off:+.1%}.",
        )
        ece = run.numbers.show(("predictors", name, "test", "ece"), decimals)
        drawn = reliability_chart(drawing, bins, role(name))
        panels.append(Figure(drawn, title=sentence(name, " · ECE ", ece)))
    if not panels:
        return None
    return Section(
        "reliability",
        "Reliability",
        lead="A network is calibrated if it is right as often as it is sure: columns then end on "
        "the diagonal.",
        panels=panels,
        note="Test split, 15 bins of equal width by the probability of the class that is ranked "
        "first. The tick in each column is its mean confidence; below, how many samples it holds.",
    )


def confusion(run: Run) -> Section | None:
    """Which classes the student takes for which, beyond what the ensemble does."""
    said = run.predictions.get("test")
    if said is None or not {STUDENT, ENSEMBLE} <= set(said.logits):
        return None
    difference = confusion_counts(said, STUDENT) - confusion_counts(said, ENSEMBLE)
    chosen = most_different(difference, MOST)
    if not chosen:
        return None
    names = [said.names[k] for k in chosen]
    shown = difference[np.ix_(chosen, chosen)]
    largest = max(int(np.abs(shown).max()), 1)

    def square(i: int, j: int) -> Cell | None:
        value = int(shown[i, j])
        if value == 0:
            return Cell(0.0, "", "same", f"{names[i]} taken for {names[j]}: no difference")
        word = "more often" if value > 0 else "less often"
        about = f"{names[i]} taken for {names[j]}: the student {abs(value)} times {word}"
        style = "more" if value > 0 else "fewer"
        return Cell(abs(value) / largest, signed(value, 0), style, about)

    part = f" The {len(chosen)} classes that differ most, of {len(said.names)}, are shown."
    return Section(
        "confusion",
        "Confusion, student minus ensemble",
        figures=[
            Figure(
                heat_map(
                    Drawing(
                        "confusion-map",
                        "Confusion of the student minus that of the ensemble",
                        f"{len(chosen)} classes; the largest difference is {largest} samples.",
                    ),
                    names,
                    names,
                    square,
                    34 if len(names) > 12 else 42,
                    ("true class", "named class"),
                ),
                "Test samples of a class (row) that were given a name (column): by how many the "
                "student exceeds the ensemble (orange) or falls short of it (blue). On the "
                "diagonal more is better, elsewhere less."
                + (part if len(chosen) < len(said.names) else ""),
            )
        ],
    )


def recall(run: Run) -> Section | None:
    """How much of each class is found."""
    shown = [name for name in SHOWN if name in run.results["predictors"]]
    found = {name: run.numbers.at("predictors", name, "test", "recall") or [] for name in shown}
    classes = run.classes
    whole = [
        k
        for k in range(len(classes))
        if any(len(own) > k and own[k] is not None for own in found.values())
    ]
    if not whole:
        return None

    def gap(k: int) -> float:
        known = [own[k] for own in found.values() if len(own) > k and own[k] is not None]
        return float(max(known) - min(known))

    chosen = sorted(sorted(whole, key=lambda k: (-gap(k), k))[:MOST])
    bars = []
    for k in chosen:
        marks = [
            Mark(own[k], role(name), hollow=role(name) == "control", shift=shift)
            for (name, own), shift in zip(found.items(), (-3.5, 3.5, 0.0), strict=False)
            if len(own) > k and own[k] is not None
        ]
        values = [mark.value for mark in marks]
        bars.append(Bar(classes[k], marks, (min(values), max(values))))
    part = f" The {len(chosen)} classes that differ most, of {len(classes)}."
    rows = [
        Row(
            classes[k],
            [
                run.numbers.show(("predictors", name, "test", "recall", k), percent)
                for name in shown
            ],
        )
        for k in chosen
    ]
    return Section(
        "recall",
        "Recall by class",
        figures=[
            Figure(
                row_chart(
                    Drawing(
                        "recall-chart",
                        "Recall by class",
                        f"{len(chosen)} classes, each with the recall of {', '.join(shown)}.",
                    ),
                    bars,
                    percent_tick,
                    "recall",
                    bounds=(-0.01, 1.01),
                ),
                "Share of the test samples of each class that are found."
                + (part if len(chosen) < len(whole) else ""),
            )
        ],
        keys={name: role(name) for name in shown},
        tables=[Table("Recall on the test split", ["class", *shown], rows, folded=True)],
    )


def reliability_bins(said: Predictions, name: str) -> list[Bin]:
    """The bins that hold labelled samples, by the probability of the class ranked first.

    Args:
        said: of a split.
        name: of a predictor.
    """
    known = said.target >= 0
    probabilities = said.logits[name][known].softmax(-1)
    confidence, named = (each.numpy() for each in probabilities.max(-1))
    right = named == said.target[known].numpy()
    # A bin holds its upper edge, as torchmetrics has it.
    place = np.clip(np.ceil(confidence.astype(np.float64) * BINS).astype(int) - 1, 0, BINS - 1)
    return [
        Bin(
            k / BINS,
            (k + 1) / BINS,
            float(own.mean()),
            float(confidence[own].mean()),
            float(right[own].mean()),
        )
        for k in range(BINS)
        if (own := place == k).any()
    ]


def confusion_counts(said: Predictions, name: str) -> Counts:
    """(c, c) labelled samples by true class and by the class that a predictor names."""
    classes = len(said.names)
    known = said.target >= 0
    pairs = said.target[known] * classes + said.logits[name][known].argmax(-1)
    counts = np.bincount(pairs.numpy(), minlength=classes**2)
    return counts.reshape(classes, classes)


def most_different(difference: Counts, most: int) -> Sequence[int]:
    """Classes of which rows and columns hold the largest differences, in their own order.

    Args:
        difference: (c, c).
        most: how many classes at most; if there are no more, all of them are taken.
    """
    if len(difference) <= most:
        return range(len(difference))
    size = np.abs(difference)
    weight = size.sum(0) + size.sum(1) - size.diagonal()
    chosen = np.argsort(-weight, kind="stable")[:most]
    return sorted(int(k) for k in chosen if weight[k] > 0)
