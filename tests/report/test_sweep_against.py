"""Settings against controls and against each other."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble_kd.errors import UserError
from ensemble_kd.report import Results
from ensemble_kd.report.sweep import Asked, read_jobs, summarise
from ensemble_kd.statistics import Scale, compare_each, holm, judge, sign_flip

MakeJob = Callable[..., Path]
MakeResults = Callable[..., Results]

NONE, RANDOM = "control/no_teacher", "control/random_teacher"
GAINS = {
    "kd": [0.012, 0.015, 0.011, 0.018, 0.014, 0.016, 0.013],
    "dkd": [0.001, -0.002, 0.0015, -0.001, 0.0005, 0.002, -0.001],
    "dist": [0.03, -0.02, 0.025, -0.01, 0.02, -0.015, 0.01],
}


def base(seed: int) -> float:
    return 0.8 + 0.01 * (seed % 4)


@pytest.fixture
def sweep(make_job: MakeJob, make_results: MakeResults) -> Path:
    """Three objectives by seven seeds; a control with a random teacher, which one job lacks."""
    number, folder = 0, Path()
    for seed in range(7):
        for objective, gains in GAINS.items():
            accuracies = {
                "student": base(seed) + gains[seed],
                NONE: base(seed),
                RANDOM: base(seed) - 0.02,
                "control/single_teacher/0": base(seed) + 0.004,
                "control/single_teacher/1": base(seed) + 0.002 * (seed - 3),
                "ensemble": 0.95,
            }
            if (objective, seed) == ("dist", 3):
                del accuracies[RANDOM]
            results = make_results(accuracies, seed)
            folder = make_job(str(number), [f"objective={objective}", f"seed={seed}"], results)
            number += 1
    return folder


def group(summary: Any, objective: str) -> Any:
    return next(g for g in summary["groups"] if g["settings"]["objective"] == objective)


def test_settings_are_judged_against_the_control_of_the_same_run(sweep: Path) -> None:
    summary = summarise(read_jobs(sweep))
    assert summary["reference"] == NONE
    assert summary["margin"] == 0.005
    gains = {
        name: [base(seed) + gain - base(seed) for seed, gain in enumerate(own)]
        for name, own in GAINS.items()
    }
    expected = judge(compare_each(gains, 0.005), NONE, Scale("points of accuracy", 100.0, 1))
    for name, judged in expected.items():
        entry = group(summary, name)["against"][NONE]
        assert entry["n"] == 7
        assert entry["family"] == 3
        for key in ("mean", "std", "low", "high", "effect_size", "p", "p_below", "exact"):
            assert entry[key] == getattr(judged.found, key)
        assert entry["p_holm"] == judged.p_holm
        assert entry["p_below_holm"] == judged.p_below_holm
        assert entry["verdict"] == judged.verdict
        assert entry["sentence"] == judged.sentence
    verdicts = [each["against"][NONE]["verdict"] for each in summary["groups"]]
    assert verdicts == ["HELPS", "DOES NOT HELP", "INCONCLUSIVE"]


def test_controls_that_only_some_jobs_have_are_left_out(sweep: Path) -> None:
    summary = summarise(read_jobs(sweep))
    singles = ["control/single_teacher/0", "control/single_teacher/1"]
    assert list(group(summary, "kd")["against"]) == [NONE, RANDOM, *singles]
    assert list(group(summary, "dist")["against"]) == [NONE, *singles]
    assert group(summary, "kd")["against"][RANDOM]["family"] == 2
    assert group(summary, "kd")["against"][NONE]["family"] == 3


@pytest.mark.parametrize("against", [RANDOM, "ensemble"])
def test_against_any_predictor_of_the_runs(sweep: Path, against: str) -> None:
    summary = summarise(read_jobs(sweep), Asked(against=against))
    assert summary["reference"] == against
    found = group(summary, "kd")
    assert next(iter(found["against"])) == against
    assert NONE in found["against"]
    other = np.array([0.95 if against == "ensemble" else base(seed) - 0.02 for seed in range(7)])
    students = np.array([base(seed) + gain for seed, gain in enumerate(GAINS["kd"])])
    assert found["against"][against]["mean"] == pytest.approx(float((students - other).mean()))
    assert found["gain"]["test"]["mean"] == pytest.approx(float((students - other).mean()))
    assert f" {against} on 7 seeds" in found["against"][against]["sentence"]
    assert summary["jobs"][0]["gain"][against]["test"] == pytest.approx(students[0] - other[0])


def test_of_metrics_that_should_be_low_less_is_a_gain(sweep: Path) -> None:
    summary = summarise(read_jobs(sweep), Asked(metric="nll", margin=0.004))
    assert summary["metric"]["name"] == "nll"
    assert not summary["metric"]["higher_is_better"]
    assert summary["margin"] == 0.004
    found = group(summary, "kd")
    # Made from the accuracy: nll = 1 - accuracy.
    assert found["against"][NONE]["mean"] == pytest.approx(np.mean(GAINS["kd"]))
    assert found["against"][NONE]["verdict"] == "HELPS"
    assert "+0.014 nats of NLL over" in found["against"][NONE]["sentence"]
    assert found["student"]["test"]["mean"] == pytest.approx(
        1 - np.mean([base(seed) + gain for seed, gain in enumerate(GAINS["kd"])])
    )


def test_the_single_teacher_that_is_best_on_validation(sweep: Path, make_job: MakeJob) -> None:
    jobs = read_jobs(sweep)
    for job in jobs:  # on validation the second is always the better one
        assert job.results is not None
        job.results["predictors"]["control/single_teacher/1"]["val"]["accuracy"] = 0.99
    for job in jobs[-3:]:  # but in the last runs, where it is not known
        assert job.results is not None
        job.results["predictors"]["control/single_teacher/1"]["val"]["accuracy"] = None
    found = group(summarise(jobs), "kd")["singles"]["test"]
    first = [base(seed) + 0.004 for seed in range(7)]
    second = [base(seed) + 0.002 * (seed - 3) for seed in range(7)]
    assert found["mean"]["mean"] == pytest.approx(np.mean([first, second]))
    assert found["best"]["mean"] == pytest.approx(np.mean([*second[:6], first[6]]))


def test_every_two_settings_are_compared_by_common_seeds(
    sweep: Path, make_job: MakeJob, make_results: MakeResults
) -> None:
    make_job("99", ["objective=kd", "seed=99"], make_results({"student": 0.1}, 99))
    between = summarise(read_jobs(sweep))["between"]
    assert between is not None
    assert [(e["one"], e["other"]) for e in between] == [
        ("objective=kd", "objective=dkd"),
        ("objective=kd", "objective=dist"),
        ("objective=dkd", "objective=dist"),
    ]
    students = {
        name: np.array([base(seed) + gain for seed, gain in enumerate(own)])
        for name, own in GAINS.items()
    }
    differences = [
        students[one] - students[other]
        for one, other in (("kd", "dkd"), ("kd", "dist"), ("dkd", "dist"))
    ]
    assert [e["n"] for e in between] == [7, 7, 7]
    assert [e["mean"] for e in between] == pytest.approx([d.mean() for d in differences])
    p_values = [float(sign_flip(difference)) for difference in differences]
    assert [e["p"] for e in between] == p_values
    assert [e["p_holm"] for e in between] == holm(p_values).tolist()
    assert [e["better"] for e in between] == ["objective=kd", None, None]


def test_settings_without_a_common_seed_are_not_compared(
    make_job: MakeJob, make_results: MakeResults
) -> None:
    make_job("0", ["objective=kd", "seed=0"], make_results(seed=0))
    folder = make_job("1", ["objective=dkd", "seed=1"], make_results(seed=1))
    assert summarise(read_jobs(folder))["between"] == []


def test_values_that_are_not_defined_count_nowhere(sweep: Path) -> None:
    jobs = read_jobs(sweep)
    assert jobs[0].results is not None
    jobs[0].results["predictors"][NONE]["test"]["accuracy"] = None
    found = group(summarise(jobs), "kd")
    assert found["n"] == 7
    assert found["against"][NONE]["n"] == 6
    assert found["student"]["test"]["n"] == 7


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Asked(metric="acuracy"), "metric: there is no 'acuracy'; did you mean 'accuracy'"),
        (Asked(metric="span_f1"), "metric: no job of the sweep has span_f1"),
        (Asked(against="control/none"), "against: no job has the predictor 'control/none'; did"),
        (Asked(against="student"), "against: no job has the predictor 'student'"),
        (Asked(margin=0.0), "margin: expected a number above 0, got 0"),
        (Asked(margin=math.nan), "margin: expected a number above 0, got nan"),
        (Asked(margin=math.inf), "margin: expected a number above 0, got inf"),
    ],
)
def test_what_is_not_there_cannot_be_asked_for(sweep: Path, asked: Asked, message: str) -> None:
    with pytest.raises(UserError) as caught:
        summarise(read_jobs(sweep), asked)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
