"""Whatever the README shows is executed, in the order in which it is shown, as small as it goes."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

import ensemble_kd
from ensemble_kd.api import distill

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
SMALL = ("epochs=1", "teacher.epochs=1")
"""What is changed in the commands; also, one seed of several is run."""
NO_PICTURES = ("report.plots=false", "report.onnx=false")


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        kind: what follows the fence.
        text: what is between the fences.
        path: the file that the block shows, which its first line names; empty for others.
    """

    kind: str
    text: str
    path: str


def blocks() -> list[Block]:
    found = []
    for kind, text in re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL):
        named = re.match(r"# (\S+\.\w+)\n", text)
        found.append(Block(kind, text, named[1] if named else ""))
    return found


def main_of(name: str) -> Callable[[], object]:
    """What ``python -m`` runs of a module or a package."""
    found = import_module(name)
    if hasattr(found, "__path__"):
        found = import_module(f"{name}.__main__")
    main: Callable[[], object] = found.main
    return main


def run_commands(text: str, command: Callable[..., int]) -> None:
    for line in text.splitlines():
        words = shlex.split(line)
        if words[0] == "make":
            targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert words[1] in targets
            continue
        if words[2].startswith("ensemble_kd."):
            overrides = any("=" in word for word in words)
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(sys, "argv", [*words[2:], *(SMALL if overrides else ())])
                assert not main_of(words[2])(), line
            continue
        assert words[:3] == ["python", "-m", "ensemble_kd"], line
        asked = [word for word in words[3:] if not word.startswith("epochs=")]
        small = [*SMALL, *NO_PICTURES]
        # What teaches a later command must know something.
        small += ["+trainer.limit_train_batches=2"] * ("hydra.run.dir=big" not in words)
        small += ["hydra.sweeper.params.seed=0"] * ("sweep=temperatures" in words)
        one_seed = [re.sub(r"^(seed=\d+)(,\d+)+$", r"\1", word) for word in asked]
        assert command(*one_seed, *small) == 0, line


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*log_every_n_steps")
def test_every_command_and_snippet_runs(
    command: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    np.savez("my.npz", x=rng.normal(size=(200, 6)).astype("float32"), y=np.arange(200) % 3)
    said = np.eye(3)[np.arange(200) % 3] * 4
    np.savez("my_predictions.npz", id=np.arange(200), logits=said.astype("float32"))
    lines = (f"a {'good' if k % 2 else 'bad'} film number {k},{k % 2}\n" for k in range(120))
    Path("my.csv").write_text("sentence,label\n" + "".join(lines))
    for number in range(60):
        image = Path("my_images", "train", "abc"[number % 3], f"{number}.jpg")
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(image)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    monkeypatch.setattr(ensemble_kd, "distill", partial(distill, epochs=1, overrides=NO_PICTURES))
    for name in ("first", "second"):
        # It knows something, or the gate would not let it teach.
        alone = ("student=cnn_tiny", "teacher=none", "strategy.taught=false", "objective=label")
        ran = ("data.labelled=null", "epochs=4", "controls=[]", f"seed={len(name)}")
        assert command(*alone, *ran, *NO_PICTURES, f"hydra.run.dir={name}") == 0
        shutil.copytree(Path(name, "student"), Path("teachers", name))
    for block in blocks():
        if block.path:
            Path(block.path).parent.mkdir(parents=True, exist_ok=True)
            Path(block.path).write_text(block.text)
        elif block.kind == "bash":
            run_commands(block.text, command)
        elif block.kind == "python":
            exec(compile(block.text, "README.md", "exec"), {})
        else:
            assert block.kind == "text"
    sys.modules.pop("my_models", None)


def test_the_demo_is_the_command_that_the_table_shows() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "-m ensemble_kd teacher=ensemble3 strategy=assistant\n" in makefile
    (shown,) = (block.text for block in blocks() if block.kind == "text")
    for predictor in ("teacher/2", "ensemble", "assistant/0", "control/no_teacher", "student"):
        assert f"\n{predictor} " in shown


def test_files_and_links_exist() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_table_of_files_is_what_a_run_leaves(command: Callable[..., int]) -> None:
    assert command(*SMALL, "teacher.members=[cnn_tiny]", "hydra.run.dir=run") == 0
    section = README.partition("## Where files land")[2]
    named = [
        name
        for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
        for name in re.findall(r"`([^`]+)`", row)
        if "DATE" not in name
    ]
    assert len(named) == 9
    for name in named:
        assert Path("run", name).exists(), name
    assert json.loads(Path("run/results.json").read_text())["schema"] == 2
