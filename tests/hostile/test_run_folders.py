"""Folders of runs that came from elsewhere, for the commands that read them."""

from __future__ import annotations

import io
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ensemble_kd import speeds
from ensemble_kd.networks import Mlp
from ensemble_kd.predictions import read_predictions
from ensemble_kd.report.__main__ import main
from ensemble_kd.report.console import open_console, show_table, start_table
from ensemble_kd.worth import main as worth

NODE = {"_target_": "os.mkdir", "path": "CANARY"}
RESULTS: dict[str, bytes] = {
    "pickle": b"",
    "deep": b"[" * 200_000,
    "deep_inside": b'{"schema": 2, "a": ' + b"[" * 200_000,
    "nodes": json.dumps({"schema": 2, "predictors": NODE, "data": NODE}).encode(),
    "huge_number": b'{"schema": 1' + b"0" * 5000 + b"}",
    "control_characters": b'{"schema": "\\u001b[2J\\n\\u202e"}',
    "binary": b"\x00\xff",
    "a_list": b"[]",
}


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize("read", [main, worth], ids=["report", "worth"])
def test_results_of_another_form_end_in_one_line(
    read: Callable[..., int],
    name: str,
    own_folder: Path,
    charge: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = pickle.dumps(charge) if name == "pickle" else RESULTS[name]
    (own_folder / "run" / "predictions").mkdir(parents=True)
    (own_folder / "run" / "results.json").write_bytes(held)
    (own_folder / "run" / "predictions" / "test.safetensors").write_bytes(pickle.dumps(charge))
    monkeypatch.setattr(sys, "argv", ["command", "run"])
    assert read() == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert lines[0].isprintable()


def test_predictions_are_not_unpickled(
    own_folder: Path, charge: Any, refused: Callable[..., str]
) -> None:
    (own_folder / "test.safetensors").write_bytes(pickle.dumps(charge))
    refused(lambda: read_predictions(own_folder / "test.safetensors"))


def test_what_a_run_was_allowed_does_not_count_where_it_is_read(
    artefact: Path, canary: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Past the question what kind of network it is, which comes before the data.
    monkeypatch.setattr(speeds, "EarlyExit", Mlp)
    monkeypatch.setattr(Mlp, "settled", True, raising=False)
    node = {"_target_": "pathlib.PosixPath.mkdir", "self": str(canary)}
    (artefact.parent / ".hydra").mkdir()
    said = yaml.safe_dump({"allow": ["os", "pathlib"], "data": node, "seed": 0, "batch_size": 1})
    (artefact.parent / ".hydra" / "config.yaml").write_text(said)
    assert "pathlib" in refused(lambda: speeds.show(artefact.parent))
    assert "'os'" not in refused(lambda: speeds.show(artefact.parent, allow=["mine"]))


def test_the_configuration_of_a_run_is_small(artefact: Path, refused: Callable[..., str]) -> None:
    laughs = "\n".join(f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}]" for n in range(1, 25))
    (artefact.parent / ".hydra").mkdir()
    (artefact.parent / ".hydra" / "config.yaml").write_text(f"a1: &a1 [1, 1]\n{laughs}")
    assert "more than" in refused(lambda: speeds.show(artefact.parent))


@pytest.mark.parametrize("terminal", [False, True])
def test_names_of_strangers_mean_nothing_to_a_terminal(terminal: bool) -> None:
    out = io.StringIO()
    monkey = "\x1b]0;owned\x07[bold red]name[/nothing]\r\u202e"
    console = open_console(out)
    console._force_terminal = terminal
    table = start_table(("name", "value"), plain=not terminal)
    table.add_row(monkey, "1")
    show_table(console, f"of {monkey}", table)
    said = out.getvalue()
    assert "\\x1b]0;owned\\x07[bold red]name[/nothing]\\r\\u202e" in said
    assert "\x1b]" not in said
    assert not set("\x07\r\u202e") & set(said)
