"""What `--help` lists, and what it takes to do so."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ensemble_kd.command_line import EXAMPLES, FLAGS, WIDTH, help_text
from ensemble_kd.groups import options
from ensemble_kd.paths import conf_dir

ROOT = Path(__file__).resolve().parents[1]
GROUPS = sorted(options([conf_dir()]))


def words(text: str) -> str:
    """A text without its line breaks and columns."""
    return " ".join(text.split())


def rows(text: str, group: str) -> list[str]:
    """The lines below a group's name, up to the next empty line."""
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if line.split() and line.split()[0] == group)
    return lines[start + 1 : lines.index("", start)]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_is_explained_and_every_option_listed(group: str) -> None:
    text = help_text()
    heading = next(line for line in text.splitlines() if line.split()[:1] == [group])
    assert len(heading.split()) > 1, f"conf/config.yaml says nothing of the group {group}"
    listed = {row.lstrip(" *").split()[0] for row in rows(text, group)}
    for path in (conf_dir() / group).rglob("*.yaml"):
        name = path.relative_to(conf_dir() / group).with_suffix("").as_posix()
        assert name in listed
        assert options([conf_dir()])[group][name], f"{path} begins without a comment"


def test_comments_are_shown_whole() -> None:
    text = words(help_text())
    for group in options([conf_dir()]).values():
        for comment in group.values():
            assert words(comment) in text


def test_the_defaults_are_marked_once_per_group(monkeypatch: pytest.MonkeyPatch) -> None:
    text = help_text()
    assert [row.split()[1] for row in rows(text, "trainer") if "*" in row] == ["cpu"]
    assert [row.split()[1] for row in rows(text, "logger") if "*" in row] == ["csv"]
    assert not [row for row in rows(text, "sweep") if "*" in row]


def test_settings_flags_and_examples_are_shown() -> None:
    text = help_text()
    assert "  seed=0 " in text
    assert "  paths.data=" in text
    assert len(EXAMPLES) == 5
    for shown in (*EXAMPLES, *FLAGS, "--multirun", "--config-dir", "--cfg job", "--hydra-help"):
        assert shown in text


def test_lines_fit_a_terminal() -> None:
    assert max(map(len, help_text().splitlines())) <= WIDTH


@pytest.mark.parametrize("given", [["--config-dir", "own"], ["--config-dir=own"], ["-cd", "own"]])
def test_options_of_a_folder_of_ones_own_are_listed(tmp_path: Path, given: list[str]) -> None:
    own = Path("own")
    write(own / "data" / "mine.yaml", "\n# what I have measured\n_target_: mine\n")
    write(own / "data" / "digits.yaml", "# my digits\n")
    write(own / "optics" / "lens" / "thin.yaml", "# @package _global_\n# a lens\n")
    text = help_text(["data=mine", *given, "--help"])
    assert any(words(row) == "mine what I have measured" for row in rows(text, "data"))
    assert "my digits" in text
    assert any(words(row) == "lens/thin a lens" for row in rows(text, "optics"))
    assert "mine" not in help_text()


@pytest.mark.parametrize("given", [["--config-dir", "nowhere"], ["--config-dir"]])
def test_a_folder_that_is_not_there_adds_nothing(given: list[str]) -> None:
    assert help_text(given) == help_text()


def test_an_option_without_a_comment_has_none(tmp_path: Path) -> None:
    write(tmp_path / "a" / "bare.yaml", "x: 1\n# late\n")
    write(tmp_path / "a" / "empty.yaml", "")
    assert options([tmp_path]) == {"a": {"bare": "", "empty": ""}}


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_compose(example: str, command: Callable[..., int]) -> None:
    write(Path("my_conf/data/my_data.yaml"), "# mine\ndefaults:\n  - digits\n")
    interpreter, dash_m, package, *arguments = shlex.split(example)
    assert (interpreter, dash_m, package) == ("python", "-m", "ensemble_kd")
    if "--multirun" in arguments:
        arguments = [arg.partition(",")[0] for arg in arguments if arg != "--multirun"]
    assert command(*arguments, "--cfg", "job") == 0


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_wins_over_everything_else(
    flag: str, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("no=such", flag, "--multirun") == 0
    assert capsys.readouterr().out.strip() == help_text()


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from ensemble_kd.__main__ import main; sys.argv[1:] = ['--help']; main(); "
        "print(*sys.modules, file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(result.stderr.split())
    assert "ensemble_kd.command_line" in loaded
    assert not loaded & {"torch", "hydra", "omegaconf", "pytorch_lightning", "numpy", "yaml"}


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ("strategy=asistant", "strategy must be one of its options, got 'asistant'"),
        ("epohcs=3", "there is no key 'epohcs'; did you mean 'epochs'"),
        ("epochs", "an override must be KEY=VALUE or GROUP=OPTION, got 'epochs'"),
    ],
)
def test_a_mistake_is_one_line_with_status_two_and_writes_nothing(
    wrong: str, line: str, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(wrong) == 2
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 1
    assert line in captured.err
    assert captured.out == ""
    assert not list(Path.cwd().iterdir())
