"""The pictures: what is written in them, where labels stand, and that files are reproducible."""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from ensemble_kd.report import (
    Point,
    Results,
    curves_figure,
    predictors_figure,
    save_figure,
    write_plots,
)
from ensemble_kd.report.picture import Picture, shades
from ensemble_kd.report.placement import spread
from ensemble_kd.report.roles import in_order

TWO = ("teacher/2", "ensemble")


def curve_points(stages: int = 8, epochs: int = 60) -> list[Point]:
    """Teachers, assistants, the student with a peer, and its control."""
    names = [*(f"teacher/{i}" for i in range(3)), *(f"assistant/{i}" for i in range(stages - 5))]
    points = []
    for stage, epoch in itertools.product([*names, "control/no_teacher", "student"], range(epochs)):
        done = (epoch + 1) / epochs
        points += [
            Point(stage, epoch, "student/label", 2.3 * math.exp(-3 * done)),
            Point(stage, epoch, "student/val_accuracy", 0.9 - 0.5 * math.exp(-9 * done)),
        ]
        if stage == "student":
            points += [
                Point(stage, epoch, "student/soft", 1.5 * math.exp(-2 * done)),
                Point(stage, epoch, "peer/1/mutual", 0.8 * math.exp(-2 * done)),
                Point(stage, epoch, "peer/1/val_accuracy", 0.88),
            ]
    return points


def words(figure: Picture) -> list[str]:
    """Everything that is written in a figure and seen."""
    figure.png()
    texts = (found for found in figure.findobj(Text) if isinstance(found, Text))
    return [text.get_text() for text in texts if text.get_visible() and text.get_text()]


def extents(figure: Picture, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Bbox]]:
    """The rectangles, in pixels, of the texts that are wanted."""
    figure.png()
    for text in figure.findobj(Text):
        if isinstance(text, Text) and wanted(text.get_text()):
            yield text.get_text(), Text.get_window_extent(text)


def overlaps(boxes: list[tuple[str, Bbox]]) -> list[tuple[str, str]]:
    """Pairs of texts that cover each other by more than a pixel."""
    return [
        (a, b)
        for (a, one), (b, other) in itertools.combinations(boxes, 2)
        if min(one.x1, other.x1) - max(one.x0, other.x0) > 1
        and min(one.y1, other.y1) - max(one.y0, other.y0) > 1
    ]


def panel(figure: Picture, title: str) -> Axes:
    return next(axes for axes in figure.axes if axes.get_title(loc="left") == title)


def test_curves_name_every_learner_and_every_term() -> None:
    said = words(curves_figure(curve_points()))
    for learner in ("teacher/0", "assistant/2", "control/no_teacher", "student", "peer/1"):
        assert learner in said  # the title of its loss panel
        assert any(text.startswith(f"{learner}  ") for text in said)  # the end of its curve
    assert {"label", "soft", "mutual"} <= set(said)


def test_curves_draw_the_logged_values() -> None:
    points = curve_points()
    figure = curves_figure(points)
    lines = {line.get_color(): line for line in panel(figure, "student").lines}
    assert len(lines) == 2
    soft = [point.value for point in points if point.name == "student/soft"]
    assert any(np.asarray(line.get_ydata()).tolist() == soft for line in lines.values())
    accuracies = [
        100 * p.value
        for p in points
        if p[0] == "control/no_teacher" and p.name == "student/val_accuracy"
    ]
    drawn = [np.asarray(line.get_ydata()).tolist() for line in figure.axes[0].lines]
    assert accuracies in drawn


def test_curves_show_the_last_accuracy_of_each_learner() -> None:
    points = [
        Point("student", epoch, "student/val_accuracy", value)
        for epoch, value in enumerate([0.2, 0.75])
    ]
    assert "student  75.0" in words(curves_figure(points))


def test_labels_of_curves_that_end_at_the_same_height_do_not_overlap() -> None:
    figure = curves_figure(curve_points())
    boxes = list(extents(figure, lambda text: "  " in text))
    assert len(boxes) == 9
    assert overlaps(boxes) == []
    assert all(box.x1 < figure.bbox.x1 for _, box in boxes)


@pytest.mark.parametrize(
    "points",
    [
        [],
        [Point("student", 0, "student/label", 2.0)],
        [Point("student", 0, "student/val_accuracy", 0.5)],
        [Point("student", epoch, "student/label", math.nan) for epoch in range(3)],
        [Point("student", epoch, "student/adversarial", -1.0) for epoch in range(3)],
        curve_points(stages=6, epochs=1),
    ],
    ids=["none", "loss", "accuracy", "nan", "negative", "one epoch"],
)
def test_curves_of_little_are_drawn_too(points: list[Point]) -> None:
    assert len(curves_figure(points).png()) > 1000


def test_predictors_are_all_labelled_with_their_accuracy(results: Results) -> None:
    said = words(predictors_figure(results))
    for name, entry in results["predictors"].items():
        accuracy = entry["test"]["accuracy"]
        assert accuracy is not None
        assert f"{name}  {100 * accuracy:.1f}" in said
    assert any("n = 360" in text for text in said)


