"""``python -m ensemble_kd.speeds RUN``: what a student that is left early gains and loses by it.

For each speed the accuracy and how many blocks a text goes through in the mean, on the validation
split of the run.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ensemble_kd.artefact import Artefact, read_artefact
from ensemble_kd.commands import Parser, path, status
from ensemble_kd.config import install_resolvers
from ensemble_kd.errors import UserError
from ensemble_kd.networks.early_exit import EarlyExit
from ensemble_kd.opening import open_data
from ensemble_kd.plain_files import read_yaml
from ensemble_kd.report.console import open_console, show_table, start_table
from ensemble_kd.types import Batch, labelled

SPEEDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class Point(NamedTuple):
    """What one speed makes of a network.

    Attributes:
        speed: texts less unsure than this leave.
        accuracy: share of the labelled texts whose class is right.
        layers: mean number of blocks that a text went through.
    """

    speed: float
    accuracy: float
    layers: float


def main() -> int:
    """The command line; returns its exit status, 2 for a user's mistake."""
    parser = Parser(prog="python -m ensemble_kd.speeds", description=__doc__)
    parser.add_argument("run", type=path, help="the folder of a run")
    parser.add_argument("--speeds", type=float, nargs="+", default=SPEEDS, metavar="SPEED")
    parser.add_argument(
        "--allow", nargs="+", default=(), metavar="PACKAGE", help="as in the command of the run"
    )
    parser.add_argument("--split", choices=("val", "test"), default="val")
    asked = parser.parse_args()
    return status(lambda: show(asked.run, asked.speeds, asked.split, asked.allow))


def show(
    run: Path,
    speeds: Sequence[float] = SPEEDS,
    split: str = "val",
    allow: Sequence[str] = (),
) -> None:
    """Print accuracy and blocks for some speeds.

    Args:
        run: the folder of a run.
        speeds: each in [0, 1].
        split: ``val`` or ``test``.
        allow: packages beside this project's whose classes may be used; the run may come from
            elsewhere, so that what it was allowed itself does not count.

    Raises:
        UserError: the folder is no run's, its student is left by no text early, the data are no
            longer those of the run (data that cannot be recognised are not), or a speed is out of
            range.
    """
    for speed in speeds:
        if not 0 <= speed <= 1:
            raise UserError(f"speeds must be in [0, 1], got {speed}")
    config = _config(run)
    artefact = read_artefact(run / "student")
    network = artefact.network(allow)
    if not isinstance(network, EarlyExit):
        raise UserError(
            f"{run}: expected a student that texts can leave early, such as student=fastbert, "
            f"got {type(network).__name__}"
        )
    if not network.settled:
        raise UserError(
            f"{run}: expected a student whose earlier classifiers have learned, as "
            "strategy=self_distillation has them do, got one in which they have not"
        )
    data = open_data(config, None, allow)
    _check_data(run, artefact, data)
    batches = list(data.val_dataloader() if split == "val" else data.test_dataloader())
    console = open_console()
    table = start_table(("speed", "accuracy", "blocks"), plain=not console.is_terminal)
    for point in trade_off(network, batches, speeds):
        table.add_row(f"{point.speed:g}", f"{100 * point.accuracy:.2f}", f"{point.layers:.2f}")
    show_table(console, f"{network.layers} blocks, {split}", table)


def trade_off(network: EarlyExit, batches: Iterable[Batch], speeds: Sequence[float]) -> list[Point]:
    """Accuracy and blocks of a network in eval mode, for some speeds; its own is left as it was.

    Args:
        network: on the CPU.
        batches: gone through once for each speed.
        speeds: each in [0, 1].
    """
    own = network.speed
    try:
        return [_measured(network, batches, speed) for speed in speeds]
    finally:
        network.speed = own


def _measured(network: EarlyExit, batches: Iterable[Batch], speed: float) -> Point:
    network.speed = speed
    right = known = blocks = texts = 0
    with torch.inference_mode():
        for batch in batches:
            said = network.early(batch.inputs)
            counted = labelled(batch)
            right += int((said.logits.argmax(-1) == batch.target)[counted].sum())
            known += int(counted.sum())
            blocks += int(said.layers.sum())
            texts += len(said.layers)
    return Point(speed, right / max(known, 1), blocks / max(texts, 1))


def _check_data(run: Path, artefact: Artefact, data: Any) -> None:
    """The texts, their splits and the tokenizer must be those with which the student learned."""
    stage = artefact.provenance.get("stage")
    known = stage.get("data") if isinstance(stage, Mapping) else None
    if known != data.digest:
        raise UserError(
            f"{run}: expected the data of the run, with the digest {str(known)[:12]}, got "
            f"{data.digest[:12]}: the files, or what makes splits and tokens of them, have changed"
        )


def _config(run: Path) -> DictConfig:
    """The configuration of a run.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    path = run / ".hydra" / "config.yaml"
    if not path.is_file():
        raise UserError(f"{run}: expected the folder of a run, found no {path}")
    install_resolvers()
    try:
        config = OmegaConf.create(read_yaml(path))
        if not isinstance(config, DictConfig):
            raise UserError(f"{path}: expected a configuration, got a list")
        for key, kind in (("data", DictConfig), ("allow", ListConfig)):
            if not isinstance(config.get(key), kind):
                raise UserError(f"{path}: expected the configuration of a run, got no {key}")
    except UserError:
        raise
    except (YAMLError, OmegaConfBaseException, OSError, ValueError) as failure:
        reason = textwrap.shorten(str(failure), 200, placeholder=" ...")
        raise UserError(f"{path}: not readable: {reason}") from failure
    return config


if __name__ == "__main__":
    sys.exit(main())
