"""The top of a run's page, and the controls that the verdict rests on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from ensemble_kd.report.page.content import Run
from ensemble_kd.report.page.parts import (
    Cell,
    decimals,
    duration,
    percent,
    points,
    sentence,
    size,
    times,
)
from ensemble_kd.report.roles import ALONE, role
from ensemble_kd.report.svg import Drawing, Mark, element, row_chart
from ensemble_kd.report.svg import Row as Bar
from ensemble_kd.report.svg.frame import percent as percent_tick

STUDENT, ENSEMBLE = "student", "ensemble"
SURE = 1.96
"""Standard errors on each side of a 95% interval."""


class Tile(NamedTuple):
    """One number that counts, and what it stands beside."""

    title: str
    value: Cell
    notes: Sequence[Cell]


class Verdict(NamedTuple):
    """What stands on top of the page.

    Attributes:
        word: what happened, in a few words.
        rest: by how much, and how far it is to be trusted.
        tone: ``good``, ``bad`` or ``open``.
        tiles: the numbers that count.
        glance: a picture of the accuracies; empty without labels.
    """

    word: str
    rest: str
    tone: str
    tiles: list[Tile]
    glance: Markup


def verdict(run: Run) -> Verdict:
    """The verdict, and in one glance what it is about."""
    word, _, rest = run.results["verdict"].partition(": ")
    tone = {"distillation helped": "good", "distillation hurt": "bad"}.get(word, "open")
    tiles = [tile for tile in (_accuracy(run), _loyalty(run), _size(run), _speed(run)) if tile]
    return Verdict(word[:1].upper() + word[1:], rest, tone, tiles, _glance(run))


def _accuracy(run: Run) -> Tile | None:
    numbers, own = run.numbers, ("predictors", STUDENT, "test", "accuracy")
    accuracy = numbers.at(*own)
    if accuracy is None:
        return None
    notes = []
    for name, words in ((ALONE, " without teachers"), (ENSEMBLE, " of the ensemble")):
        other = numbers.at("predictors", name, "test", "accuracy")
        if other is not None:
            shown = numbers.show(("predictors", name, "test", "accuracy"), percent)
            gain = element("b", {}, points(accuracy - other))
            notes.append(sentence(gain, " on ", shown, words))
    return Tile("Accuracy", numbers.show(own, percent), notes)


def _loyalty(run: Run) -> Tile | None:
    numbers, near = run.numbers, ("pairs", f"{STUDENT}|{ENSEMBLE}", "test")
    if numbers.at(*near, "agreement") is None:
        return None
    notes: list[Cell] = []
    other = ("pairs", f"{ALONE}|{ENSEMBLE}", "test", "agreement")
    if numbers.at(*other) is not None:
        notes.append(sentence("without teachers ", numbers.show(other, percent)))
    ece = ("predictors", STUDENT, "test", "ece")
    if numbers.at(*ece) is not None:
        notes.append(sentence("calibration error ", numbers.show(ece, decimals)))
    return Tile("Agreement with ensemble", numbers.show((*near, "agreement"), percent), notes)


def _size(run: Run) -> Tile | None:
    return _cost(run, "Parameters", ("parameters",), size, "", ("smaller", "larger"))


def _speed(run: Run) -> Tile | None:
    words = ("faster", "slower")
    return _cost(run, "Time for one sample", ("latency", "p50"), duration, " ms", words)


def _cost(
    run: Run,
    title: str,
    key: tuple[str, ...],
    form: Callable[[float], str],
    unit: str,
    words: tuple[str, str],
) -> Tile | None:
    """A cost of the student, and how many times that of the ensemble is larger."""
    numbers = run.numbers
    own, other = (numbers.at("predictors", name, *key) for name in (STUDENT, ENSEMBLE))
    if own is None:
        return None
    value = sentence(numbers.show(("predictors", STUDENT, *key), form), unit)
    if not own or not other:
        return Tile(title, value, [])
    ratio, word = (other / own, words[0]) if other >= own else (own / other, words[1])
    whole = numbers.show(("predictors", ENSEMBLE, *key), form)
    several = element("b", {}, f"{times(ratio)} times")
    return Tile(title, value, [sentence(several, f" {word}"), sentence("ensemble ", whole, unit)])


def _glance(run: Run) -> Markup:
    """The accuracies of the ensemble, the student and its control, one above the other."""
    bars = []
    for name, label in ((ENSEMBLE, "ensemble"), (STUDENT, "student"), (ALONE, "no teacher")):
        key = ("predictors", name, "test", "accuracy")
        accuracy, n = run.numbers.at(*key), run.numbers.at("predictors", name, "test", "n")
        if accuracy is None or not n:
            continue
        style = role(name)
        mark = Mark(accuracy, style, hollow=style == "control")
        bars.append(Bar(label, [mark], wilson(accuracy, n), percent(accuracy), style, style))
    if len(bars) < 2:
        return Markup()
    return row_chart(
        Drawing("glance", "Test accuracy", "; ".join(f"{bar.label} {bar.note}" for bar in bars)),
        bars,
        percent_tick,
        "test accuracy, with 95% intervals over samples",
        bounds=(0.0, 1.0),
        width=480,
    )


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share (Journal of the American Statistical Association, 1927).

    Args:
        share: that was found.
        n: among how many, >= 1.
    """
    square = SURE**2 / n
    middle = (share + square / 2) / (1 + square)
    half = SURE * math.sqrt(share * (1 - share) / n + square / (4 * n)) / (1 + square)
    return max(middle - half, 0.0), min(middle + half, 1.0)
