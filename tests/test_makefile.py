"""`make setup` with a stand-in for Python: what it does when, and how it recovers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Stands in for an interpreter: answers the questions of the Makefile and writes down what it is
# asked to install. `-m venv` makes an environment whose interpreter is this very script.
FAKE_PYTHON = """#!/bin/sh
case "$*" in
  *version_info*) exec "$REAL" -c "import sys; sys.version_info = (3, ${FAKE_MINOR:-10}, 1); $2" ;;
  *ensurepip*) exit ${FAKE_NO_VENV:-0} ;;
  --version) echo Python 3.9.1 ;;
  "-m venv "*)
    echo venv >>"$LOG"
    mkdir -p "$3/bin"; cp "$0" "$3/bin/python"
    if [ "$FAKE_KILLED" = venv ]; then kill -TERM 0; sleep 60; fi ;;
  "-m pip install "*)
    echo "$*" >>"$LOG"
    if [ "$FAKE_KILLED" = pip ]; then kill -TERM 0; sleep 60; fi
    exit ${FAKE_PIP:-0} ;;
esac
"""


class Checkout:
    """A folder with the files that `make setup` reads, and a log of what it did."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, folder / name)
        self.python = folder / "python"
        self.python.write_text(FAKE_PYTHON)
        self.python.chmod(0o755)

    def make(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        self.log.write_text("")
        return subprocess.run(
            ["make", *(arguments or ("setup",)), f"PYTHON={self.python}"],
            cwd=self.folder,
            env={
                "PATH": os.environ["PATH"],
                "REAL": sys.executable,
                "LOG": str(self.log),
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
        )

    def change(self, name: str) -> None:
        """Make a file newer than the environment."""
        later = (self.folder / ".venv" / ".ready").stat().st_mtime + 1
        os.utime(self.folder / name, (later, later))

    @property
    def did(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_setup_creates_and_installs_once(checkout: Checkout) -> None:
    assert checkout.make().returncode == 0
    created, installed = checkout.did
    assert created == "venv"
    assert installed == "-m pip install -qq --constraint constraints.txt --editable .[dev]"
    assert checkout.make().returncode == 0
    assert checkout.did == []


@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints.txt"])
def test_a_changed_requirement_updates_the_environment(checkout: Checkout, changed: str) -> None:
    checkout.make()
    checkout.change(changed)
    checkout.make()
    assert [line.split()[0] for line in checkout.did] == ["-m"]  # pip alone, no new environment


@pytest.mark.parametrize("step", ["venv", "pip"])
def test_a_killed_set_up_is_made_anew(checkout: Checkout, step: str) -> None:
    killed = checkout.make(FAKE_KILLED=step)
    assert killed.returncode != 0
    assert not (checkout.folder / ".venv/.ready").exists()
    assert checkout.make().returncode == 0
    assert checkout.did[0] == "venv"


def test_an_update_that_was_killed_is_made_anew(checkout: Checkout) -> None:
    checkout.make()
    checkout.change("pyproject.toml")
    checkout.make(FAKE_KILLED="pip")
    assert checkout.make().returncode == 0
    assert checkout.did[0] == "venv"


def test_a_failed_update_keeps_the_environment(checkout: Checkout) -> None:
    checkout.make()
    checkout.change("pyproject.toml")
    assert checkout.make(FAKE_PIP="1").returncode != 0
    assert checkout.make().returncode == 0
    assert "venv" not in checkout.did


def test_an_environment_whose_python_is_gone_is_made_anew(checkout: Checkout) -> None:
    checkout.make()
    checkout.change("pyproject.toml")
    (checkout.folder / ".venv/bin/python").unlink()
    assert checkout.make().returncode == 0
    assert checkout.did[0] == "venv"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"FAKE_MINOR": "9"}, "make: Python 3.10 or later is needed, got Python 3.9.1;"),
        ({"FAKE_NO_VENV": "1"}, "cannot create environments; on Debian and Ubuntu install"),
    ],
)
def test_an_unfit_python_is_one_clear_line(
    checkout: Checkout, environment: dict[str, str], expected: str
) -> None:
    result = checkout.make(**environment)
    first, *rest = result.stderr.splitlines()
    assert expected in first
    assert all(line.startswith("make: ***") for line in rest)
    assert result.returncode == 2
    assert checkout.did == []


def test_a_missing_python_is_one_clear_line(checkout: Checkout) -> None:
    checkout.python.unlink()
    result = checkout.make()
    assert "not found; install Python 3.10 or later" in result.stderr.splitlines()[0]


def test_continuous_integration_runs_the_tests() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines()[-1] == "exec make test"
