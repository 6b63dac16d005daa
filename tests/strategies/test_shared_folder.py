"""Replicas that meet in a folder: whom they wait for, whom not, and what they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from torch import Tensor

from ensemble_kd.errors import UserError
from ensemble_kd.strategies.exchange import NEVER, Received
from ensemble_kd.strategies.shared_folder import SharedFolder

LAYOUT = {"seed": 0, "burn_in": 2, "exchange": 5, "networks": ["a", "b"]}


def state(value: float) -> dict[str, Tensor]:
    return {"weight": torch.full((3, 2), float(value)), "count": torch.tensor(int(value))}


def joined(
    folder: Path, replica: int, patience: float = 0.0, replicas: int = 2, step: int = 0
) -> SharedFolder:
    medium = SharedFolder(folder, replica, replicas, patience)
    medium.open(LAYOUT, [state(0.0)] * replicas, step)
    return medium


def steps(received: Received) -> dict[int, int]:
    return {copy.replica: copy.step for copy in received.copies}


def names(folder: Path, replica: int) -> list[str]:
    return sorted(path.name.rpartition(".step-")[2][:10] for path in published(folder, replica))


def published(folder: Path, replica: int) -> list[Path]:
    return sorted(folder.glob(f"replica-{replica}.step-*"))


def nobody(replicas: int = 2) -> list[int]:
    return [NEVER] * replicas


def test_who_waits_gets_the_copy_of_the_same_step(tmp_path: Path) -> None:
    """Two replicas at their own pace, a hundred exchanges: never a copy of another step."""
    found: dict[int, list[tuple[int, float]]] = {0: [], 1: []}

    def train(replica: int) -> None:
        medium, held = joined(tmp_path, replica, patience=60.0), nobody()
        for step in range(2, 100):
            received = medium.swap(step, state(100 * replica + step), held)
            ((_, at, other),) = received.copies
            held[1 - replica] = at
            found[replica].append((at, float(other["weight"][0, 0])))
            assert int(other["count"]) == int(other["weight"][0, 0])
        medium.close(100, state(0.0))

    threads = [threading.Thread(target=train, args=(replica,)) for replica in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for replica in (0, 1):
        expected = [(step, 100.0 * (1 - replica) + step) for step in range(2, 100)]
        assert found[replica] == expected
        assert names(tmp_path, replica) == ["0000000099", "0000000100"]


def test_without_patience_the_newest_copy_is_taken_once(tmp_path: Path) -> None:
    one, other = joined(tmp_path, 0), joined(tmp_path, 1)
    first = one.swap(2, state(1.0), nobody())
    assert first.copies == []
    assert first.sent == published(tmp_path, 0)[0].stat().st_size
    assert first.got == 0
    second = other.swap(2, state(2.0), nobody())
    assert steps(second) == {0: 2}
    assert second.got == first.sent
    one.swap(7, state(1.0), nobody())
    one.swap(12, state(1.0), nobody())
    assert steps(other.swap(7, state(2.0), [2, NEVER])) == {0: 7}
    assert steps(other.swap(17, state(2.0), [7, NEVER])) == {0: 12}
    assert other.swap(22, state(2.0), [12, NEVER]).copies == []


def test_who_does_not_come_is_given_up_once_and_comes_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    now = [0.0]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    one, other = joined(tmp_path, 0, patience=8.0, replicas=3), joined(tmp_path, 1, replicas=3)
    other.swap(2, state(1.0), nobody(3))
    assert steps(one.swap(2, state(0.0), nobody(3))) == {1: 2}
    assert sum(slept) == pytest.approx(8.0)
    said = capsys.readouterr().err.split("\n")
    assert said[1::2] == [
        "replica 0 waits for replica 2 at step 2",
        "replica 0 goes on without replica 2 at step 2, with the copies that it holds: none",
    ]
    held = [NEVER, 2, NEVER]
    slept.clear()
    one.swap(7, state(0.0), held)  # now replica 1 is late as well; nobody waits for 2 alone
    assert "without replica 1 at step 7" in capsys.readouterr().err
    slept.clear()
    assert one.swap(12, state(0.0), held).copies == []
    assert slept == []
    assert capsys.readouterr().err == ""
    other.swap(12, state(1.0), nobody(3))
    assert steps(one.swap(12, state(0.0), held)) == {1: 12}
    held[1] = 12
    one.swap(17, state(0.0), held)  # it is waited for again
    assert sum(slept) == pytest.approx(8.0)


def test_nobody_waits_for_who_is_done(tmp_path: Path) -> None:
    one, other = joined(tmp_path, 0, patience=1e9), joined(tmp_path, 1)
    other.close(9, state(3.0))
    assert steps(one.swap(2, state(0.0), nobody())) == {1: 9}
    assert one.swap(14, state(0.0), [NEVER, 9]).copies == []
    assert one.swap(19, state(0.0), [NEVER, 9]).copies == []


def test_two_processes_do_not_train_the_same_replica(tmp_path: Path) -> None:
    one = joined(tmp_path, 1)
    with pytest.raises(
        UserError, match=r"strategy.replica: expected one that nobody trains, got 1"
    ):
        joined(tmp_path, 1)
    joined(tmp_path, 0)
    one.close(3, state(0.0))
    joined(tmp_path, 1)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("seed", 1, "seed is 0 there and 1 here"),
        ("networks", ["a", "c"], r"networks is \['a', 'b'\] there and \['a', 'c'\] here"),
        ("data", "d", "data is None there and 'd' here"),
    ],
)
def test_replicas_of_another_set_up_are_refused(
    tmp_path: Path, key: str, value: object, words: str
) -> None:
    joined(tmp_path, 0)
    medium = SharedFolder(tmp_path, 1, 2, 0.0)
    with pytest.raises(UserError, match=f"strategy.across: .* of another set-up: {words}"):
        medium.open({**LAYOUT, key: value}, [state(0.0)] * 2, 0)
    assert json.loads((tmp_path / "layout.json").read_text()) == LAYOUT


@pytest.mark.parametrize("text", ["", "[1, 2", "3", '{"seed"'])
def test_a_damaged_layout_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "layout.json").write_text(text)
    with pytest.raises(UserError, match=r"layout.json is damaged: take another folder"):
        joined(tmp_path, 0)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"strategy.across: expected a folder that can be written"):
        SharedFolder(tmp_path / "file" / "swap", 0, 2, 0.0)


def test_a_folder_that_goes_away_is_one_line(tmp_path: Path) -> None:
    medium = joined(tmp_path / "swap", 0)
    for path in (tmp_path / "swap").iterdir():
        path.unlink()
    (tmp_path / "swap").rmdir()
    with pytest.raises(UserError, match=r"strategy.across: expected a folder that can be written"):
        medium.swap(2, state(0.0), nobody())


@pytest.mark.parametrize("step", [0, 5])
def test_who_begins_again_withdraws_its_copies_and_who_goes_on_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], step: int
) -> None:
    killed, other = joined(tmp_path, 1), joined(tmp_path, 0)
    for at in (2, 7):
        killed.swap(at, state(1.0), nobody())
        other.swap(at, state(1.0), nobody())
    del killed  # and with it the lock
    unfinished = tmp_path / ".replica-1.step-0000000012.x.safetensors.123"
    unfinished.touch()
    capsys.readouterr()
    joined(tmp_path, 1, step=step)
    assert not unfinished.exists()
    assert names(tmp_path, 1) == ([] if step == 0 else ["0000000002", "0000000007"])
    assert names(tmp_path, 0) == ["0000000002", "0000000007"]
    said = "holds later copies, which will teach: replica 0 at step 7"
    assert (said in capsys.readouterr().err) == (step == 0)


def test_a_copy_is_never_taken_back_for_an_older_one(tmp_path: Path) -> None:
    """A replica that begins again teaches others only when it has come as far as before."""
    one, other = joined(tmp_path, 0), joined(tmp_path, 1)
    other.swap(2, state(1.0), nobody())
    assert one.swap(12, state(0.0), [NEVER, 7]).copies == []
    other.swap(12, state(1.0), nobody())
    assert steps(one.swap(17, state(0.0), [NEVER, 7])) == {1: 12}


def test_what_was_not_published_by_a_replica_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    one = joined(tmp_path, 0)
    one.swap(2, state(0.0), nobody())
    one.close(3, state(0.0))
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with FileLock(tmp_path / "replica-0.lock", timeout=0):
        pass


PROCESS = """
import os, sys
from pathlib import Path
import torch
from torch import distributed
from ensemble_kd.errors import UserError
from ensemble_kd.strategies.shared_folder import SharedFolder

