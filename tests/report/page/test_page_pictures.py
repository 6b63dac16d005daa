"""What pictures are drawn from, against references written out or taken from elsewhere."""

from __future__ import annotations

import itertools
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import confusion_matrix
from torchmetrics.functional.classification import multiclass_calibration_error

from ensemble_kd.predictions import Predictions
from ensemble_kd.report.page.controls import paired
from ensemble_kd.report.page.mistakes import (
    BINS,
    confusion_counts,
    most_different,
    reliability_bins,
)
from ensemble_kd.report.page.verdict import wilson
from ensemble_kd.report.svg import Drawing, Line, Mark, Node, Row, Spot, line_chart, row_chart
from ensemble_kd.report.svg.element import element, fitted, readable, text_width
from ensemble_kd.report.svg.frame import compact, plain
from ensemble_kd.report.svg.graph import layered
from ensemble_kd.report.svg.lines import MOST, Axes
from ensemble_kd.report.svg.scale import Scale, log_window, window
from ensemble_kd.report.svg.scatter import pareto_front
from ensemble_kd.types import UNLABELLED


@pytest.fixture
def said() -> Predictions:
    """Two networks on 400 samples of 6 classes, a few of them without a label."""
    draw = torch.Generator().manual_seed(7)
    target = torch.randint(6, (400,), generator=draw)
    hot = torch.nn.functional.one_hot(target, 6)
    logits = {
        name: 2 * hot + 1.5 * torch.randn(400, 6, generator=draw)
        for name in ("student", "ensemble", "control/no_teacher")
    }
    target[::17] = UNLABELLED
    return Predictions(tuple("abcdef"), torch.arange(400), target, logits)


def test_bins_give_the_calibration_error(said: Predictions) -> None:
    known = said.target >= 0
    bins = reliability_bins(said, "student")
    expected = multiclass_calibration_error(
        said.logits["student"][known].softmax(-1), said.target[known], 6, n_bins=BINS
    )
    found = sum(each.share * abs(each.confidence - each.accuracy) for each in bins)
    assert found == pytest.approx(float(expected), abs=1e-6)
    assert sum(each.share for each in bins) == pytest.approx(1)
    assert all(each.low <= each.confidence <= each.high for each in bins)


def test_a_network_that_is_quite_sure_is_in_the_last_bin() -> None:
    logits = {"student": torch.tensor([[200.0, 0.0], [0.0, 0.0]])}
    said = Predictions(("a", "b"), torch.arange(2), torch.zeros(2).long(), logits)
    bins = reliability_bins(said, "student")
    assert [(round(each.low * BINS), each.share) for each in bins] == [(7, 0.5), (14, 0.5)]


def test_confusion_counts_are_those_of_scikit_learn(said: Predictions) -> None:
    known = said.target >= 0
    named = said.logits["ensemble"][known].argmax(-1)
    expected = confusion_matrix(said.target[known], named, labels=range(6))
    assert np.array_equal(confusion_counts(said, "ensemble"), expected)


def test_of_many_classes_those_with_the_largest_differences_are_chosen() -> None:
    difference = np.zeros((8, 8), dtype=np.int64)
    difference[1, 5] = 4
    difference[6, 6] = -3
    difference[2, 0] = 1
    assert most_different(difference, 3) == [1, 5, 6]
    assert list(most_different(difference, 8)) == list(range(8))
    assert most_different(np.zeros((9, 9), dtype=np.int64), 8) == []


def test_a_paired_difference_has_the_error_of_a_mean(said: Predictions) -> None:
    known = said.target >= 0
    right = {
        name: (logits.argmax(-1) == said.target)[known].double().numpy()
        for name, logits in said.logits.items()
    }
    differences = right["student"] - right["control/no_teacher"]
    found = paired(said, "control/no_teacher")
    assert found is not None
    assert (found.won, found.lost) == ((differences > 0).sum(), (differences < 0).sum())
    assert found.error == pytest.approx(differences.std() / math.sqrt(len(differences)))
    assert paired(said, "control/other") is None


@pytest.mark.parametrize(("right", "n"), [(0, 5), (5, 5), (3, 7), (250, 270), (1, 1)])
def test_intervals_of_shares_are_those_of_wilson(right: int, n: int) -> None:
    expected = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert wilson(right / n, n) == pytest.approx((expected.low, expected.high), abs=2e-5)


def test_the_front_holds_what_no_other_point_beats() -> None:
    draw = np.random.default_rng(0)
    for count in range(1, 12):
        points_ = [(float(x), float(y)) for x, y in draw.integers(0, 6, (count, 2))]
        beaten = {
            (x, y)
            for (x, y), (u, v) in itertools.product(points_, repeat=2)
            if u <= x and v >= y and (u, v) != (x, y)
        }
        front = [points_[place] for place in pareto_front(points_)]
        assert set(front) == set(points_) - beaten
        assert front == sorted(set(front))


