"""The search without its runs: which trials there are, which is best, and what a stop leaves."""

from __future__ import annotations

import errno
import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from filelock import FileLock
from omegaconf import DictConfig, OmegaConf

from ensemble_kd.errors import UserError
from ensemble_kd.search import study, summary
from ensemble_kd.search.space import read_space
from ensemble_kd.search.study import Search

FOLDER = Path("search")
LINES = ("seed=3", "objective.temperature=interval(1,8)", "weighting=uniform,entropy")


class Runs:
    """Stands in for the runs: a validation accuracy from the temperature, and the opposite on test.

    Attributes:
        temperatures: of the runs that were begun.
        before: called with the number of runs that were begun so far, and may stop one.
    """

    def __init__(self) -> None:
        self.temperatures: list[float] = []
        self.before: Callable[[int], None] = lambda number: None

    def carry_out(self, plan: None, config: Any, folder: Path) -> Any:
        self.temperatures.append(config.objective.temperature)
        self.before(len(self.temperatures) - 1)
        val = 1 / config.objective.temperature
        student = {"val": {"accuracy": val}, "test": {"accuracy": 1 - val}}
        results = {"predictors": {"student": student}}
        (folder / "results.json").write_text(json.dumps(results))
        return type("Result", (), {"results": results})


def composed(overrides: Sequence[str], extra_dirs: Sequence[Path]) -> DictConfig:
    """A configuration of the overrides alone, at once."""
    return OmegaConf.from_dotlist(["seed=0", "paths.store=store", *overrides])


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    made = Runs()
    monkeypatch.setattr(study, "make_plan", lambda config: None)
    monkeypatch.setattr(study, "compose", composed)
    monkeypatch.setattr(study, "carry_out", made.carry_out)
    for module in (study, summary):
        monkeypatch.setattr(module, "read_results", lambda path: json.loads(path.read_text()))
    return made


def search(trials: int, *lines: str, folder: Path = FOLDER) -> dict[str, Any]:
    Search(read_space(lines or LINES), folder, trials).run()
    content: dict[str, Any] = json.loads((folder / "search.json").read_text())
    return content


def stop_at(number: int, error: BaseException) -> Callable[[int], None]:
    def before(begun: int) -> None:
        if begun == number:
            raise error

    return before


