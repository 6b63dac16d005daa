"""The page of a run: its numbers are those of its files, and nothing in it is taken for markup."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ensemble_kd.errors import UserError
from ensemble_kd.paths import conf_dir
from ensemble_kd.report.page import PAGE, write_run_page
from ensemble_kd.report.page.write import LARGEST
from ensemble_kd.report.samples import read_samples, write_samples

MakeRun = Callable[..., Path]
Change = Callable[[dict[str, Any]], None]
SECTIONS = {
    "lineage",
    "predictors",
    "controls",
    "curves",
    "pareto",
    "reliability",
    "confusion",
    "agreement",
    "transfer",
    "teachers",
    "robustness",
    "recall",
    "samples",
    "details",
}
SCRIPT = "<script>alert(1)</script>"


def test_a_whole_run_has_all_sections(run_folder: Path, read_page: Any) -> None:
    path = write_run_page(run_folder)
    assert path == run_folder / PAGE
    page = read_page(path)
    assert set(page.sections) == SECTIONS
    assert "Distillation helped" in page.text
    assert "220 times" in page.text  # 149,454 parameters and 678
    page.check_tables()


@pytest.mark.parametrize("best", [0, 1])
def test_the_best_single_teacher_is_chosen_on_validation(
    make_run: MakeRun, read_page: Any, best: int
) -> None:
    def changed(results: dict[str, Any]) -> None:
        for number in (0, 1):
            entry = results["predictors"][f"control/single_teacher/{number}"]
            entry["val"]["accuracy"] = 0.9 if number == best else 0.8
            entry["test"]["accuracy"] = 0.6 if number == best else 0.7

    page = read_page(write_run_page(make_run(changed)))
    assert f"the best of them on validation (control/single_teacher/{best}) 60.0%" in page.text


def test_what_a_control_is_stands_in_its_own_file(run_folder: Path, read_page: Any) -> None:
    text = read_page(write_run_page(run_folder)).text
    for path in sorted((conf_dir() / "control").glob("*.yaml")):
        if path.stem in text:
            comment = path.read_text().splitlines()[0].lstrip("# ").partition(":")[0]
            assert comment in text, path.stem


def test_every_number_is_that_of_the_results(run_folder: Path, read_page: Any) -> None:
    page = read_page(write_run_page(run_folder))
    results = json.loads((run_folder / "results.json").read_text())
    page.check_numbers(results, ("shapley", "leave_one_out", "_error", "agreement"))
    keys = {key for key, _, _ in page.figures}
    names = list(results["predictors"])
    for name in names:
        for score in ("accuracy", "macro_f1", "nll", "brier", "ece"):
            assert f"predictors.{name}.test.{score}" in keys
        for cost in ("parameters", "bytes", "multiply_adds", "milliseconds_per_1000"):
            assert f"predictors.{name}.{cost}" in keys
        assert {f"predictors.{name}.latency.p{k}" for k in (50, 95)} <= keys
        if name != "ensemble":
            assert f"pairs.{name}|ensemble.test.probability_loyalty" in keys
    assert {f"pairs.{pair}.test.agreement" for pair in results["pairs"]} <= keys
    for name in results["transfer"]:
        assert f"transfer.{name}.test.error_inheritance" in keys
    for name in results["worth"]:
        assert {f"worth.{name}.{kind}" for kind in results["worth"][name]} <= keys
    for name in ("student", "ensemble", "control/no_teacher"):
        assert {f"predictors.{name}.test.recall.{k}" for k in range(10)} <= keys
        assert {f"robustness.{k}.accuracy.{name}" for k in range(9)} <= keys
    assert {f"teachers.{split}.oracle_accuracy" for split in ("val", "test")} <= keys


def test_the_same_bytes_each_time_and_wherever_the_run_lies(
    run_folder: Path, tmp_path: Path
) -> None:
    first = write_run_page(run_folder).read_bytes()
    assert write_run_page(run_folder).read_bytes() == first
    moved = shutil.copytree(run_folder, tmp_path / "else" / "where")
    assert write_run_page(moved).read_bytes() == first
    assert str(tmp_path).encode() not in first


def test_nothing_from_the_files_is_taken_for_markup(make_run: MakeRun, read_page: Any) -> None:
    def change(results: dict[str, Any]) -> None:
        results["verdict"] = f"{SCRIPT}: <b>bold</b>"
        results["strategy"] = '"><svg onload=alert(4)>'
        results["versions"][SCRIPT] = SCRIPT
        results["robustness"][0]["corruption"] = SCRIPT
        results["stages"][0]["name"] = SCRIPT
        results["predictors"]["peer/<i>"] = results["predictors"]["student"]

    folder = make_run(change=change)
    parts = [SCRIPT, "a\x00\x1b[31m\u202e\x1fb"]
    samples = read_samples(folder / "samples.json")
    samples[0]["input"] = {"kind": "text", "parts": parts, "word": None}
    samples[1]["input"] = {"kind": "text", "parts": parts, "word": 0}
    samples[2]["input"] = {"kind": "image", "png": '"><script>', "width": 1, "height": 1}
    write_samples(samples, folder / "samples.json")
    page = read_page(write_run_page(folder))
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "iframe", "object", "i"}
    # Those of the verdict's own numbers.
    assert all(
        name is None or "bold" not in name for _, given in page.tags for name in given.values()
    )
    assert not [name for _, given in page.tags for name in given if name.startswith("on")]
    links = [given.get("href") or given.get("src") or "" for _, given in page.tags]
    assert all(link.startswith(("#", "data:")) for link in links if link)
    assert page.text.count(SCRIPT) > 10
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e]", page.text)


def without(*keys: str) -> Change:
    """Results without some keys."""

    def change(results: dict[str, Any]) -> None:
        for key in keys:
            results.pop(key)

    return change


def unlabelled(results: dict[str, Any]) -> None:
    """A test split that has no labels."""
    for entry in results["predictors"].values():
        for split in ("val", "test"):
            entry[split] = dict.fromkeys(entry[split]) | {"n": 0, "recall": []}
    results["verdict"] = "no verdict: the test split has no labels"


def unknown_costs(results: dict[str, Any]) -> None:
    """Networks of another library, or recorded answers."""
    for entry in results["predictors"].values():
        entry.update(dict.fromkeys(("parameters", "bytes", "multiply_adds", "latency")))
        entry["milliseconds_per_1000"] = None


def only(*kept: str) -> Change:
    """Results of a run with some predictors only."""

    def change(results: dict[str, Any]) -> None:
        for group in ("predictors", "transfer"):
            results[group] = {k: v for k, v in results[group].items() if k in kept}
        results["stages"] = [stage for stage in results["stages"] if stage["name"] in kept]
        pairs = results["pairs"].items()
        results["pairs"] = {k: v for k, v in pairs if set(k.split("|")) <= set(kept)}
        for entry in results["robustness"]:
            entry["accuracy"] = {k: v for k, v in entry["accuracy"].items() if k in kept}

    return change


def emptied(results: dict[str, Any]) -> None:
    """Nothing but what every file has to have."""
    results.update(pairs={}, transfer={}, robustness=[], stages=[], versions={})


@pytest.mark.parametrize(
    ("change", "removed", "gone"),
    [
        (without("teachers", "worth"), [], {"teachers"}),
        (without("teachers"), [], set()),
        (without("worth", "export"), [], set()),
        (emptied, [], {"lineage", "agreement", "transfer", "robustness"}),
        (unlabelled, [], {"controls", "pareto", "recall", "robustness"}),
        (unknown_costs, [], {"pareto"}),
        (only("student"), [], {"controls", "agreement", "pareto"}),
        (only("student", "control/no_teacher"), [], set()),
        (only("student", "ensemble", "teacher/0"), [], {"controls"}),
        (lambda results: None, ["predictions"], {"reliability", "confusion"}),
        (lambda results: None, ["samples.json"], {"samples"}),
        (lambda results: None, ["curves.csv"], {"curves"}),
        (lambda results: None, [".hydra"], set()),
    ],
)
def test_what_is_not_there_is_left_out(
    make_run: MakeRun, change: Change, removed: list[str], gone: set[str], read_page: Any
) -> None:
    folder = make_run(change=change)
    for name in removed:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = read_page(write_run_page(folder))
    assert set(page.sections) == SECTIONS - gone
    assert "None" not in page.text
    assert "nan" not in page.text.split()
    page.check_tables()
    links = {str(given["href"])[1:] for tag, given in page.tags if tag == "a"}
    assert links - {"main"} == SECTIONS - gone


def test_a_training_that_diverged_is_drawn_as_far_as_it_came(
    make_run: MakeRun, read_page: Any
) -> None:
    folder = make_run()
    with (folder / "curves.csv").open("a") as file:
        file.write("student,40,student/label,nan\nstudent,41,student/label,inf\n")
        file.write("student,42,student/broken,-inf\n")
    page = read_page(write_run_page(folder))
    assert "curves" in page.sections
    assert "broken" not in page.text


def test_a_sample_is_shown_as_what_it_is(make_run: MakeRun, read_page: Any) -> None:
    folder = make_run()
    samples = read_samples(folder / "samples.json")
    samples[0]["input"] = {"kind": "table", "values": [1.0, -2.0, 0.5, None], "count": 40}
    samples[1]["input"] = {"kind": "text", "parts": ["New", "York"], "word": 1}
    samples[2]["input"] = {"kind": "other"}
    samples[3] |= {"target": None, "kl": None, "place": 7}
    write_samples(samples, folder / "samples.json")
    (folder / "student").mkdir()
    columns = [
        {"column": "age", "mean": 30.0, "std": 5.0},
        {"column": "town", "is": "Ulm", "mean": 0.0, "std": 1.0},
    ]
    (folder / "student" / "inputs.json").write_text(json.dumps({"inputs": columns}))
    page = read_page(write_run_page(folder))
    text = " ".join(page.text.split())
    for expected in (
        "age 35",
        "town is Ulm -2",
        "input 2 0.5",
        "input 3 \N{EN DASH}",
        "36 more",
        "place 7",
        "KL ∞",
    ):
        assert expected in text
    images = [given for tag, given in page.tags if tag == "img"]
    assert len(images) == 9
    assert all(given["alt"] for given in images)
    assert [tag for tag, _ in page.tags].count("mark") == 1


def test_a_page_stays_small_with_fewer_samples(make_run: MakeRun, read_page: Any) -> None:
    folder = make_run()
    samples = read_samples(folder / "samples.json")
    for sample in samples:
        sample["input"] = {"kind": "image", "png": "A" * 400_000, "width": 9, "height": 9}
    write_samples(samples, folder / "samples.json")
    (folder / ".hydra" / "config.yaml").write_text("key: value\n" * 100_000)
    path = write_run_page(folder)
    assert path.stat().st_size < LARGEST == 2_000_000
    assert 0 < [tag for tag, _ in read_page(path).tags].count("img") < len(samples)


def test_many_networks_classes_and_epochs_make_no_large_page(make_run: MakeRun) -> None:
    def change(results: dict[str, Any]) -> None:
        entry = results["predictors"]["teacher/0"]
        for number in range(3, 40):
            results["predictors"][f"teacher/{number}"] = entry
        for each in results["predictors"].values():
            each["test"]["recall"] = [0.5] * 1000
        for name in results["predictors"]:
            if name != "ensemble":
                near = {"agreement": 0.9, "kl": 0.1, "probability_loyalty": 0.8}
                results["pairs"][f"{name}|ensemble"] = {"val": near, "test": near}

    folder = make_run(change=change)
    with (folder / "curves.csv").open("a") as file:
        for number in range(40):
            for epoch in range(300):
                file.write(f"teacher/{number},{epoch + 40},student/label,{1 / (epoch + 1)}\n")
    assert write_run_page(folder).stat().st_size < 1_000_000


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("results.json", "{"),
        ("results.json", '{"schema": 1}'),
        ("samples.json", "[]"),
        ("curves.csv", "a,b\n1,2\n"),
        ("predictions/test.safetensors", "nothing"),
        ("student/inputs.json", "[1]"),
    ],
)
def test_a_damaged_file_is_named_and_nothing_is_written(
    run_folder: Path, name: str, text: str
) -> None:
    path = run_folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(path.name)):
        write_run_page(run_folder)
    assert not (run_folder / PAGE).exists()


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*results\.json"):
        write_run_page(tmp_path)
