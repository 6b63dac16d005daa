"""Replicas that hand each other copies through a folder that all of them see."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from filelock import FileLock, Timeout
from torch import distributed

from ensemble_kd.errors import UserError
from ensemble_kd.files import overwrite
from ensemble_kd.plain_files import read_json
from ensemble_kd.strategies.exchange import Copy, Received, State, differing
from ensemble_kd.strategies.published import Published, say

T = TypeVar("T")

KEY = "strategy.across"
LAYOUT = "layout.json"

SAID_AFTER = 5.0
"""Seconds of waiting after which a line says for whom."""

LONGEST_PAUSE = 0.5
"""Seconds between two looks into the folder, at most."""


class SharedFolder:
    """Each replica writes files of its own into a folder, and reads those of the others.

    A copy is one safetensors file, written under another name and renamed when it is whole; nothing
    is unpickled. A lock keeps a second process from training the same replica. In a training by
    several processes (DDP) the first of them writes and reads for all.

    Args:
        folder: an absolute path; made if it is not there.
        replica: the number of the replica that this process trains.
        replicas: how many there are.
        patience: seconds to wait, at an exchange, for the copies of the others of that same
            exchange. Who did not come in time is not waited for before a newer copy of it is there.

    Raises:
        UserError: the folder cannot be written.
    """

    shares_a_run = False

    def __init__(self, folder: Path, replica: int, replicas: int, patience: float) -> None:
        self.folder = folder
        self.replica = replica
        self.others = [number for number in range(replicas) if number != replica]
        self.patience = patience
        self._expect_writable()
        self._published = Published(folder, ())
        self._lock: FileLock | None = None
        self._late: set[int] = set()
        self._told: set[int] = set()

    def own(self) -> int:
        """The number of the replica that this process trains."""
        return self.replica

    def open(self, layout: Mapping[str, Any], expected: Sequence[State], step: int) -> None:
        """See that the folder belongs to replicas of the same set-up, and that this one is free.

        A replica that begins again withdraws what an earlier attempt of it published.

        Raises:
            UserError: it does not, or is not, or the folder cannot be written.
        """
        self._published = Published(self.folder, expected)
        self._late, self._told = set(), set()
        self._as_one(lambda: self._opened(layout, step))

    def swap(self, step: int, state: State, held: Sequence[int]) -> Received:
        """Publish, then wait for the others as long as ``patience`` lasts, and read what is new.

        Raises:
            UserError: the folder cannot be written.
        """
        return self._as_one(lambda: self._swapped(step, state, held))

    def close(self, step: int, state: State) -> Received:
        """Leave the last copy, for which nobody has to wait any more.

        Raises:
            UserError: the folder cannot be written.
        """
        return self._as_one(lambda: self._closed(step, state))

    def _as_one(self, function: Callable[[], T]) -> T:
        """Call a function in the first of the processes that train this replica together."""

        def told() -> T:
            try:
                return function()
            except OSError as failure:
                raise self._unusable(failure) from failure

        return as_one(told)

    def _opened(self, layout: Mapping[str, Any], step: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.folder / f"replica-{self.replica}.lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout as taken:
            raise UserError(
                f"strategy.replica: expected one that nobody trains, got {self.replica}, which "
                f"another process trains in {self.folder}"
            ) from taken
        with FileLock(self.folder / f"{LAYOUT}.lock"):
            self._agree(layout)
        self._published.withdraw(self.replica, everything=step == 0)
        before = {number: self._published.of(number) for number in self.others}
        late = {k: files[-1].step for k, files in before.items() if files}
        ahead = [f"replica {k} at step {n}" for k, n in late.items() if n > layout["burn_in"]]
        if ahead and step == 0:
            say(f"{self.folder} holds later copies, which will teach: {', '.join(ahead)}")

    def _agree(self, layout: Mapping[str, Any]) -> None:
        path = self.folder / LAYOUT
        if not path.exists():
            overwrite(path, (json.dumps(layout, indent=2) + "\n").encode())
            return
        try:
            difference = differing(dict(read_json(path)), layout)
        except (OSError, ValueError, TypeError) as failure:
            raise UserError(f"{KEY}: {path} is damaged: take another folder") from failure
        if difference:
            raise UserError(
                f"{KEY}: {self.folder} belongs to replicas of another set-up: {difference}: take "
                "another folder"
            )

    def _swapped(self, step: int, state: State, held: Sequence[int]) -> Received:
        sent = self._published.write(self.replica, step, state, final=False)
        came: dict[int, tuple[Copy, int]] = {}
        begun, said, pause = time.monotonic(), False, 0.01
        while True:
            waiting = [k for k in self.others if not self._settled(k, step, held[k], came)]
            waited = time.monotonic() - begun
            if not waiting or waited >= self.patience:
                break
            if waited >= SAID_AFTER and not said:
                say(f"replica {self.replica} waits for {_named(waiting)} at step {step}")
                said = True
            time.sleep(min(pause, self.patience - waited))
            pause = min(2 * pause, LONGEST_PAUSE)
        for number in self.others:
            if number not in came:
                self._read(number, step, held[number], came, late=True)
        self._late = (self._late | set(waiting)) - set(came)
        used = list(held)
        for number, (copy, _) in came.items():
            used[number] = copy.step
        self._tell(set(waiting), step, used)
        return Received([copy for copy, _ in came.values()], sent, sum(n for _, n in came.values()))

    def _settled(
        self, number: int, step: int, held: int, came: dict[int, tuple[Copy, int]]
    ) -> bool:
        """Whether a replica is not worth waiting for; what it has published for now is read."""
        if number in came or held >= step:
            return True
        if self._read(number, step, held, came):
            return True
        found = self._published.of(number)
        if any(file.final and file.step <= held for file in found):
            return True  # its last one, which is held
        return number in self._late and all(file.step <= held for file in found)

    def _read(
        self,
        number: int,
        step: int,
        held: int,
        came: dict[int, tuple[Copy, int]],
        late: bool = False,
    ) -> bool:
        read = self._published.read(number, step, held, late)
        if read is None:
            return False
        came[number] = read
        return True

    def _tell(self, behind: set[int], step: int, used: Sequence[int]) -> None:
        """Say once of each replica that it did not come in time."""
        new = sorted(behind - self._told)
        self._told = behind | (self._told & self._late)
        if new and self.patience > 0:
            copies = ", ".join("none" if used[k] < 0 else f"that of step {used[k]}" for k in new)
            say(
                f"replica {self.replica} goes on without {_named(new)} at step {step}, with the "
                f"copies that it holds: {copies}"
            )

    def _closed(self, step: int, state: State) -> Received:
        sent = self._published.write(self.replica, step, state, final=True)
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        return Received([], sent, 0)

    def _expect_writable(self) -> None:
        existing = self.folder
        try:
            while not existing.exists() and existing != existing.parent:
                existing = existing.parent
            os.rmdir(tempfile.mkdtemp(prefix=".ensemble_kd-", dir=existing))
        except OSError as failure:
            raise self._unusable(failure) from failure

    def _unusable(self, failure: OSError) -> UserError:
        reason = failure.strerror or str(failure)
        return UserError(
            f"{KEY}: expected a folder that can be written, got {self.folder}: {reason}"
        )


def as_one(function: Callable[[], T]) -> T:
    """Call a function in the first of the processes that train together; all get its result.

    Raises:
        UserError: in every process, as in the first.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return function()
    if distributed.get_world_size() == 1:
        return function()
    said: list[Any] = [None, None]
    if distributed.get_rank() == 0:
        try:
            said[0] = function()
        except UserError as failure:
            said[1] = failure
    distributed.broadcast_object_list(said, src=0)
    if said[1] is not None:
        raise said[1]
    return cast(T, said[0])


def _named(numbers: Sequence[int]) -> str:
    return ", ".join(f"replica {number}" for number in numbers)
