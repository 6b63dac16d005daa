"""The processes that torchrun or srun started together for one run; mostly there is just this one.

Processes that a trainer starts itself (``trainer.strategy=ddp_spawn``) are none of these: they come
and go within a stage, and know nothing of the run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import (
    AbstractContextManager,
    ExitStack,
    contextmanager,
    redirect_stderr,
    redirect_stdout,
)
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from ensemble_kd.distributed.launched import Place, by_srun, by_torchrun
from ensemble_kd.errors import UserError

if TYPE_CHECKING:
    from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
    from torch.distributed.distributed_c10d import Store

T = TypeVar("T")

PATIENCE = timedelta(days=7)
"""How long one process waits for another that lives: the first evaluates alone, or waits itself for
another run that trains what both need. That a process died is known at once."""

ARRIVAL = timedelta(minutes=10)
"""How long the processes of a group have to find each other."""

SPEECH = 1.0
"""Seconds that failed processes have to find out which of them says so."""

FAILURES = "failures"
"""The key under which the processes of a group count those that failed."""

_ALONE: ContextVar[bool] = ContextVar("alone", default=False)


class Told(UserError):  # noqa: N818  # it is told, where an error is said
    """The group failed, and another of its processes says why."""


def place() -> Place:
    """Which process of the group this is; (0, 1) without a group, and within ``first``."""
    if _ALONE.get():
        return Place(0, 1)
    return by_torchrun() or by_srun() or Place(0, 1)


def rank() -> int:
    """The number of this process in the group, from 0."""
    return place().rank


def size() -> int:
    """The number of processes in the group; 1 without one."""
    return place().size


def is_first() -> bool:
    """Whether this is the process that writes and speaks."""
    return rank() == 0


def environment() -> ClusterEnvironment | None:
    """What tells Lightning of the group; None without one.

    Raises:
        UserError: Lightning cannot tell from SLURM how many tasks each machine has.
    """
    if size() == 1:
        return None
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    if by_torchrun() is not None:
        return TorchElasticEnvironment()
    try:
        return SLURMEnvironment(auto_requeue=False)
    except RuntimeError as refusal:
        raise UserError(f"srun: {' '.join(str(refusal).split())}") from refusal


@contextmanager
def group() -> Iterator[None]:
    """Connect the processes of the group; afterwards one of them has said why it failed, if it did.

    Only the first prints. Without a group nothing happens.

    Raises:
        UserError: the processes did not find each other, or one of them ended.
        Told: in all but one of the processes, whatever went wrong.
    """
    whole = environment()
    if whole is None:
        yield
        return
    from torch import cuda, distributed
    from torch.distributed.distributed_c10d import PrefixStore

    if distributed.is_initialized():
        raise UserError("expected processes that are not connected yet, got a process group")
    meeting = _met(whole)
    # A process may have several groups, one after the other, at one meeting place.
    store = PrefixStore(f"run {meeting.add(f'runs of {rank()}', 1)}", meeting)
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda.is_available() else "gloo",
        store=store,
        rank=rank(),
        world_size=size(),
        timeout=PATIENCE,
    )
    try:
        with _silent_but_first():
            yield
    except Exception as failure:
        lost = _is_loss(failure)
        if not (lost or isinstance(failure, UserError)):
            _count(store)
            raise
        if _count(store) > 1:
            # What started the processes ends them all once one has ended: let the other speak.
            time.sleep(2 * SPEECH)
            raise Told(str(failure)) from failure
        if lost:
            raise UserError(
                f"one of the {size()} processes of this run ended before the others: finished "
                "stages are kept in the store; the same command goes on from there"
            ) from failure
        raise
    finally:
        distributed.destroy_process_group()


def first(function: Callable[[], T]) -> T:
    """Call a function in the first process of the group; all get what it returns.

    To be called in every process, outside of another ``first``; within it, as without a group, the
    function is simply called.

    Args:
        function: its result can be pickled. What it calls finds itself without a group.

    Raises:
        UserError: in every process, as in the first.
        KeyboardInterrupt: likewise.
    """
    if size() == 1:
        return function()
    said: list[Any] = [None, None]
    if is_first():
        said = _outcome(function)
    _broadcast(said)
    if said[1] is not None:
        raise said[1]
    return cast(T, said[0])


@contextmanager
def by_first(context: Callable[[], AbstractContextManager[T]]) -> Iterator[T]:
    """Enter a context in the first process only; all get what it yields, and hear if it fails.

    Args:
        context: makes it.
    """
    with ExitStack() as stack:
        yield first(lambda: stack.enter_context(context()))
        first(stack.close)


def together(function: Callable[[], T]) -> T:
    """Call a function in every process of the group; where it fails in one, it fails in all.

    Raises:
        UserError: in every process: its own failure, or else that of the first that failed.
    """
    if size() == 1:
        return function()
    from torch import distributed

    result: list[T] = []
    mistake: UserError | None = None
    try:
        result.append(function())
    except UserError as failure:
        mistake = failure
    mistakes: list[Any] = [None] * size()
    distributed.all_gather_object(mistakes, mistake)
    for found in (mistake, *mistakes):
        if found is not None:
            raise found
    return result[0]


def agreed(value: T, what: str) -> T:
    """The same value in every process of the group.

    Args:
        value: what this process has; can be pickled.
        what: its name, for the message.

    Raises:
        UserError: in every process: it is not the same.
    """
    if first(lambda: value) == value:
        return together(lambda: value)
    return together(lambda: _disagree(what))


def _disagree(what: str) -> NoReturn:
    raise UserError(
        f"{what}: the processes of this run do not agree: expected the same code, packages, "
        "configuration and data on every machine"
    )


def _met(whole: ClusterEnvironment) -> Store:
    """The table of keys that all processes of the group see."""
    from torch import distributed
    from torch.distributed.rendezvous import rendezvous

    os.environ["MASTER_ADDR"] = whole.main_address
    os.environ["MASTER_PORT"] = str(whole.main_port)
    try:
        meeting = rendezvous("env://", rank(), size(), timeout=ARRIVAL)
        store: Store = next(meeting)[0]
    except distributed.DistError as failure:
        raise UserError(
            f"process {rank()} of {size()}: expected to find the others at {whole.main_address}, "
            f"port {whole.main_port}, got {' '.join(str(failure).split())}"
        ) from failure
    return store


def _outcome(function: Callable[[], Any]) -> list[Any]:
    """What a function returned, and what it raised."""
    token = _ALONE.set(True)
    try:
        return [function(), None]
    except (UserError, KeyboardInterrupt) as failure:
        return [None, failure]
    finally:
        _ALONE.reset(token)


def _broadcast(said: list[Any]) -> None:
    from torch import distributed

    distributed.broadcast_object_list(said, src=0)


@contextmanager
def _silent_but_first() -> Iterator[None]:
    if is_first():
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def _is_loss(failure: Exception) -> bool:
    """Whether another process is gone: gloo names its file, NCCL and the store have types."""
    from torch import distributed

    return isinstance(failure, distributed.DistError) or (
        isinstance(failure, RuntimeError) and "gloo/transport" in str(failure)
    )


def _count(store: Store) -> int:
    """How many processes have failed by now, with this one."""
    from torch import distributed

    try:
        failed = store.add(FAILURES, 1)
    except (distributed.DistError, RuntimeError):
        return 1  # the store went with the process that kept it
    if is_first():
        time.sleep(SPEECH)  # srun has it keep the store, in which the others have yet to count
    return failed
