"""``python -m ensemble_kd.forecast OVERRIDES...``: what a run will take, before it is begun.

Plans the run, measures for about a minute what its parts take here, and says for each stage and
in all: steps, time, memory of a process, bytes on disk and bytes over the network. It is an
estimate, of machines like this one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemble_kd.commands import Parser, status
from ensemble_kd.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ensemble_kd.plan import Plan

EXAMPLE = "python -m ensemble_kd.forecast teacher=ensemble5 --samples 1000000 --ranks 8"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit status, 2 for a user's mistake."""
    parser = _parser()
    asked = parser.parse_intermixed_args(arguments)
    return status(lambda: show(asked))


def show(asked: argparse.Namespace) -> None:
    """Print the forecast that a command line asks for.

    Raises:
        UserError: something in it, or in the run that it describes, is wrong.
    """
    from ensemble_kd import job
    from ensemble_kd.forecast import forecast, shown
    from ensemble_kd.forecast.described import Cluster
    from ensemble_kd.forecast.served import Asked
    from ensemble_kd.forecast.survey import Survey

    if (asked.inputs is None) != (asked.classes is None):
        raise UserError("--inputs and --classes: expected both or neither")
    extra_dirs = job.config_dirs(asked.config_dir)
    plan, config = planned(asked.overrides, extra_dirs, asked.inputs, asked.classes)
    wanted = Asked(asked.samples, asked.held_out, asked.seconds)
    survey = Survey(plan, config, wanted, made_up=asked.inputs is not None)
    found = survey.job()
    # Of a process that has done everything once, and so has loaded what there is to load.
    base = max(0, resident() - survey.held())
    cluster = Cluster(
        asked.ranks or processes(survey.trainer),
        1e9 * asked.bandwidth,
        1e-6 * asked.latency,
        started(survey.trainer, asked.ranks),
        base,
    )
    said = forecast(found, cluster)
    notes = [*survey.notes, *remarks(plan, config, cluster)]
    if asked.json:
        print(shown.as_json(said, found, cluster, notes))
    else:
        shown.show(said, found, cluster, notes)


def planned(
    overrides: Sequence[str],
    extra_dirs: Sequence[Path] = (),
    inputs: Sequence[int] | None = None,
    classes: int | None = None,
) -> tuple[Plan, DictConfig]:
    """The plan of the run that some overrides describe, checked as the run would check it.

    Args:
        overrides: as for a run, without sweeps.
        extra_dirs: folders with the user's own groups.
        inputs: shape of a sample, for data of which there is none here.
        classes: of that data.

    Raises:
        UserError: the first thing that is wrong.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from ensemble_kd.build import build
    from ensemble_kd.command_line import explain
    from ensemble_kd.config import compose, plain
    from ensemble_kd.forecast.samples import noise
    from ensemble_kd.plan import make_plan

    try:
        config = compose(overrides, extra_dirs)
        data = None
        if inputs is not None and classes is not None:
            augment = plain(config.data.get("augment"), "data.augment")
            allow = tuple(plain(config.allow, "allow"))
            made = build(augment, "data.augment", allow) or []
            data = noise(inputs, classes, config.batch_size, made, config.data.get("cycle"))
        return make_plan(config, data), config
    except (HydraException, OmegaConfBaseException) as failure:
        raise UserError(explain(failure, extra_dirs, overrides)) from failure


def resident() -> int:
    """Bytes of this process in memory; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * int(next((each.split()[1] for each in lines if each.startswith("VmRSS")), 0))


def processes(trainer: Any) -> int:
    """How many processes a trainer's node asks for, or as many as were started together."""
    from ensemble_kd.distributed import ranks

    devices, nodes = trainer.get("devices", 1), trainer.get("num_nodes", 1)
    own = devices * nodes if isinstance(devices, int) and isinstance(nodes, int) else 1
    return max(1, own, ranks.size())


def started(trainer: Any, asked: int | None) -> float:
    """Seconds until processes are there that a stage starts itself: they import everything anew."""
    if "spawn" not in str(trainer.get("strategy")) or (asked or processes(trainer)) == 1:
        return 0.0
    before = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import ensemble_kd.training"], check=True)
    return time.perf_counter() - before


def remarks(plan: Plan, config: DictConfig, cluster: Any) -> list[str]:
    """What the figures are, and what they leave out."""
    from ensemble_kd.objectives import Objective
    from ensemble_kd.strategies.strategy import objectives
    from ensemble_kd.training import assemble

    def studies(objective: Objective) -> bool:
        return type(objective).study is not Objective.study

    said = [
        "times are medians and quartiles of short measurements on this machine as it was; memory "
        "is that of one process, disk what is there afterwards",
        "not counted: plots, the report and the check of the export, a few seconds in all",
    ]
    if cluster.ranks > 1:
        said.append(
            f"each of the {cluster.ranks} processes is taken to compute as fast as this one alone; "
            f"network: {cluster.bandwidth / 1e9:g} GB/s, {1e6 * cluster.latency:g} us; where the "
            "time begins it hides behind the backward pass, and where it ends it does not"
        )
    if "fsdp" in str(config.trainer.get("strategy")):
        said.append("sharded weights are counted as if each process held all of them (ddp)")
    if plan.open is not None:
        said.append("what is tried out before the assistants are settled is not counted")
    if plan.runtime != "plain":
        said.append("live teachers are measured as they are; teacher.runtime may make them faster")
    if config.compile:
        said.append("networks that learn are measured as they are; compile may make them faster")
    strategies = [assemble(stage, plan.allow).strategy for stage in plan.stages if stage.epochs]
    looking = {
        type(o).__name__ for strategy in strategies for o in objectives(strategy) if studies(o)
    }
    if looking:
        said.append(f"what {', '.join(sorted(looking))} looks at before training is not counted")
    if any(stage.ensemble is not None for stage in plan.stages):
        said.append("teachers that follow a trajectory are measured as ordinary ones")
    return said


def _parser() -> Parser:
    parser = Parser(
        prog="python -m ensemble_kd.forecast",
        description=__doc__,
        epilog=f"for example: {EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", help="of the run, as for python -m ensemble_kd")
    parser.add_argument("--config-dir", metavar="FOLDER", help="with groups of your own")
    parser.add_argument("--samples", type=_count, metavar="N", help="training samples")
    parser.add_argument(
        "--held-out", type=_count, metavar="N", help="of validation and of test; else in proportion"
    )
    parser.add_argument(
        "--inputs", type=_shape, metavar="3,224,224", help="shape of samples that are not here"
    )
    parser.add_argument("--classes", type=_count, metavar="1000", help="of these samples")
    parser.add_argument("--ranks", type=_count, metavar="R", help="processes that train together")
    parser.add_argument("--bandwidth", type=_positive, default=1.25, metavar="GB/S")
    parser.add_argument("--latency", type=_positive, default=50.0, metavar="MICROSECONDS")
    parser.add_argument(
        "--seconds", type=_positive, default=60.0, metavar="S", help="for measurements, about"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1, got {text!r}")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number > 0, got {text!r}")
    return value


def _shape(text: str) -> list[int]:
    return [_count(size) for size in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
