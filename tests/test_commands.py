"""What the smaller commands have in common."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest
from safetensors import SafetensorError

from ensemble_kd.commands import Parser, full_disk, status
from ensemble_kd.errors import UserError


def failing(failure: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise failure

    return work


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        (UserError("key: expected one, got none"), 2, "error: key: expected one, got none\n"),
        (KeyboardInterrupt(), 130, "stopped here\n"),
    ],
    ids=["mistake", "interrupt"],
)
def test_what_stops_a_command_is_one_line(
    failure: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(failing(failure), "stopped here") == code
    assert capsys.readouterr() == ("", said)


def test_a_status_is_handed_on_and_nothing_is_zero() -> None:
    assert status(lambda: None) == 0
    assert status(lambda: 1) == 1


def test_other_failures_are_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        status(failing(ZeroDivisionError()))


def test_a_wrong_argument_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser(prog="it")
    parser.add_argument("--many", type=int)
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["--many", "few"])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "error: argument --many: invalid int value: 'few'"


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_one_line(reason: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(failing(OSError(reason, os.strerror(reason), "a/file"))) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {os.strerror(reason)}: a/file: what was whole still is")
    assert said.count("\n") == 1


@pytest.mark.parametrize("said", ["I/O error: No space left (os error 28)", "(os error 122)"])
def test_so_is_one_that_a_library_met(said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(failing(SafetensorError(said))) == 2
    assert ": what was whole still is" in capsys.readouterr().err
    caused = UserError("cannot write")
    caused.__cause__ = OSError(errno.ENOSPC, "No space left on device", "a/file")
    assert str(full_disk(caused)).startswith("No space left on device: a/file: what was whole")
    assert full_disk(UserError("cannot write")) is None
    assert full_disk(SafetensorError("(os error 5)")) is None


def test_other_failures_of_the_system_are_not_hidden() -> None:
    with pytest.raises(OSError, match="Input/output"):
        status(failing(OSError(errno.EIO, os.strerror(errno.EIO))))
