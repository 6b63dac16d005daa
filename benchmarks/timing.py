"""Comparing ways to do the same work: interleaved rounds, medians of ratios, a table and a plot.

Machines are noisy. So the ways take turns, round after round; a figure is the median, over the
rounds, of the ratio to a reference way of the same round, with the quartiles beside it. CPU time is
what to read: it is hardly touched by what else a machine does.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "performance.md"
PLOTS = DOCS / "performance"


class Cost(NamedTuple):
    """What some work took, in seconds."""

    cpu: float
    wall: float


class Ratio(NamedTuple):
    """What one way costs as a multiple of another: medians over the rounds.

    Attributes:
        cpu: of CPU time.
        low: its first quartile.
        high: its third quartile.
        wall: of wall time.
    """

    cpu: float
    low: float
    high: float
    wall: float


Way = Callable[[], Cost]
"""Does the work once, and says what the part of it took that is compared."""


def begin(parser: argparse.ArgumentParser, rounds: int) -> argparse.Namespace:
    """Read the command line, with ``--rounds`` in it; from here on one thread and no warnings."""
    parser.add_argument("--rounds", type=int, default=rounds)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    return parser.parse_args()


def now() -> Cost:
    """The clocks of this process, as they are."""
    return Cost(time.process_time(), time.perf_counter())


def since(start: Cost) -> Cost:
    """What has gone by on them."""
    return Cost(time.process_time() - start.cpu, time.perf_counter() - start.wall)


def timed(work: Callable[[], object]) -> Way:
    """A way of which everything is compared."""

    def way() -> Cost:
        start = now()
        work()
        return since(start)

    return way


def interleaved(ways: Mapping[str, Way], rounds: int) -> dict[str, list[Cost]]:
    """The costs of all ways, round by round; a first round warms up and does not count."""
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, go in ways.items():
            cost = go()
            if number:
                costs[name].append(cost)
    return costs


def ratio(ours: Sequence[Cost], theirs: Sequence[Cost]) -> Ratio:
    """One way against another, round by round."""
    pairs = list(zip(ours, theirs, strict=True))
    cpu = [mine.cpu / other.cpu for mine, other in pairs]
    low, _, high = statistics.quantiles(cpu, n=4) if len(cpu) > 1 else cpu * 3
    wall = statistics.median(mine.wall / other.wall for mine, other in pairs)
    return Ratio(statistics.median(cpu), low, high, wall)


def milliseconds(costs: Sequence[Cost]) -> float:
    """The median of CPU time."""
    return 1000 * statistics.median(cost.cpu for cost in costs)


def shown(found: Ratio) -> str:
    """A ratio as the cell of a table."""
    return f"{found.cpu:.3f} [{found.low:.3f}, {found.high:.3f}]"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown, as lines."""
    return [
        f"| {' | '.join(columns)} |",
        f"|{'|'.join('---' for _ in columns)}|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def publish(name: str, lines: Sequence[str]) -> None:
    """Print the lines, and put them into the page where it says ``<!-- name -->``."""
    print("\n".join(lines))
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    text = PAGE.read_text()
    if begin not in text or end not in text:
        raise SystemExit(f"{PAGE}: expected a place for {name}, between {begin.strip()} and {end}")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    PAGE.write_text(before + begin + "\n".join(lines) + "\n" + end + after)


def bars(name: str, ratios: dict[str, Ratio], to_reach: Mapping[str, float], unit: str) -> None:
    """Draw ratios with their quartiles, and the figures that are to be reached."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.1 + 0.4 * len(ratios)), layout="constrained")
    axes = figure.subplots()
    for place, (way, found) in enumerate(reversed(ratios.items())):
        axes.barh(place, found.cpu, height=0.55, color="#0f6fae")
        axes.plot([found.low, found.high], [place, place], color="black", linewidth=1.5)
        beside = max(found.high, to_reach.get(way, 0.0))
        axes.text(beside, place, f"  {found.cpu:.2f}", va="center")
        if way in to_reach:
            axes.plot([to_reach[way]] * 2, [place - 0.4, place + 0.4], color="#c0392b", linewidth=2)
    axes.set_yticks(range(len(ratios)), list(reversed(ratios)))
    # Of the figure and not of the axes, which long names make narrow.
    figure.supxlabel(
        f"{unit}; black: quartiles" + ("; red: to be reached" if to_reach else ""), size="medium"
    )
    axes.set_xlim(0, 1.12 * max(found.high for found in ratios.values()))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    PLOTS.mkdir(exist_ok=True)
    figure.savefig(PLOTS / f"{name}.png", dpi=110)
