from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from filelock import FileLock
from safetensors import SafetensorError

import ensemble_kd
from ensemble_kd.errors import UserError
from ensemble_kd.report.curves import read_points

QUICK = ("epochs=2", "teacher.members=[cnn_tiny,cnn_tiny]", "hydra.run.dir=run")
SCORES = {"accuracy", "macro_f1", "nll", "brier", "ece", "n", "recall"}
STAGE = {"name", "digest", "reused", "epochs", "seconds", "parameters", "teachers"}
BARE = ("report.plots=false", "report.onnx=false")
Command = Callable[..., int]


def results(folder: str = "run") -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(folder, "results.json").read_text())
    return content


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_one_command_leaves_what_the_contract_says(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*QUICK, "strategy=assistant", "strategy.assistants=[cnn_small]") == 0
    written = files(Path("run"))
    assert {
        "results.json",
        "curves.csv",
        "plots/curves.png",
        "plots/predictors.png",
        "predictions/val.safetensors",
        "predictions/test.safetensors",
        "samples.json",
        "report.html",
        "student/weights.safetensors",
        "student/network.yaml",
        "student/provenance.json",
        "student/student.onnx",
        ".hydra/config.yaml",
        ".hydra/overrides.yaml",
    } <= written

    found = results()
    assert found["schema"] == 2
    assert found["seed"] == 0
    assert found["strategy"] == "assistant"
    assert found["data"]["name"] == "Digits"
    assert list(found["predictors"]) == [
        "teacher/0",
        "teacher/1",
        "ensemble",
        "assistant/0",
        "student",
        "control/no_teacher",
    ]
    for name, entry in found["predictors"].items():
        assert entry["parameters"] > 0
        for split, size in (("val", 270), ("test", 270)):
            assert set(entry[split]) == SCORES
            assert entry[split]["n"] == size, name
        assert 0 < entry["latency"]["p50"] <= entry["latency"]["p95"]
        assert entry["bytes"] >= 4 * entry["parameters"]
        assert entry["multiply_adds"] > 0
    assert len(found["pairs"]) == 15
    near = {"agreement", "kl", "probability_loyalty"}
    assert set(found["pairs"]["student|ensemble"]["test"]) == near
    assert set(found["teachers"]) == {"val", "test"}
    assert set(found["worth"]) == {"teacher/0", "teacher/1"}
    assert set(found["transfer"]) == {"student", "control/no_teacher"}
    spoilt = [(each["corruption"], each["severity"]) for each in found["robustness"]]
    assert spoilt == [(name, k) for name in ("noise", "blur", "contrast") for k in (1, 3, 5)]
    assert [stage["name"] for stage in found["stages"]] == [
        "teacher/0",
        "teacher/1",
        "assistant/0",
        "student",
        "control/no_teacher",
    ]
    for stage in found["stages"]:
        assert set(stage) == STAGE
        assert not stage["reused"]
    taught = {stage["name"]: stage["teachers"] for stage in found["stages"]}
    assert taught["assistant/0"] == ["teacher/0", "teacher/1"]
    assert taught["student"] == ["assistant/0"]
    assert found["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert found["export"]["onnx_max_difference"] < 1e-4

    said = capsys.readouterr().out
    for name in found["predictors"]:
        assert name in said
    assert found["verdict"] in " ".join(said.split())

    named = {(point.stage, point.name) for point in read_points(Path("run/curves.csv"))}
    assert ("student", "student/soft") in named
    assert ("student", "student/val_accuracy") in named
    assert ("assistant/0", "student/label") in named
    assert ("teacher/1", "student/label") in named


def test_the_delivered_student_is_the_one_that_was_measured(command: Command) -> None:
    assert command(*QUICK) == 0
    student = ensemble_kd.load("run/student")
    inputs = torch.randn(5, 1, 8, 8)
    session = onnxruntime.InferenceSession("run/student/student.onnx")
    (logits,) = session.run(["logits"], {"inputs": inputs.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), student(inputs), atol=1e-4, rtol=1e-4)
    digest = json.loads(Path("run/student/provenance.json").read_text())["digest"]
    assert digest == {s["name"]: s["digest"] for s in results()["stages"]}["student"]


def test_a_second_run_takes_every_stage_from_the_store(command: Command) -> None:
    assert command(*BARE, *QUICK, "strategy=mutual") == 0
    assert command(*BARE, *QUICK, "strategy=mutual", "hydra.run.dir=again") == 0
    first, second = results(), results("again")
    assert all(stage["reused"] for stage in second["stages"])
    for name, entry in first["predictors"].items():
        assert entry["test"] == second["predictors"][name]["test"], name
    assert first["pairs"] == second["pairs"]
    assert Path("run/curves.csv").read_text() == Path("again/curves.csv").read_text()
    one, other = (Path(run, "student/weights.safetensors").read_bytes() for run in ("run", "again"))
    assert one == other


def test_the_same_seed_gives_a_bit_identical_student(command: Command) -> None:
    assert command(*BARE, *QUICK, "paths.store=one") == 0
    assert command(*BARE, *QUICK, "paths.store=two", "hydra.run.dir=again") == 0
    one, other = (Path(run, "student/weights.safetensors").read_bytes() for run in ("run", "again"))
    assert one == other
    assert not any(stage["reused"] for stage in results("again")["stages"])


def test_a_damaged_teacher_is_set_aside_and_trained_again(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*BARE, *QUICK) == 0
    digest = results()["stages"][0]["digest"]
    weights = Path("outputs/store", digest[:32], "weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert command(*BARE, *QUICK, "hydra.run.dir=again") == 0
    assert "set aside" in capsys.readouterr().err
    reused = {stage["name"]: stage["reused"] for stage in results("again")["stages"]}
    assert reused == {
        "teacher/0": False,
        "teacher/1": True,
        "student": True,
        "control/no_teacher": True,
    }


def test_a_trained_student_can_teach_another_run(command: Command) -> None:
    assert command(*QUICK) == 0
    taught = ("teacher.members=[{artefact:run/student},cnn_tiny]", "hydra.run.dir=again")
    assert command("epochs=2", *taught) == 0
    found = results("again")
    assert found["stages"][0]["name"] == "teacher/0"
    assert found["stages"][0]["reused"]
    same = found["predictors"]["teacher/0"]["test"]
    assert same == results()["predictors"]["student"]["test"]


def test_the_best_epoch_can_be_selected_on_validation(command: Command) -> None:
    assert command(*BARE, *QUICK, "epochs=6", "select=best", "controls=[]") == 0
    curve = [
        point.value
        for point in read_points(Path("run/curves.csv"))
        if (point.stage, point.name) == ("student", "student/val_accuracy")
    ]
    assert results()["predictors"]["student"]["val"]["accuracy"] == pytest.approx(max(curve))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["strategy=asistant"], ["strategy", "asistant", "assistant"]),
        (["objectve=kd"], ["objectve", "objective"]),
        (["objective.temprature=2"], ["temprature", "temperature"]),
        (["objective.temperature=0"], ["temperature must be", "0"]),
        (["epochs=0"], ["epochs", ">= 1", "0"]),
        (["seed=[1"], ["seed=[1"]),
        (["data=fashion_mnist", "paths.data=nowhere"], ["nowhere", "ENSEMBLE_KD_DATA"]),
        (["data=arrays"], ["data.source.path"]),
        (["student=bert_tiny"], ["student.vocabulary: expected data that says data.vocabulary"]),
        (["initial={teacher: 7}"], ["initial.teacher", "7"]),
        (["teacher.members=[{onnx: nowhere.onnx}]"], ["teacher/0", "nowhere.onnx"]),
        (["source=onnx"], ["source", "teacher.members"]),
        (["teacher.members=[{artefact:nowhere}]"], ["nowhere", "provenance.json"]),
        (["paths.store=/proc/store"], ["paths.store", "/proc/store"]),
        (["hydra.run.dir=/proc/run"], ["/proc/run"]),
        (["--config-dir", "nowhere"], ["nowhere"]),
        (["trainer=gpu"], ["trainer"]),
        (["strategy=parallel,assistant"], ["parallel,assistant"]),
        (["seed=${oc.env:NOPE}"], ["NOPE"]),
        (["~strategy.turns"], ["strategy"]),
        (["paths.store=null"], ["paths.store", "text"]),
        (["allow=5"], ["allow", "5"]),
        (["teacher.members=5"], ["list of networks", "5"]),
        (["teacher.members=[{artefact:5}]"], ["teacher/0.path", "expected text", "5"]),
        (["student.widths=[99999999999]"], ["student"]),
        (["--config-name", "other"], ["--config-name", "--config-dir"]),
        (["--experimental-rerun", "x"], ["--experimental-rerun"]),
        (["--nonsense"], ["--nonsense"]),
        (["optimizer.optimizer.weight_decay=-1"], ["weight_decay"]),
        (["strategy=adversarial", "trainer.gradient_clip_val=1"], ["gradient_clip_val", "null"]),
        (["strategy.taught=nope"], ["strategy.taught", "nope"]),
        (["weighting=best", "weighting.accuracies=[0.1,0.2]"], ["accuracies", "2"]),
    ],
)
def test_bad_input_is_one_line_status_two_and_nothing_written(
    command: Command, capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    assert command(*arguments) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    for word in words:
        assert word in said.err
    assert list(Path().iterdir()) == []


def test_a_finished_run_is_not_written_over(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*BARE, *QUICK) == 0
    before = {name: Path("run", name).read_bytes() for name in files(Path("run"))}
    assert command(*BARE, *QUICK, "seed=1") == 2
    assert "results.json" in capsys.readouterr().err
    assert before == {name: Path("run", name).read_bytes() for name in files(Path("run"))}


def test_a_sweep_shares_teachers_and_ends_with_a_table(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ("--multirun", "strategy=parallel,assistant", "seed=0,1", "hydra.sweep.dir=sweep")
    assert command(*QUICK[:2], *BARE, *sweep) == 0
    jobs = [results(f"sweep/{number}") for number in range(4)]
    trained = [stage["digest"] for job in jobs for stage in job["stages"] if not stage["reused"]]
    assert len(trained) == len(set(trained))
    # two seeds of: two teachers, a control, a student under them, an assistant and its student
    assert len(trained) == 2 * (2 + 1 + 1 + 2)
    assert Path("sweep/sweep.json").is_file()
    assert Path("sweep/sweep.png").is_file()
    said = capsys.readouterr().out
    assert "parallel" in said
    assert "assistant" in said
    before = {name: Path("sweep", name).read_bytes() for name in files(Path("sweep"))}
    assert command(*QUICK[:2], *BARE, *sweep, "epochs=2") == 2
    assert "results.json" in capsys.readouterr().err
    assert before == {name: Path("sweep", name).read_bytes() for name in files(Path("sweep"))}

    # As if it had been cut off in the last job.
    Path("sweep/3/results.json").unlink()
    assert command(*QUICK[:2], *BARE, *sweep) == 0
    assert capsys.readouterr().out.count("finished before: ") == 3
    for number in range(3):
        assert before[f"{number}/results.json"] == Path(f"sweep/{number}/results.json").read_bytes()
    assert all(stage["reused"] for stage in results("sweep/3")["stages"])
    # Two jobs that fell into one folder are not told apart.
    Path("sweep/2/failure.txt").write_text("expected a new run folder")
    assert command(*QUICK[:2], *BARE, *sweep) == 2
    assert "2/results.json" in capsys.readouterr().err


def test_a_run_is_done_when_all_of_it_is_there(
    command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = ("report.plots=false", "report.onnx=false", "controls=[]")

    def full(folder: Path, results: str) -> None:
        raise UserError("cannot write report.html: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("ensemble_kd.report.page.write_run_page", full)
        assert command(*QUICK, *cut) == 2
    assert not Path("run/results.json").exists()
    with FileLock("run/.lock"):
        assert command(*QUICK, *cut) == 2
    assert "run: another process is at work on this run" in capsys.readouterr().err
    assert command(*QUICK, *cut) == 0
    assert {"results.json", "report.html"} <= files(Path("run"))
    assert not files(Path("run")) & {".results.json", ".lock"}


def test_weights_for_which_there_is_no_room_are_one_line(
    command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space (os error 28)")

    monkeypatch.setattr("ensemble_kd.run.write_artefact", full)
    assert command(*QUICK, *BARE, "controls=[]", "report.page=false") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: No space left on device: what was whole still is")
    assert said.count("\n") == 1


def test_arguments_may_stand_in_any_order(command: Command) -> None:
    cut = ("controls=[]", "report.plots=false", "hydra.sweep.dir=sweep")
    assert command(*QUICK[:2], "--multirun", "seed=0,1", *cut) == 0
    assert {results(f"sweep/{number}")["seed"] for number in range(2)} == {0, 1}


def test_a_mistake_in_any_job_of_a_sweep_stops_it_before_it_starts(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--multirun", "objective.temperature=1,2,0", "seed=0,1") == 2
    assert "temperature must be" in capsys.readouterr().err
    assert list(Path().iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_says_what_is_kept_and_the_same_command_goes_on(own_folder: Path) -> None:
    quick = [sys.executable, "-m", "ensemble_kd", *QUICK, "epochs=3000", "teacher.epochs=2"]
    environment = {**os.environ, "PYTHONPATH": str(Path(ensemble_kd.__file__).parents[1])}
    run = subprocess.Popen(
        quick,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # Whoever runs the tests in the background of a shell has it ignored, and so would this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert run.stdout is not None
    said = ""
    while "student" not in said:  # the line of a stage ends with the stage
        said += run.stdout.read(1)
    time.sleep(1.0)
    while run.poll() is None:
        run.send_signal(signal.SIGINT)
        # An interrupt that arrives in a destructor is lost; whoever typed it would do so again.
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.wait(timeout=30)
    _, said = run.communicate()
    assert run.returncode == 130, said
    assert "finished stages are kept" in said
    assert "Traceback" not in said
    assert not Path("run/results.json").exists()
    assert len(list(Path("outputs/store").glob("*/provenance.json"))) == 2
    again = subprocess.run(
        [*quick, "epochs=2"], capture_output=True, text=True, env=environment, check=True
    )
    assert again.stdout.count("reused") == 2
    assert Path("run/results.json").exists()
