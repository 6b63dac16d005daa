"""What the smaller commands have in common."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ensemble_kd.commands import Parser, status
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