def test_the_best_is_chosen_by_validation_and_only_its_test_accuracy_is_told(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    found = search(5)
    values = [trial["val_accuracy"] for trial in found["trials"]]
    assert values == [1 / temperature for temperature in runs.temperatures]
    best = found["best"]
    assert best["number"] == values.index(max(values))
    assert best["test_accuracy"] == 1 - max(values)
    assert min(values) < max(values)
    assert not any("test" in key for trial in found["trials"] for key in trial)
    assert (found["wanted"], found["ended"], found["seed"]) == (5, 5, 3)
    assert found["versions"]["optuna"] == optuna.__version__
    said = capsys.readouterr().out
    assert f"trial {best['number']} was chosen" in said
    assert said.count("test accuracy") == 1
    assert best["confirm"] in said
    overrides = OmegaConf.load(FOLDER / "trials" / "4" / ".hydra" / "overrides.yaml")
    assert overrides == [
        "seed=3",
        *(f"{key}={value}" for key, value in found["trials"][4]["values"].items()),
    ]


def test_of_equals_the_first_is_best(runs: Runs) -> None:
    assert search(3, "objective.temperature=2,2.0")["best"]["number"] == 0


def test_an_interrupted_search_makes_the_trials_of_one_that_was_not(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = search(4, folder=Path("whole"))
    assert whole["best"]["test_accuracy"] is not None
    runs.before = stop_at(4 + 2, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        search(4)
    so_far = json.loads((FOLDER / "search.json").read_text())
    assert so_far["ended"] == 2
    assert so_far["best"]["test_accuracy"] is None  # nobody looks before the end
    capsys.readouterr()
    again = search(4)
    assert "trial 2 was cut off and is run again" in capsys.readouterr().out
    assert [trial["state"] for trial in again["trials"]] == [
        *("complete", "complete", "cut off", "complete", "complete")
    ]
    ended = [trial["values"] for trial in again["trials"] if trial["state"] == "complete"]
    assert ended == [trial["values"] for trial in whole["trials"]]
    assert again["trials"][2]["values"] == again["trials"][3]["values"]
    assert len(runs.temperatures) == 4 + 2 + 1 + 2


def test_a_killed_process_leaves_a_trial_that_is_run_again_or_taken_when_it_was_done(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    search(1)

    def begin(temperature: float) -> int:
        """What a process leaves that is killed during a trial."""
        left = optuna.load_study(study_name="search", storage=f"sqlite:///{FOLDER / 'study.db'}")
        left.enqueue_trial({"objective.temperature": temperature, "weighting": "entropy"})
        axes = {axis.key: axis.distribution for axis in read_space(LINES).axes}
        return left.ask(axes).number

    assert begin(7.5) == 1
    found = search(2)
    assert "trial 1 was cut off and is run again" in capsys.readouterr().out
    assert runs.temperatures[-1] == 7.5
    assert [trial["state"] for trial in found["trials"]] == ["complete", "cut off", "complete"]

    assert begin(1.0) == 3
    place = FOLDER / "trials" / "3"
    place.mkdir()
    student = {"val": {"accuracy": 0.99}, "test": {"accuracy": 0.5}}
    (place / "results.json").write_text(json.dumps({"predictors": {"student": student}}))
    begun = len(runs.temperatures)
    found = search(3)
    assert len(runs.temperatures) == begun
    assert (found["best"]["number"], found["best"]["val_accuracy"]) == (3, 0.99)


def test_a_trial_that_fails_is_recorded_and_the_search_goes_on(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.before = stop_at(1, UserError("the loss became nan"))
    found = search(3)
    assert [trial["state"] for trial in found["trials"]] == ["complete", "failed", "complete"]
    assert found["trials"][1]["failure"] == "the loss became nan"
    said = capsys.readouterr()
    assert said.err == "trial 1 failed: the loss became nan\n"
    assert "2 trials by validation accuracy; 1 failed" in said.out
    # The same command with more trials goes on; with fewer it only reports.
    assert [trial["number"] for trial in search(4)["trials"]] == [0, 1, 2, 3]
    assert search(2)["ended"] == 4
    assert len(runs.temperatures) == 4


def test_a_full_disk_is_no_failure_of_a_trial(runs: Runs) -> None:
    full = UserError("cannot write")
    full.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    runs.before = stop_at(1, full)
    with pytest.raises(UserError, match="cannot write"):
        search(3)
    states = [trial["state"] for trial in search(3)["trials"]]
    assert states == ["complete", "cut off", "complete", "complete"]


def test_when_every_trial_fails_that_is_one_line(runs: Runs) -> None:
    def fail(begun: int) -> None:
        raise UserError(f"no {begun}")

    runs.before = fail
    with pytest.raises(UserError, match="every trial failed, the last one because: no 1"):
        search(2)
    assert json.loads((FOLDER / "search.json").read_text())["ended"] == 2


def test_a_folder_belongs_to_one_search(runs: Runs) -> None:
    search(1)
    before = (FOLDER / "search.json").read_bytes()
    for lines, words in (
        (("seed=3", LINES[1], "weighting=uniform,gradient"), ["uniform,entropy", "gradient"]),
        (("seed=4", *LINES[1:]), ["with seed=3", "got seed=4"]),
        (LINES[:2], ["weighting=uniform,entropy", "got less"]),
        ((*LINES, "epochs=2"), ["nothing more", "epochs=2"]),
    ):
        with pytest.raises(UserError) as refusal:
            search(2, *lines)
        for word in (*words, "search: ", "--folder"):
            assert word in str(refusal.value)
    assert len(search(1, *reversed(LINES))["trials"]) == 1  # the order does not matter
    assert (FOLDER / "search.json").read_bytes() != before
    assert len(runs.temperatures) == 1


def test_two_processes_do_not_work_on_one_search(runs: Runs) -> None:
    FOLDER.mkdir()
    with FileLock(FOLDER / ".lock"), pytest.raises(UserError, match="another process is at work"):
        search(1)
    assert runs.temperatures == []


def test_a_study_that_is_none_is_one_line_and_stays_as_it_is(runs: Runs) -> None:
    FOLDER.mkdir()
    (FOLDER / "study.db").write_text("no database " * 100)
    with pytest.raises(UserError, match=r"study.db: cannot be used as a study: .*not a database"):
        search(1)
    assert (FOLDER / "study.db").read_text().startswith("no database")


def test_trials_without_their_study_are_not_written_over(runs: Runs) -> None:
    (FOLDER / "trials" / "0").mkdir(parents=True)
    with pytest.raises(UserError, match="expected a new folder or that of a search"):
        search(1)


def test_what_is_wrong_with_any_choice_is_found_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[tuple[float, str]] = []

    def make_plan(config: Any) -> None:
        tried.append((config.objective.temperature, config.weighting._target_.rpartition(".")[2]))
        if config.weighting._target_.endswith("Entropy"):
            raise UserError("weighting: not this one")

    monkeypatch.setattr(study, "make_plan", make_plan)
    with pytest.raises(UserError, match="not this one"):
        search(1)
    assert tried == [(1.0, "Uniform"), (8.0, "Uniform"), (1.0, "Entropy")]
    assert not FOLDER.exists()
    with pytest.raises(UserError, match="weighting must be one of its options, got 'nonsense'"):
        search(1, "weighting=nonsense,uniform")


def test_the_confirming_command_leaves_out_the_seed_of_the_search() -> None:
    overrides = ["teacher.members=[a b,c]", "seed=2", "controls=[]", "weighting=entropy"]
    words = shlex.split(summary.confirming(overrides, 2, [Path("my conf")]))
    assert words == [
        *("python", "-m", "ensemble_kd", "--config-dir", "my conf", "--multirun"),
        *("teacher.members=[a b,c]", "weighting=entropy", "seed=0,1,3,4,5,6"),
    ]
    assert summary.confirming([], 9).endswith("seed=0,1,2,3,4,5")
