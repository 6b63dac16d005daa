"""python benchmarks/runtimes.py: three live teachers, in every way to run them.

The teachers are convolutional networks of one architecture, at 28 pixels in batches of 128 and at
8 pixels in batches of 64. Each way answers the same batch in turn, round after round; the figures
are medians over the rounds of CPU time and of wall time, as ratios to calling the networks one
after the other in the same round. Memory is kept by the C library as it is, unless the environment
says otherwise.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, get_args

import torch
from timing import Cost, bars, begin, interleaved, milliseconds, publish, ratio, shown, table, timed
from torch import Tensor, nn

from ensemble_kd.networks import Cnn, ResNet
from ensemble_kd.teachers.runtimes import (
    Allowed,
    Runtime,
    Stacked,
    Unavailable,
    choose_together,
    runtimes,
)
from ensemble_kd.teachers.runtimes.together import AtOnce, InTurn

CLASSES, TEACHERS, PLAIN = 10, 3, "plain"
FAST = 0.45
"""Of the plain way's time, what ``fast`` is to reach."""

Answers = Callable[[Any], tuple[Tensor, ...]]


class Case(NamedTuple):
    """Teachers and what they are asked."""

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, int, int, int]


class Prepared(NamedTuple):
    """Ways that can be asked, with what preparing them took, and why the others cannot."""

    answers: Mapping[str, Answers]
    seconds: Mapping[str, float]
    why_not: Mapping[str, str]


CASES = (
    Case("cnn, 28 px, batch 128", lambda: Cnn([1, 28, 28], CLASSES, [32, 64]), (128, 1, 28, 28)),
    Case("cnn, 8 px, batch 64", lambda: Cnn([1, 8, 8], CLASSES, [32, 64]), (64, 1, 8, 8)),
    Case("resnet-20, 28 px, batch 128", lambda: ResNet([1, 28, 28], CLASSES, 20), (128, 1, 28, 28)),
    Case("resnet-20, 8 px, batch 64", lambda: ResNet([1, 8, 8], CLASSES, 20), (64, 1, 8, 8)),
)


def teachers(case: Case) -> list[nn.Module]:
    """Networks with BatchNorm statistics unlike those of a new one."""
    torch.manual_seed(0)
    made = [case.make() for _ in range(TEACHERS)]
    for network in made:
        network.train()
        with torch.no_grad():
            for _ in range(3):
                network(2 * torch.randn(case.shape) + 0.5)
        network.eval().requires_grad_(False)
    return made


def prepare(networks: list[nn.Module], inputs: Tensor, compiled: bool) -> Prepared:
    answers: dict[str, Answers] = {}
    seconds: dict[str, float] = {}
    why_not: dict[str, str] = {}

    def ready(name: str, make: Callable[[], Answers]) -> None:
        start = time.perf_counter()
        try:
            answers[name] = make()
        except Unavailable as closed:
            why_not[name] = closed.reason
        seconds[name] = time.perf_counter() - start

    for way in runtimes():
        if way.name == "compiled" and not compiled:
            why_not[way.name] = "only with --compiled"
            continue
        ready(way.name, partial(_in_turn, way, networks, inputs))
    ready("stacked", lambda: AtOnce(Stacked().prepare(networks, inputs)))
    for allowed in get_args(Allowed):
        start = time.perf_counter()
        made = choose_together(networks, inputs, allowed)
        name = f"{allowed} ({made.names[0]})"
        answers[name], seconds[name] = made.answers, time.perf_counter() - start
    return Prepared(answers, seconds, why_not)


def _in_turn(way: Runtime, networks: list[nn.Module], inputs: Tensor) -> InTurn:
    return InTurn([way.prepare(network, inputs) for network in networks])


def measure(answers: Mapping[str, Answers], inputs: Tensor, rounds: int) -> dict[str, list[Cost]]:
    return interleaved({n: timed(partial(a, inputs)) for n, a in answers.items()}, rounds)


def difference(answers: Answers, plain: Answers, inputs: Tensor) -> float:
    pairs = zip(answers(inputs), plain(inputs), strict=True)
    return max((ours - theirs).abs().max().item() for ours, theirs in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compiled", action="store_true", help="torch.compile, too: a minute more")
    parser.add_argument("--case", help="only cases whose name contains this")
    arguments = begin(parser, rounds=15)
    torch.set_num_threads(arguments.threads)
    capability = torch.backends.cpu.get_cpu_capability()
    lines = [f"Threads: {arguments.threads}; instructions: {capability}.", ""]
    rows, drawn = [], {}
    for case in CASES:
        if arguments.case and arguments.case not in case.name:
            continue
        networks, inputs = teachers(case), torch.randn(case.shape)
        made = prepare(networks, inputs, arguments.compiled)
        costs = measure(made.answers, inputs, arguments.rounds)
        for name, taken in costs.items():
            found = ratio(taken, costs[PLAIN])
            gap = difference(made.answers[name], made.answers[PLAIN], inputs)
            cells = f"{milliseconds(taken):.2f} ms", shown(found), f"{found.wall:.3f}"
            extra = f"{made.seconds.get(name, 0.0):.1f} s", f"{gap:.0e}" if gap else "0"
            rows.append([f"{TEACHERS} x {case.name}", name, *cells, *extra])
            if name.startswith(get_args(Allowed)):
                drawn[f"{case.name}: {name}"] = found
        for name, reason in made.why_not.items():
            rows.append([f"{TEACHERS} x {case.name}", name, reason, "", "", "", ""])
    columns = ("teachers", "way", "a batch", "CPU [quartiles]", "wall", "prepared in", "difference")
    publish("runtimes", lines + table(columns, rows))
    limits = {name: FAST for name in drawn if ": fast" in name}
    bars("runtimes", drawn, limits, "CPU time / one after the other, as they are")


if __name__ == "__main__":
    main()
