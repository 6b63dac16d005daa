"""Secrets of the environment: in no file of a run, in the store, nor on the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ensemble_kd.errors import UserError, concealed
from ensemble_kd.files import write_json

SECRETS = {
    name: f"canary-{name.lower()}-0123456789"
    for name in (
        *("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "HF_TOKEN", "WANDB_API_KEY"),
        *("DB_PASSWORD", "GITHUB_TOKEN", "MY_CREDENTIALS", "SSH_PRIVATE_KEY"),
    )
}
SMALL = (
    *("data.labelled=60", "epochs=1", "teacher=none", "strategy.taught=false", "objective=label"),
    *("controls=[]", "report.plots=false", "report.onnx=false", "+trainer.limit_train_batches=2"),
    *("paths.store=store", "hydra.run.dir=run", "logger=tensorboard"),
)


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def found_in(folder: Path) -> list[str]:
    """The files that hold one of the secrets."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert files
    return [
        f"{file}: {name}"
        for file in files
        for name, value in SECRETS.items()
        if value.encode() in file.read_bytes()
    ]


def test_a_run_leaves_no_secret(
    command: Callable[..., int], own_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    used = ("strategy.name=${oc.env:HF_TOKEN}", "+paths.note=${oc.env:DB_PASSWORD}")
    assert command(*SMALL, *used) == 0
    said = capfd.readouterr()
    assert not any(value in said.out + said.err for value in SECRETS.values())
    assert found_in(own_folder) == []
    assert (own_folder / "run" / "report.html").is_file()
    assert "${oc.env:HF_TOKEN}" in (own_folder / "run" / ".hydra" / "config.yaml").read_text()


@pytest.mark.parametrize(
    "mistake",
    [
        "seed=${oc.env:HF_TOKEN}",
        "optimizer.lr=${oc.env:AWS_SECRET_ACCESS_KEY}",
        "student.widths=[${oc.env:DB_PASSWORD}]",
        "data.source.limit=${oc.env:GITHUB_TOKEN}",
        "strategy.turns._target_=${oc.env:SSH_PRIVATE_KEY}",
    ],
)
def test_a_mistake_shows_no_secret(
    mistake: str, command: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    assert command(*SMALL, mistake) == 2
    said = capfd.readouterr()
    assert "error: " in said.err
    assert not any(value in said.out + said.err for value in SECRETS.values())


def test_a_secret_is_named_in_place_of_its_value(tmp_path: Path) -> None:
    secret = SECRETS["HF_TOKEN"]
    assert concealed(f"<{secret}>") == "<[HF_TOKEN]>"
    assert str(UserError(f"seed: got {secret!r}")) == "seed: got '[HF_TOKEN]'"
    write_json(tmp_path / "said.json", {"a": [{"b": f"x{secret}"}]})
    assert json.loads((tmp_path / "said.json").read_text()) == {"a": [{"b": "x[HF_TOKEN]"}]}


def test_what_is_no_secret_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_FOLDER", "canary-folder")
    monkeypatch.setenv("PIN_TOKEN", "1")
    assert concealed("canary-folder 1") == "canary-folder 1"
