"""Options of a stranger, a folder for ``--config-dir``: the command line refuses what they do."""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

MAKE = {"_target_": "os.mkdir", "path": "CANARY"}
GLOBAL = "# @package _global_\n"
SOFT = {"_target_": "ensemble_kd.objectives.Soft", "temperature": 2}
TERM = {"_target_": "ensemble_kd.objectives.Term", "objective": SOFT}


def hydra(**node: Any) -> str:
    return GLOBAL + yaml.safe_dump({"hydra": node})


def optimizer(**node: Any) -> str:
    return yaml.safe_dump({"_target_": "torch.optim.SGD", "_partial_": True, **node})


def terms(node: Any) -> str:
    return yaml.safe_dump({"terms": {"soft": node}})


HANDLER = {"version": 1, "root": {"handlers": ["h"]}}

OPTIONS: dict[str, tuple[str, str]] = {
    "target": ("optimizer", yaml.safe_dump(MAKE)),
    "torch_load": ("optimizer", optimizer(_target_="torch.load", f="PICKLE", weights_only=False)),
    "torch_hub": ("optimizer", optimizer(_target_="torch.hub.load", repo_or_dir=".")),
    "joblib": ("optimizer", optimizer(_target_="joblib.load", filename="PICKLE")),
    "nested": ("objective", terms({**TERM, "objective": {**SOFT, "temperature": MAKE}})),
    "in_a_list": ("objective", terms({**TERM, "objective": {**SOFT, "temperature": [[MAKE]]}})),
    "partial": ("objective", terms({**MAKE, "_partial_": True})),
    "positional": ("objective", terms({**TERM, "_args_": [MAKE]})),
    "not_recursive": ("objective", terms({**TERM, "_recursive_": False, "objective": MAKE})),
    "interpolated": ("objective", yaml.safe_dump({"x": MAKE, "terms": {"soft": "${objective.x}"}})),
    "interpolated_target": (
        "objective",
        terms({"_target_": "${objective.terms.soft.path}", "path": "os.mkdir"}),
    ),
    "decoded": ("objective", terms("${oc.create:${oc.decode:'{_target_: os.mkdir}'}}")),
    "network": ("student", yaml.safe_dump(MAKE)),
    "trainer": ("trainer", yaml.safe_dump({**MAKE, "_partial_": True})),
    "logger": ("logger", yaml.safe_dump(MAKE)),
    "cache": ("cache", yaml.safe_dump(MAKE)),
    "data": ("data", yaml.safe_dump({**MAKE, "inputs": [4], "classes": 3})),
    "evaluation": ("evaluation", yaml.safe_dump(MAKE)),
    "allows_itself": (
        "experiment",
        f"{GLOBAL}allow: [logging]\n"
        "objective: {terms: {x: {_target_: logging.FileHandler, filename: CANARY}}}",
    ),
    "callback": ("experiment", hydra(callbacks={"x": {**MAKE, "_target_": "pathlib.Path.mkdir"}})),
    "callback_of_hydra": (
        "experiment",
        hydra(callbacks={"x": {"_target_": "hydra.utils.instantiate", "config": MAKE}}),
    ),
    "interpolated_callback": (
        "experiment",
        f"{GLOBAL}theirs: {{x: {MAKE}}}\nhydra: {{callbacks: '${{theirs}}'}}",
    ),
    "launcher": ("experiment", hydra(launcher={"_target_": "os.getcwd"}, mode="MULTIRUN")),
    "sweeper": ("experiment", hydra(sweeper={"_target_": "os.getcwd"}, mode="MULTIRUN")),
    "logging_factory": (
        "experiment",
        hydra(job_logging={**HANDLER, "handlers": {"h": {"()": "os.mkdir", "path": "CANARY"}}}),
    ),
    "logging_class": (
        "experiment",
        hydra(hydra_logging={**HANDLER, "handlers": {"h": {"class": "os.mkdir"}}}),
    ),
    "logging_import": (
        "experiment",
        hydra(job_logging={"formatters": {"f": {"style": "ext://antigravity.fly"}}}),
    ),
    "environment": ("experiment", hydra(job={"env_set": {"MPLBACKEND": "module://theirs"}})),
    "folder": ("experiment", hydra(output_subdir="../../CANARY")),
    "sweep_that_allows": (
        "experiment",
        hydra(mode="MULTIRUN", sweeper={"params": {"allow": "[os],[sys]"}}),
    ),
    "sweep_of_hydra": (
        "experiment",
        hydra(mode="MULTIRUN", sweeper={"params": {"hydra.job.env_set": "{A:1},{A:2}"}}),
    ),
    "sweep_of_options": (
        "experiment",
        hydra(mode="MULTIRUN", sweeper={"params": {"report": "standard,theirs_too"}}),
    ),
    "python_tag": ("optimizer", "a: !!python/object/apply:os.mkdir ['CANARY']"),
    "many_laughs": (
        "optimizer",
        "\n".join(f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}]" for n in range(25)).replace(
            "[*a0, *a0]", "[1, 1]"
        ),
    ),
    "deep": ("optimizer", "a: " + "[" * 2000),
}  # fmt: skip


@pytest.fixture
def theirs(own_folder: Path, canary: Path, charge: Any) -> Callable[[str, str], list[str]]:
    """Writes an option and returns the arguments that choose it."""
    (own_folder / "held.pkl").write_bytes(pickle.dumps(charge))
    (own_folder / "theirs.py").write_text(f"import os; os.mkdir({str(canary)!r})\n")

    def write(group: str, text: str) -> list[str]:
        folder = own_folder / "conf"
        (folder / group).mkdir(parents=True, exist_ok=True)
        said = text.replace("CANARY", str(canary)).replace("PICKLE", str(own_folder / "held.pkl"))
        (folder / group / "theirs.yaml").write_text(said)
        return ["--config-dir", str(folder), f"{group}=theirs", "hydra.run.dir=run"]

    return write


@pytest.mark.parametrize("name", OPTIONS)
def test_a_hostile_option_ends_in_one_line(
    name: str,
    theirs: Callable[[str, str], list[str]],
    own_folder: Path,
    command: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = theirs(*OPTIONS[name])
    if name == "sweep_of_options":
        hostile = hydra(callbacks={"x": MAKE}).replace("CANARY", "never")
        (own_folder / "conf" / "report").mkdir()
        (own_folder / "conf" / "report" / "theirs_too.yaml").write_text(hostile)
    assert command(*arguments) == 2
    said = capsys.readouterr()
    lines = said.err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert not (own_folder / "run").exists()


def test_what_a_user_types_may_be_allowed(
    theirs: Callable[[str, str], list[str]],
    command: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = theirs("experiment", f"{GLOBAL}allow: [mine]\nepochs: 0")
    assert command(*arguments) == 2
    assert "whoever trusts these packages types it: 'allow=[mine]'" in capsys.readouterr().err
    assert command(*arguments, "allow=[mine]") == 2
    assert "epochs" in capsys.readouterr().err


def test_a_package_in_the_current_folder_is_not_taken_for_one_that_is_installed(
    own_folder: Path,
    canary: Path,
    command: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(own_folder))
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    (own_folder / "timm.py").write_text(f"import os; os.mkdir({str(canary)!r})\n")
    importlib.invalidate_caches()
    in_a_node = ("~student", "+student={_target_: timm.models.ResNet}")
    for student in (in_a_node, ("student=timm", "student.name=resnet18")):
        assert command(*student, "hydra.run.dir=run") == 2
        assert "timm in the current folder stands in its way" in capsys.readouterr().err