folder, layout = Path(sys.argv[1]), eval(sys.argv[2])
other = os.fork()  # only now: the imports take longer than all the rest
rank = 0 if other else 1
distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
state = {"weight": torch.zeros(3, 2), "count": torch.tensor(rank)}
medium = SharedFolder(folder, 0, 2, 0.0)
medium.open(layout, [state, state], 0)
(copy,) = medium.swap(2, state, [-1, -1]).copies
said = [f"{copy.step} {copy.state['count']}"]
try:
    SharedFolder(folder, 0, 2, 0.0).open(layout, [state, state], 0)
except UserError as failure:
    said.append(str(failure))
(folder / f"said{rank}").write_text("; ".join(said))
distributed.destroy_process_group()
if other:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))
"""


def test_processes_that_train_together_use_the_same_copies(tmp_path: Path) -> None:
    """The first of them writes and reads; both hear of what came, and of what went wrong."""
    joined(tmp_path, 1).swap(2, state(4.0), nobody())
    command = [sys.executable, "-c", PROCESS, str(tmp_path), repr(LAYOUT)]
    subprocess.run(command, check=True)
    for rank in (0, 1):
        copied, _, failed = (tmp_path / f"said{rank}").read_text().partition("; ")
        assert copied == "2 4"
        assert "got 0, which another process trains" in failed
    (own,) = published(tmp_path, 0)
    assert int(load_file(own)["count"]) == 0