def test_networks_stand_behind_those_that_taught_them() -> None:
    nodes = [
        Node("student", "", "", ["assistant/0", "unknown"], last=True),
        Node("control", "", "", [], last=True),
        Node("teacher/0", "", "", []),
        Node("teacher/1", "", "", []),
        Node("assistant/0", "", "", ["teacher/0", "teacher/1"]),
        Node("itself", "", "", ["itself", "teacher/0"]),
    ]
    layers = [[node.name for node in layer] for layer in layered(nodes)]
    assert layers == [
        ["teacher/0", "teacher/1"],
        ["assistant/0", "itself"],
        ["student", "control"],
    ]


@pytest.mark.parametrize(
    ("low", "high", "log"),
    [
        (0.0, 1.0, False),
        (-3.2, 17.0, False),
        (0.91234, 0.91236, False),
        (5e5, 5e9, True),
        (0.07, 0.2, True),
    ],
)
def test_round_values_lie_on_their_axis(low: float, high: float, log: bool) -> None:
    scale = Scale(low, high, 10.0, 200.0, log)
    ticks = scale.ticks(6)
    assert 2 <= len(ticks) <= 8
    assert ticks == sorted(ticks)
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)
    assert (scale(low), scale(high)) == pytest.approx((10.0, 200.0))
    assert len({f"{tick:.10g}" for tick in ticks}) == len(ticks)


@pytest.mark.parametrize("values", [[0.5], [0.0, 1.0], [0.99, 1.0], [3.0, 3.0, 3.0]])
def test_limits_hold_all_values_and_keep_to_their_bounds(values: list[float]) -> None:
    low, high = window(values, least=0.1, bounds=(-0.02, 4.0))
    assert -0.02 <= low <= min(values) <= max(values) <= high <= 4.0
    assert high - low >= 0.1 - 1e-12
    low, high = log_window([value + 1 for value in values])
    assert 0 < low < min(values) + 1 <= max(values) + 1 < high


def test_elements_escape_all_that_is_no_markup() -> None:
    made = element("text", {"x": 1.23456, "class": '"><b>', "y": None}, "<i>&", element("b", {}))
    assert str(made) == '<text x="1.23" class="&#34;&gt;&lt;b&gt;">&lt;i&gt;&amp;<b></b></text>'
    assert readable("a\x00\ud800\u202e\nb") == "a\ufffd\ufffd\ufffd\nb"


def test_texts_are_cut_in_their_middle_to_the_room_there_is() -> None:
    assert fitted("teacher/0", 12, 500) == "teacher/0"
    cut = fitted("strategy=assistant, weighting=entropy", 12, 120)
    assert cut.startswith("strat")
    assert cut.endswith("ropy")
    assert "…" in cut
    assert text_width(cut, 12) <= 120
    assert text_width("字字", 10) == 20


def test_long_curves_are_thinned_and_keep_their_last_point() -> None:
    points_ = [(float(epoch), float(epoch % 7)) for epoch in range(10 * MOST + 3)]
    axes = Axes((0.0, points_[-1][0]), (0.0, 7.0), "epoch", plain, plain)
    drawn = line_chart(
        Drawing("a", "b", "c"), [Line("x", "student", points_)], axes, (680.0, 300.0), named=False
    )
    (told,) = re.findall(r'<path d="([^"]*)" class="line student"', str(drawn))
    places = re.findall(r"[ML]([\d.]+) ([\d.]+)", told)
    assert MOST // 2 < len(places) <= MOST + 1
    assert float(places[-1][0]) == pytest.approx(670.0)


def test_a_picture_says_what_it_shows_to_those_who_do_not_see_it() -> None:
    drawn = row_chart(
        Drawing("gains", "Gain <of> all", "one: +3"),
        [Row("one", [Mark(0.03, "student")], (0.01, 0.05), "+3.0")],
        plain,
        "points",
        zero=0.0,
    )
    root = ElementTree.fromstring(str(drawn))  # well-formed, too
    assert root.attrib["role"] == "img"
    named = {each.attrib["id"]: each.text for each in root if "id" in each.attrib}
    assert root.attrib["aria-labelledby"].split() == list(named)
    assert list(named.values()) == ["Gain <of> all", "one: +3"]


def test_areas_of_spots_are_in_proportion_to_sizes() -> None:
    from ensemble_kd.report.svg.scatter import LARGEST, SMALLEST, scatter_chart

    spots = [
        Spot("a", "", 1.0, 0.5, 400.0),
        Spot("b", "", 2.0, 0.6, 100.0),
        Spot("c", "", 3.0, 0.7, 1e-6),
    ]
    drawn = scatter_chart(Drawing("a", "b", "c"), spots, "ms", compact)
    radii = [float(radius) for radius in re.findall(r'r="([\d.]+)" class="spot', str(drawn))]
    assert radii == [LARGEST, LARGEST / 2, SMALLEST]
