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

import ensemble_kd
from ensemble_kd.errors import UserError
from ensemble_kd.evaluation import Measured, Nearness, Scores
from ensemble_kd.report import (
    Results,
    Trained,
    compile_results,
    read_results,
    verdict,
    versions,
    write_results,
)

# The contract as a shape: types stand for values, NAME for any predictor.
SCORES = {"accuracy": float, "nll": float, "ece": float, "n": int}
STAGE = {
    "name": str,
    "digest": str,
    "reused": bool,
    "epochs": int,
    "seconds": float,
    "parameters": int,
}


def expect(found: dict[str, Any], shape: dict[str, type]) -> None:
    assert {key: type(found[key]) for key in shape} == shape


def test_written_file_keeps_the_contract(results: Results, tmp_path: Path) -> None:
    write_results(results, tmp_path / "run" / "results.json")
    found = json.loads((tmp_path / "run" / "results.json").read_text())
    assert found["schema"] == 1
    expect(found, {"seed": int, "strategy": str, "data": dict, "versions": dict, "stages": list})
    assert set(found["predictors"]) == {
        "student",
        "control",
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
    expect(found["pairs"]["student|ensemble"]["test"], {"agreement": float, "kl": float})
    expect(found["stages"][0], STAGE)


def test_numbers_land_where_they_belong(results: Results) -> None:
    student = results["predictors"]["student"]
    assert student["test"] == {
        "accuracy": 0.936,
        "nll": pytest.approx(0.064),
        "ece": pytest.approx(0.032),
        "n": 360,
    }
    assert student["val"]["accuracy"] == pytest.approx(0.926)
    assert student["parameters"] == 690
    assert student["milliseconds_per_1000"] == 1.5
    assert results["predictors"]["teacher/2"]["milliseconds_per_1000"] is None
    assert dict(results["pairs"]["student|ensemble"]["test"]) == {
        "agreement": pytest.approx(0.836),
        "kl": pytest.approx(0.064),
    }
    assert results["stages"] == [
        {
            "name": "teacher/0",
            "digest": "ab12",
            "reused": True,
            "epochs": 60,
            "seconds": 0.0,
            "parameters": 10410,
        }
    ]


def test_what_is_not_finite_becomes_null(tmp_path: Path) -> None:
    nothing = Measured(
        {"student": Scores(math.nan, math.nan, math.nan, 0), "ensemble": Scores(0.5, 1.0, 0.1, 4)},
        {("student", "ensemble"): Nearness(0.5, math.inf)},
    )
    found = compile_results(
        seed=0,
        strategy="parallel",
        data={"scale": math.nan, "shape": (1, math.inf)},
        val=nothing,
        test=nothing,
        parameters={"student": 1, "ensemble": 2},
        stages=[],
    )
    write_results(found, tmp_path / "results.json")

    def refuse(literal: str) -> None:
        raise AssertionError(f"{literal} is no JSON")

    read = json.loads((tmp_path / "results.json").read_text(), parse_constant=refuse)
    assert read["predictors"]["student"]["test"] == {
        "accuracy": None,
        "nll": None,
        "ece": None,
        "n": 0,
    }
    assert read["pairs"]["student|ensemble"]["test"] == {"agreement": 0.5, "kl": None}
    assert read["data"] == {"scale": None, "shape": [1, None]}


@pytest.mark.parametrize("gap", ["val", "parameters"])
def test_refuses_a_predictor_without_val_scores_or_size(gap: str) -> None:
    both = Measured({"student": Scores(0.5, 1.0, 0.1, 4)}, {})
    with pytest.raises(ValueError, match=f"{gap} must cover every predictor"):
        compile_results(
            seed=0,
            strategy="parallel",
            data={},
            val=Measured({}, {}) if gap == "val" else both,
            test=both,
            parameters={} if gap == "parameters" else {"student": 1},
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
    said = verdict(make_results({"student": student, "control": control, "ensemble": 0.95}))
    assert said.startswith(expected)
    assert said.endswith("on 360 test samples (one seed: not a significance test)")
    assert "\n" not in said


def test_verdict_calls_less_than_two_standard_errors_unclear(
    make_results: Callable[..., Results],
) -> None:
    error = math.sqrt((0.9 * 0.1 + 0.88 * 0.12) / 360)
    for gain, word in [(1.6 * error, "no clear difference"), (2.4 * error, "helped")]:
        assert word in verdict(make_results({"student": 0.88 + gain, "control": 0.88}))


def test_no_verdict_without_a_control(make_results: Callable[..., Results]) -> None:
    assert "control=true" in verdict(make_results({"student": 0.9}))


def test_reads_what_it_wrote(results: Results, tmp_path: Path) -> None:
    write_results(results, tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == results


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read"),
        ("", "expected the JSON of a run"),
        ('{"schema": 1, "seed"', "expected the JSON of a run"),
        ("[]", "expected schema 1"),
        ('{"schema": 2}', "expected schema 1, got 2"),
        ('{"schema": 1, "seed": 0}', "expected the key 'data'"),
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
