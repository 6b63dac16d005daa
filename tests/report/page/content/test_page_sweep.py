"""The page of a sweep: verdicts and numbers of ``sweep.json``, and links to its runs."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ensemble_kd.errors import UserError
from ensemble_kd.report.page import PAGE, write_sweep_page

MakeSweep = Callable[..., Path]
Change = Callable[[dict[str, Any]], None]
SECTIONS = {
    "settings",
    "against",
    "singles",
    "pareto",
    "churn",
    "between",
    "jobs",
    "missing",
}
SCRIPT = "<script>alert(1)</script>"


def test_a_whole_sweep_has_all_sections(make_sweep: MakeSweep, read_page: Any) -> None:
    folder = make_sweep()
    path = write_sweep_page(folder)
    assert path == folder / PAGE
    page = read_page(path)
    assert set(page.sections) == SECTIONS
    assert "1 of 3 settings help" in page.text
    page.check_tables()


def test_every_number_is_that_of_the_sweep(make_sweep: MakeSweep, read_page: Any) -> None:
    folder = make_sweep()
    page = read_page(write_sweep_page(folder))
    content = json.loads((folder / "sweep.json").read_text())
    points = ("mean", "std", "low", "high", "no_teacher.test")
    page.check_numbers(content, points)
    keys = {key for key, _, _ in page.figures}
    for group in range(3):
        assert f"groups.{group}.student.test.mean" in keys
        for what in ("mean", "std", "low", "high", "effect_size", "p_holm"):
            assert f"groups.{group}.against.control/no_teacher.{what}" in keys
        assert f"groups.{group}.against.control/pseudo_label.mean" in keys
        assert f"groups.{group}.churn.student.mean" in keys
        assert f"between.{group}.mean" in keys
    for job in range(18):
        assert f"jobs.{job}.student.test" in keys
        assert f"jobs.{job}.gain.control/no_teacher.test" in keys


@pytest.mark.parametrize(("effect", "written"), [(0.687, "+0.69"), (-1.2, "\N{MINUS SIGN}1.20")])
def test_an_effect_is_rounded_and_signed(
    make_sweep: MakeSweep, read_page: Any, effect: float, written: str
) -> None:
    folder = make_sweep()
    content = json.loads((folder / "sweep.json").read_text())
    content["groups"][0]["against"]["control/no_teacher"]["effect_size"] = effect
    (folder / "sweep.json").write_text(json.dumps(content))
    page = read_page(write_sweep_page(folder))
    key = "groups.0.against.control/no_teacher.effect_size"
    assert [text for own, _, text in page.figures if own == key] == [written]


def test_a_verdict_stands_in_words_and_not_in_colour_alone(
    make_sweep: MakeSweep, read_page: Any
) -> None:
    page = read_page(write_sweep_page(make_sweep()))
    called = [given["class"] for _, given in page.tags if "called" in str(given.get("class"))]
    assert called[:3] == ["called good", "called bad", "called open"]
    for verdict in ("HELPS", "DOES NOT HELP", "INCONCLUSIVE"):
        assert verdict in page.text


def test_runs_with_a_page_of_their_own_are_linked_from_where_the_page_lies(
    make_sweep: MakeSweep, read_page: Any
) -> None:
    page = read_page(write_sweep_page(make_sweep()))
    links = [str(given["href"]) for tag, given in page.tags if tag == "a"]
    assert [link for link in links if not link.startswith("#")] == ["0%20%26%20co/report.html"]


def test_the_same_bytes_each_time_and_wherever_the_sweep_lies(
    make_sweep: MakeSweep, tmp_path: Path
) -> None:
    folder = make_sweep()
    first = write_sweep_page(folder).read_bytes()
    assert write_sweep_page(folder).read_bytes() == first
    moved = shutil.copytree(folder, tmp_path / "else" / "where")
    assert write_sweep_page(moved).read_bytes() == first


def test_nothing_from_the_files_is_taken_for_markup(make_sweep: MakeSweep, read_page: Any) -> None:
    def change(summary: dict[str, Any]) -> None:
        summary["jobs"][3]["folder"] = "javascript:alert(1)"
        summary["metric"]["unit"] = SCRIPT
        summary["groups"][0]["against"]["control/<i>x</i>"] = summary["groups"][0]["against"][
            "control/pseudo_label"
        ]

    folder = make_sweep(change)
    (folder / "javascript:alert(1)").mkdir()
    (folder / "javascript:alert(1)" / "report.html").write_text("a page")
    page = read_page(write_sweep_page(folder))
    assert not {tag for tag, _ in page.tags} & {"script", "i", "b"}
    assert not [name for _, given in page.tags for name in given if name.startswith("on")]
    links = [str(given["href"]) for tag, given in page.tags if tag == "a"]
    assert "javascript%3Aalert%281%29/report.html" in links
    assert not any(link.startswith("javascript:") for link in links)
    assert page.text.count(SCRIPT) > 5


def no_reference(summary: dict[str, Any]) -> None:
    """A sweep without controls."""
    summary["reference"] = None
    for group in summary["groups"]:
        group.update(against={}, singles=None, churn={"student": group["churn"]["student"]})
        group["gain"] = {split: {"mean": None, "std": None, "n": 0} for split in ("val", "test")}
    for job in summary["jobs"]:
        job["gain"] = {}


def one_seed(summary: dict[str, Any]) -> None:
    """One job for each setting."""
    summary["jobs"] = summary["jobs"][::6]
    for group in summary["groups"]:
        group.update(n=1, seeds=[0], churn=dict.fromkeys(group["churn"]))
        for found in group["against"].values():
            found.update(dict.fromkeys(("std", "low", "high", "effect_size")), n=1)
        for found in (group["student"]["test"], group["gain"]["test"]):
            found.update(std=None, n=1)


def unlabelled(summary: dict[str, Any]) -> None:
    """A test split without labels."""
    no_reference(summary)
    for group in summary["groups"]:
        group["student"]["test"] = {"mean": None, "std": None, "n": 0}
        group["predictors"]["student"]["test"]["accuracy"]["mean"] = None
    for job in summary["jobs"]:
        job["student"]["test"] = None


def some_without_control(summary: dict[str, Any]) -> None:
    """One setting whose runs have no control."""
    summary["groups"][1]["against"] = {}
    summary["between"] = None


def nothing_missing(summary: dict[str, Any]) -> None:
    """All jobs did well."""
    summary.update(missing=[], between=[])


def all_missing(summary: dict[str, Any]) -> None:
    """No job did."""
    summary.update(groups=[], jobs=[], between=[], reference=None)


@pytest.mark.parametrize(
    ("change", "gone", "word"),
    [
        (no_reference, {"against", "singles"}, "No verdict"),
        (one_seed, {"churn"}, "1 of 3 settings help"),
        (unlabelled, {"against", "singles", "pareto"}, "No verdict"),
        (some_without_control, {"between"}, "1 of 2 settings help"),
        (nothing_missing, {"missing", "between"}, "1 of 3 settings help"),
        (all_missing, SECTIONS - {"missing"}, "No verdict"),
    ],
)
def test_what_is_not_there_is_left_out(
    make_sweep: MakeSweep, read_page: Any, change: Change, gone: set[str], word: str
) -> None:
    page = read_page(write_sweep_page(make_sweep(change)))
    assert set(page.sections) == SECTIONS - gone
    assert word in page.text
    assert "None" not in page.text
    page.check_tables()


def test_runs_that_were_cleared_away_cost_the_page_only_what_they_held(
    make_sweep: MakeSweep, read_page: Any
) -> None:
    folder = make_sweep()
    for path in folder.glob("*/"):
        shutil.rmtree(path)
    page = read_page(write_sweep_page(folder))
    assert set(page.sections) == SECTIONS - {"pareto"}


@pytest.mark.parametrize(
    ("verdicts", "word", "tone"),
    [
        (["HELPS"], "Distillation helps", "good"),
        (["DOES NOT HELP"], "Distillation does not help", "bad"),
        (["INCONCLUSIVE"], "It cannot be told yet whether distillation helps", "open"),
        (["DOES NOT HELP", "DOES NOT HELP"], "No setting is shown to help", "bad"),
        (["DOES NOT HELP", "INCONCLUSIVE"], "No setting is shown to help", "open"),
        (["HELPS", "HELPS", "INCONCLUSIVE"], "2 of 3 settings help", "good"),
    ],
)
def test_the_headline_counts_the_verdicts(
    make_sweep: MakeSweep, read_page: Any, verdicts: list[str], word: str, tone: str
) -> None:
    def change(summary: dict[str, Any]) -> None:
        summary["groups"] = summary["groups"][: len(verdicts)]
        labels = {group["label"] for group in summary["groups"]}
        summary["jobs"] = [job for job in summary["jobs"] if job["group"] in labels]
        summary["between"] = []
        for group, verdict in zip(summary["groups"], verdicts, strict=True):
            group["against"]["control/no_teacher"]["verdict"] = verdict

    page = read_page(write_sweep_page(make_sweep(change)))
    assert f"{word} " in " ".join(page.text.split())
    assert ("section", f"verdict {tone}") in [(tag, given.get("class")) for tag, given in page.tags]


def test_a_metric_in_its_own_unit_is_not_shown_in_percent(
    make_sweep: MakeSweep, read_page: Any
) -> None:
    def change(summary: dict[str, Any]) -> None:
        metric = {"name": "nll", "unit": "nats of NLL", "factor": 1.0, "digits": 3}
        summary["metric"] = {**metric, "higher_is_better": False}

    folder = make_sweep(change)
    page = read_page(write_sweep_page(folder))
    shown = {key: text for key, _, text in page.figures}
    assert shown["groups.0.student.test.mean"] == "0.944"
    assert shown["groups.0.against.control/no_teacher.mean"] == "+0.034"
    page.check_numbers(json.loads((folder / "sweep.json").read_text()), ())


def test_of_many_settings_those_best_on_validation_are_shown(
    make_sweep: MakeSweep, read_page: Any
) -> None:
    def change(summary: dict[str, Any]) -> None:
        first = summary["groups"][0]
        summary["groups"] = [copy.deepcopy(first) for _ in range(60)]
        for number, group in enumerate(summary["groups"]):
            group["label"] = f"setting={number}"
            group["student"]["val"]["mean"] = (number * 7 % 60) / 100
            group["student"]["test"]["mean"] = 1 - group["student"]["val"]["mean"]
        summary["between"] = None

    page = read_page(write_sweep_page(make_sweep(change)))
    shown = {key for key, _, _ in page.figures if key.endswith("student.test.mean")}
    best = {number for number in range(60) if number * 7 % 60 >= 20}
    assert shown == {f"groups.{number}.student.test.mean" for number in best}
    assert "20 more are in sweep.json" in page.text


def test_many_jobs_make_no_large_page(make_sweep: MakeSweep, read_page: Any) -> None:
    def change(summary: dict[str, Any]) -> None:
        summary["jobs"] = [copy.copy(summary["jobs"][0]) for _ in range(700)]
        for job in summary["jobs"]:
            job["group"] = "x" * 6000
        summary["missing"] = summary["missing"] * 700

    path = write_sweep_page(make_sweep(change))
    assert path.stat().st_size < 2_000_000
    assert "of 700" in read_page(path).text


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 1}', '{"schema": 2, "groups": []}'])
def test_something_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(UserError, match=re.escape("sweep.json: expected")):
        write_sweep_page(tmp_path)
    with pytest.raises(UserError, match=r"cannot read .*sweep\.json"):
        write_sweep_page(tmp_path / "none")
    assert not (tmp_path / PAGE).exists()
