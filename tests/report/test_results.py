"""``results.json``: its schema, its numbers and its verdict."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ensemble_kd
from ensemble_kd.costs import Cost
from ensemble_kd.errors import UserError
from ensemble_kd.evaluation import Measured
from ensemble_kd.predictions import Predictions
from ensemble_kd.report import (
    Results,
    Trained,
    compile_results,
    read_results,
    verdict,
    versions,
    write_results,
)
from ensemble_kd.robustness import Spoilt
from ensemble_kd.scorecard import Card, Teachers, Transfer
from ensemble_kd.scores import Nearness, Scores
from ensemble_kd.worth import Worth

# The contract as a shape: types stand for values, NAME for any predictor.
SCORES = {
    "accuracy": float,
    "macro_f1": float,
    "nll": float,
    "brier": float,
    "ece": float,
    "n": int,
    "recall": list,
}
STAGE = {
    "name": str,
    "digest": str,
    "reused": bool,
    "epochs": int,
    "seconds": float,
    "parameters": int,
    "teachers": list,
}
NOTHING = Predictions((), torch.zeros(0), torch.zeros(0), {})
FREE = Cost(1, 4, 1, 1.0, None)


def expect(found: dict[str, Any], shape: dict[str, type]) -> None:
    assert {key: type(found[key]) for key in shape} == shape


def test_written_file_keeps_the_contract(results: Results, tmp_path: Path) -> None:
    write_results(results, tmp_path / "run" / "results.json")
    found = json.loads((tmp_path / "run" / "results.json").read_text())
    assert found["schema"] == 2
    expect(found, {"seed": int, "strategy": str, "data": dict, "versions": dict, "stages": list})
    assert set(found["predictors"]) == {
        "student",
        "control/no_teacher",
        "ensemble",
        "teacher/0",
        "teacher/2",
        "teacher/10",
        "assistant/0",
    }
    for entry in found["predictors"].values():
        expect(entry, {"val": dict, "test": dict, "parameters": int})
        expect(entry["val"], SCORES)
        expect(entry["test"], SCORES)
    for split in ("val", "test"):
        near = found["pairs"]["student|ensemble"][split]
        expect(near, {"agreement": float, "kl": float, "probability_loyalty": float})
    expect(found["stages"][0], STAGE)


def test_numbers_land_where_they_belong(results: Results) -> None:
    student = results["predictors"]["student"]
    assert student["test"] == {
        "accuracy": 0.936,
        "macro_f1": pytest.approx(0.886),
        "nll": pytest.approx(0.064),
        "brier": pytest.approx(0.128),
        "ece": pytest.approx(0.032),
        "n": 360,
        "recall": [0.936, None],
    }
    assert student["val"]["accuracy"] == pytest.approx(0.926)
    assert student["parameters"] == 690
    assert student["bytes"] == 2760
    assert student["multiply_adds"] == 6900
    assert student["milliseconds_per_1000"] == 1.5
    assert student["latency"] == {"p50": 0.5, "p95": 0.75}
    untimed = results["predictors"]["teacher/2"]
    assert untimed["milliseconds_per_1000"] is None
    assert untimed["latency"] is None
    assert dict(results["pairs"]["student|ensemble"]["test"]) == {
        "agreement": pytest.approx(0.836),
        "kl": pytest.approx(0.064),
        "probability_loyalty": pytest.approx(0.936),
    }
    assert results["stages"][1] == {
        "name": "student",
        "digest": "cd34",
        "reused": False,
        "epochs": 60,
        "seconds": 2.5,
        "parameters": 690,
        "teachers": ["teacher/0"],
    }
    assert "teachers" not in results
    assert "worth" not in results


def test_what_lies_between_predictors_lands_where_it_belongs(tmp_path: Path) -> None:
    scores = {"student": Scores(0.5, 1.0, 0.1, 4)}
    val, test = (
        Card(
            Measured(scores, {}, NOTHING),
            Teachers(x, math.nan, x + 0.1, x + 0.2),
            {"student": Transfer(x, x + 0.3, 7, math.nan, 0)},
        )
        for x in (0.1, 0.2)
    )
    found = compile_results(
        seed=0,
        strategy="parallel",
        data={},
        val=val,
        test=test,
        costs={"student": FREE},
        stages=[],
        worth={"teacher/0": Worth(0.01, 0.001, 0.02, 0.002)},
        robustness=[Spoilt("noise", 3, 4, {"student": 0.25})],
    )
    write_results(found, tmp_path / "results.json")
    read = json.loads((tmp_path / "results.json").read_text())
    assert read["teachers"]["val"] == {
        "disagreement": 0.1,
        "q_statistic": None,
        "js_divergence": 0.2,
        "oracle_accuracy": pytest.approx(0.3),
    }
    assert read["teachers"]["test"]["disagreement"] == 0.2
    assert read["transfer"]["student"]["test"] == {
        "error_inheritance": 0.2,
        "positive": 0.5,
        "positive_n": 7,
        "negative": None,
        "negative_n": 0,
    }
    assert read["worth"]["teacher/0"] == {
        "leave_one_out": 0.01,
        "leave_one_out_error": 0.001,
        "shapley": 0.02,
        "shapley_error": 0.002,
    }
    assert read["robustness"] == [
        {"corruption": "noise", "severity": 3, "n": 4, "accuracy": {"student": 0.25}}
    ]


def test_what_is_not_finite_becomes_null(tmp_path: Path) -> None:
    nothing = Measured(
        {"student": Scores(math.nan, math.nan, math.nan, 0), "ensemble": Scores(0.5, 1.0, 0.1, 4)},
        {("student", "ensemble"): Nearness(0.5, math.inf)},
        NOTHING,
    )
    found = compile_results(
        seed=0,
        strategy="parallel",
        data={"scale": math.nan, "shape": (1, math.inf)},
        val=Card(nothing, None, {}),
        test=Card(nothing, None, {}),
        costs={"student": FREE, "ensemble": FREE},
        stages=[],
    )
    write_results(found, tmp_path / "results.json")

    def refuse(literal: str) -> None:
        raise AssertionError(f"{literal} is no JSON")

    read = json.loads((tmp_path / "results.json").read_text(), parse_constant=refuse)
    assert read["predictors"]["student"]["test"] == {
        "accuracy": None,
        "macro_f1": None,
        "nll": None,
        "brier": None,
        "ece": None,
        "n": 0,
        "recall": [],
    }
    assert read["pairs"]["student|ensemble"]["test"] == {
        "agreement": 0.5,
        "kl": None,
        "probability_loyalty": None,
    }
    assert read["data"] == {"scale": None, "shape": [1, None]}


@pytest.mark.parametrize("gap", ["val", "costs"])
def test_refuses_a_predictor_without_val_scores_or_cost(gap: str) -> None:
    both = Card(Measured({"student": Scores(0.5, 1.0, 0.1, 4)}, {}, NOTHING), None, {})
    with pytest.raises(ValueError, match=f"{gap} must cover every predictor"):
        compile_results(
            seed=0,
            strategy="parallel",
            data={},
            val=Card(Measured({}, {}, NOTHING), None, {}) if gap == "val" else both,
            test=both,
            costs={} if gap == "costs" else {"student": FREE},
            stages=[],
        )


def test_stage_fields_are_those_of_the_contract() -> None:
    assert Trained._fields == tuple(STAGE)


@pytest.mark.parametrize(
    ("student", "control", "expected"),
    [
        (0.947, 0.894, "distillation helped: +5.3 points over the same student without teachers"),
        (0.894, 0.947, "distillation hurt: -5.3 points against the same student"),
        (0.900, 0.897, "distillation made no clear difference: +0.3 points over"),
        (0.900, 0.900, "distillation made no difference: +0.0 points"),
    ],
)
def test_verdict(
    make_results: Callable[..., Results], student: float, control: float, expected: str
) -> None:
    said = verdict(
        make_results({"student": student, "control/no_teacher": control, "ensemble": 0.95})
    )
    assert said.startswith(expected)
    assert said.endswith("on 360 test samples (one seed: not a significance test)")
    assert "\n" not in said


def test_verdict_calls_less_than_two_standard_errors_unclear(
    make_results: Callable[..., Results],
) -> None:
    error = math.sqrt((0.9 * 0.1 + 0.88 * 0.12) / 360)
    for gain, word in [(1.6 * error, "no clear difference"), (2.4 * error, "helped")]:
        assert word in verdict(make_results({"student": 0.88 + gain, "control/no_teacher": 0.88}))


def test_verdict_counts_sequences_and_not_their_places(
    make_results: Callable[..., Results],
) -> None:
    results = make_results({"student": 0.90, "control/no_teacher": 0.85})
    assert verdict(results).startswith("distillation helped: +5.0 points")
    results["data"]["test"] = 40
    said = verdict(results)
    assert said.startswith("distillation made no clear difference: +5.0 points")
    assert "on 360 places in 40 test samples" in said


def test_no_verdict_without_a_control(make_results: Callable[..., Results]) -> None:
    assert "controls=[no_teacher]" in verdict(make_results({"student": 0.9}))


def test_reads_what_it_wrote(results: Results, tmp_path: Path) -> None:
    write_results(results, tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == results


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read"),
        ("", "expected the JSON of a run"),
        ('{"schema": 2, "seed"', "expected the JSON of a run"),
        ("[]", "expected schema 2"),
        ('{"schema": 1}', "expected schema 2, got 1, of an earlier version: run it again"),
        ('{"schema": 2, "seed": 0}', "expected the key 'data'"),
    ],
)
def test_reading_something_else_is_one_clear_line(
    tmp_path: Path, text: str | None, message: str
) -> None:
    path = tmp_path / "results.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_results(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_failed_write_leaves_the_old_file(results: Results, tmp_path: Path) -> None:
    path = tmp_path / "run" / "results.json"
    write_results(results, path)
    before = path.read_bytes()
    results["data"]["bad"] = object()
    with pytest.raises(TypeError):
        write_results(results, path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]


def test_a_write_that_fails_at_the_last_moment_leaves_nothing_behind(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    path = tmp_path / "run" / "results.json"
    with pytest.raises(UserError, match=r"cannot write .*: No space left on device"):
        write_results(results, path)
    assert list(path.parent.iterdir()) == []


def test_an_unwritable_place_is_one_clear_line(results: Results, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write .*results\.json"):
        write_results(results, tmp_path / "file" / "results.json")


def test_versions_name_what_is_installed_and_import_nothing() -> None:
    import torch

    found = versions()
    assert found["torch"] == torch.__version__
    assert {"python", "ensemble-kd", "pytorch-lightning", "hydra-core"} <= set(found)
    program = (
        "import sys\n"
        "from ensemble_kd.report import versions, print_results, curves_figure\n"
        "versions()\n"
        "heavy = {'torch', 'matplotlib', 'rich', 'pytorch_lightning'} & set(sys.modules)\n"
        "sys.exit(str(sorted(heavy)) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(ensemble_kd.__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