def test_predictors_stand_at_their_size_and_accuracy(results: Results) -> None:
    axes = predictors_figure(results).axes[0]
    assert axes.get_xscale() == "log"
    offsets = [np.asarray(drawn.get_offsets()) for drawn in axes.collections]
    spots = {tuple(row) for rows in offsets if rows.shape == (1, 2) for row in rows.round(6)}
    expected = {
        (entry["parameters"], round(100 * (entry["test"]["accuracy"] or 0.0), 6))
        for entry in results["predictors"].values()
    }
    assert expected <= spots


def test_labels_of_predictors_that_lie_on_each_other_do_not_overlap(
    make_results: Callable[..., Results],
) -> None:
    same = {f"teacher/{i}": 0.931 + 0.0005 * i for i in range(5)}
    figure = predictors_figure(
        make_results({**same, "ensemble": 0.933, "student": 0.93, "control/no_teacher": 0.93})
    )
    boxes = list(extents(figure, lambda text: "  " in text))
    assert len(boxes) == 8
    assert overlaps(boxes) == []
    frame = figure.bbox
    assert all(frame.x0 < box.x0 and box.x1 < frame.x1 for _, box in boxes)


def test_predictors_of_unknown_size_are_named_and_have_no_place(results: Results) -> None:
    known = set(words(predictors_figure(results)))
    for name in TWO:
        results["predictors"][name]["parameters"] = None
    said = words(predictors_figure(results))
    missing = [text for text in known if text.startswith(("teacher/2  ", "ensemble  "))]
    assert len(missing) == 2
    assert not set(missing) & set(said)
    accuracies = {n: 100 * (results["predictors"][n]["test"]["accuracy"] or 0) for n in TWO}
    listed = ", ".join(f"{name} {accuracies[name]:.1f}" for name in TWO)
    assert f"parameters  (of unknown size: {listed})" in said


def test_predictors_without_labels_are_drawn_too(results: Results) -> None:
    for entry in results["predictors"].values():
        entry["test"]["accuracy"] = None
    assert "no labels" in words(predictors_figure(results))


def test_files_are_whole_images_and_the_same_each_time(results: Results, tmp_path: Path) -> None:
    for folder in ("one", "other"):
        write_plots(results, curve_points(), tmp_path / folder / "plots")
    for name in ("curves.png", "predictors.png"):
        first = (tmp_path / "one" / "plots" / name).read_bytes()
        assert first == (tmp_path / "other" / "plots" / name).read_bytes()
        assert first[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", first[16:24])
        assert width >= 1000
        assert height >= 600


def test_a_notebook_shows_the_figure(results: Results, tmp_path: Path) -> None:
    figure = predictors_figure(results)
    save_figure(figure, tmp_path / "figure.png")
    assert figure._repr_png_() == (tmp_path / "figure.png").read_bytes()


def test_drawing_leaves_pyplot_alone(results: Results) -> None:
    import sys

    predictors_figure(results).png()
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


def test_roles_are_told_apart_by_colour_and_members_by_shade() -> None:
    colours = shades(
        ["student", "control/no_teacher", "ensemble", "teacher/0", "teacher/1", "peer/1"]
    )
    assert len(set(colours.values())) == 6
    assert colours["student"] == shades(["teacher/3", "student"])["student"].lower()


def test_names_are_ordered_by_role_and_number() -> None:
    names = ["student", "teacher/10", "control/no_teacher", "x", "teacher/2", "ensemble", "peer/1"]
    assert in_order(names) == [
        "teacher/2",
        "teacher/10",
        "ensemble",
        "peer/1",
        "x",
        "control/no_teacher",
        "student",
    ]


@given(st.lists(st.floats(0, 10), min_size=1, max_size=12), st.floats(0.01, 2))
def test_spread_keeps_order_gap_and_bounds(wanted: list[float], gap: float) -> None:
    places = spread(wanted, gap, 0.0, 10.0)
    fits = min(gap, 10.0 / max(len(wanted) - 1, 1))
    ordered = sorted(places)
    assert all(b - a >= fits - 1e-9 for a, b in itertools.pairwise(ordered))
    assert ordered[0] >= -1e-9
    assert ordered[-1] <= 10 + 1e-9
    pairs = sorted(zip(wanted, places, strict=True))
    assert all(p <= q for (a, p), (b, q) in itertools.pairwise(pairs) if a < b)


def test_spread_leaves_what_has_room_where_it_wants_to_be() -> None:
    assert spread([5.0, 1.0, 9.0], 1.0, 0.0, 10.0) == [5.0, 1.0, 9.0]
    assert spread([5.0, 5.0], 1.0, 0.0, 10.0) == [4.5, 5.5]
    assert spread([0.0, 0.1], 1.0, 0.0, 10.0) == [0.0, 1.0]
