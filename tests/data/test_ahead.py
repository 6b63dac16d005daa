"""Real worker processes; a making that a worker finds again by its name."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ensemble_kd.data import Batches, Noise, Table
from ensemble_kd.data.ahead import Ahead
from ensemble_kd.data.orders import Place, Request, Shuffled
from ensemble_kd.errors import UserError
from ensemble_kd.types import Batch


def table(count: int = 60) -> Table:
    pixels = torch.arange(count * 3 * 32 * 32) % 251
    mask = torch.arange(count) % 3 == 0
    inputs = pixels.to(torch.uint8).view(count, 3, 32, 32)
    return Table(inputs, torch.arange(count), 0.3, 0.4, mask)


def requests(count: int, size: int = 2) -> Iterator[Request]:
    return ((torch.arange(size) + size * number, number) for number in range(count))


def same(first: Batch, second: Batch) -> None:
    assert first.view is not None
    assert second.view is not None
    assert torch.equal(first.inputs, second.inputs)
    assert torch.equal(first.target, second.target)
    assert torch.equal(first.index, second.index)
    assert torch.equal(first.view, second.view)
    assert torch.equal(first.mask, second.mask)  # type: ignore[arg-type]
    assert len(first.views) == len(second.views) == 1
    assert torch.equal(first.views[0], second.views[0])


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_make_the_same_batches_epoch_after_epoch(workers: int) -> None:
    order = Shuffled(torch.arange(60), 8, seed=3, size=100)
    now = [Place(0)]
    batches = Batches(table(), order, lambda: now[-1], Noise(0.1), 5, views=2, cycle=4)
    alone = Batches(table(), order, lambda: now[-1], Noise(0.1), 5, views=2, cycle=4)
    batches.fetch = Ahead(batches.make, workers)
    random = torch.get_rng_state()
    for epoch in range(3):
        now.append(Place(epoch))
        for first, second in zip(batches, alone, strict=True):
            same(first, second)
        given_up = iter(batches)
        for _ in range(epoch):
            next(given_up)
        del given_up
    assert torch.equal(torch.get_rng_state(), random)


def test_one_batch_needs_no_process() -> None:
    batches = Batches(table(), Shuffled(torch.arange(60), 8, seed=3), Place)
    ahead = Ahead(batches.make, 1)
    batches.fetch = ahead
    next(iter(batches))
    assert len(list(ahead(requests(1)))) == 1
    assert ahead._loader is None


def test_two_passes_at_the_same_time() -> None:
    batches = Batches(table(), Shuffled(torch.arange(60), 8, seed=3), Place, Noise(0.1))
    batches.fetch = Ahead(batches.make, 1)
    for first, second in zip(batches, batches, strict=True):
        assert torch.equal(first.inputs, second.inputs)


def refusing(rows: Tensor, visits: Tensor | int) -> Batch:
    if int(rows[0]) == 4:
        raise UserError("a.png cannot be read")
    return Batch(rows, rows, torch.tensor([os.getpid()]))


def dying(rows: Tensor, visits: Tensor | int) -> Batch:
    if int(rows[0]) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return Batch(rows, rows, rows)


def failing(rows: Tensor, visits: Tensor | int) -> Batch:
    if int(rows[0]) == 4:
        raise ZeroDivisionError("a mistake in a program")
    return Batch(rows, rows, rows)


def confessing(rows: Tensor, visits: Tensor | int) -> Batch:
    return Batch(rows, rows, torch.tensor([os.getpid(), "pytorch_lightning" in sys.modules]))


def test_workers_do_without_lightning() -> None:
    *_, last = Ahead(confessing, 1)(requests(4))
    worker, loaded = last.index.tolist()
    assert worker != os.getpid()
    assert not loaded


def test_what_a_worker_refuses_is_one_line() -> None:
    ahead = Ahead(refusing, 1)
    for _ in range(2):  # and the workers live on
        made = ahead(requests(4))
        seen = [int(next(made).index), int(next(made).index)]
        with pytest.raises(UserError) as refusal:
            next(made)
        assert str(refusal.value) == "a.png cannot be read"
    assert seen[0] == seen[1] != os.getpid()


def test_a_mistake_in_a_program_keeps_its_kind() -> None:
    with pytest.raises(ZeroDivisionError, match="a mistake in a program"):
        list(Ahead(failing, 1)(requests(4)))


def test_a_worker_that_dies_is_one_line() -> None:
    with pytest.raises(UserError) as refusal:
        list(Ahead(dying, 1)(requests(4)))
    assert str(refusal.value).startswith("data: a worker process ended unexpectedly")
    assert "data.workers=0" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_no_file_descriptors_are_left() -> None:
    make = functools.partial(table().batch, augment=Noise(0.1), views=2)
    counts = []
    for _ in range(3):
        ahead = Ahead(make, 2)
        for _ in range(2):
            batches = list(ahead(requests(12)))
            assert batches[-1].inputs.is_shared()
            del batches
            counts.append(open_files())
        del ahead
        counts.append(open_files())
    # The first round may start the server that forks the workers.
    assert counts[3] == counts[4]  # a second pass
    assert counts[3:6] == counts[6:]  # other workers
    assert counts[5] < counts[4]


def open_files() -> int:
    gc.collect()  # other tests' workers, which an exception held
    return len(os.listdir("/proc/self/fd"))


SCRIPT = """
import os, signal, torch
from ensemble_kd.data import Table
from ensemble_kd.data.ahead import Ahead

def make(rows, visits):
    batch = Table(torch.zeros(9, 1), torch.arange(9)).batch(rows)
    return batch._replace(target=torch.tensor([os.getpid()]))

if __name__ == "__main__":
    # Whoever runs the tests in the background of a shell has it ignored, and so would this.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    forever = ((torch.tensor([k % 9]), k) for k in iter(int, 1))
    for number, batch in enumerate(Ahead(make, 2)(forever)):
        if number < 8:
            print(int(batch.target), flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left(tmp_path: Path, how: signal.Signals) -> None:
    """Ctrl-C reaches all processes of a group; a kill only one."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        started = [int(process.stdout.readline()) for _ in range(8)]
        workers = set(started) - {process.pid}
        assert len(workers) == 2
        # Python loses an interrupt that comes while something is being thrown away.
        for _ in range(20):
            (os.killpg if how == signal.SIGINT else os.kill)(process.pid, how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                _, said = process.communicate(timeout=3)
                break
        assert process.returncode not in (0, None)
        assert said.count("Traceback") <= 2  # the program's own, and none of a worker
        while any(_alive(worker) for worker in workers):
            time.sleep(0.05)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.parametrize(
    ("workers", "ahead", "message"),
    [(0, 2, "workers must be >= 1, got 0"), (1, 0, "ahead must be >= 1, got 0")],
)
def test_arguments_out_of_range(workers: int, ahead: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ahead(failing, workers, ahead)
