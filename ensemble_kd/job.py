"""One command line: checked as a whole, then run by Hydra."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ensemble_kd.command_line import explain
from ensemble_kd.commands import full_disk
from ensemble_kd.config import compose, install_resolvers, option_names
from ensemble_kd.distributed import ranks
from ensemble_kd.errors import UserError
from ensemble_kd.hydra_node import expect_harmless, swept
from ensemble_kd.paths import conf_dir, expect_writable, looked_up
from ensemble_kd.sweep_job import begin, expect_launcher, is_lost_job, raise_failures
from ensemble_kd.variants import parse, values, variants

if TYPE_CHECKING:
    from ensemble_kd.plan import Plan

HYDRAS_OWN = ("hydra_help", "shell_completion", "cfg", "info")
"""Flags that ask Hydra to print something; no run follows."""


class Prepared(NamedTuple):
    """A command line that was found to be right.

    Attributes:
        plan: of its job; of a sweep, of the first one.
        config: from which it was made.
        folder: of the run, or of the sweep.
        sweep: whether it is one.
    """

    plan: Plan
    config: DictConfig
    folder: Path
    sweep: bool


def launch(arguments: Sequence[str]) -> None:
    """Check a command line, then run its job or jobs.

    Processes that were started together for one run all come here with the same command line.

    Args:
        arguments: what follows ``python -m ensemble_kd``.

    Raises:
        UserError: something in it is wrong, and nothing was written; or jobs failed.
        Interrupted: Ctrl-C.
    """
    with ranks.group():
        _launch(arguments)


def _launch(arguments: Sequence[str]) -> None:
    flags = _flags(arguments)
    extra_dirs = config_dirs(flags.config_dir)
    plan = not any(vars(flags)[flag] for flag in HYDRAS_OWN)
    prepared = ranks.together(lambda: _checked(flags.overrides, extra_dirs, plan, flags.multirun))
    install_resolvers(extra_dirs)
    if prepared is None:
        if ranks.is_first():
            _through_hydra(_SingleRun(None), arguments, flags.overrides, extra_dirs)
    elif prepared.sweep:
        _sweep(prepared.folder, arguments, flags.overrides, extra_dirs)
    else:
        run = _SingleRun(prepared)
        _through_hydra(run, arguments, flags.overrides, extra_dirs, _in_one_folder(prepared))
        if run.mistake is not None:
            raise run.mistake


def _in_one_folder(prepared: Prepared) -> list[str]:
    """Overrides by which all processes of a group have one run folder, and the first fills it."""
    if ranks.size() == 1:
        return []
    pinned = [f"hydra.run.dir={_quoted(ranks.first(lambda: prepared.folder))}"]
    return pinned if ranks.is_first() else [*pinned, "hydra.output_subdir=null"]


def _sweep(
    folder: Path, arguments: Sequence[str], overrides: Sequence[str], extra_dirs: Sequence[Path]
) -> None:
    if ranks.size() > 1:
        raise UserError(
            "--multirun: a sweep starts jobs itself, and is started as one process, got "
            f"{ranks.size()}: leave torchrun or srun out, and see hydra/launcher and trainer=ddp"
        )
    job = begin(folder, overrides, [*extra_dirs, conf_dir()])
    # The folder that was looked at, not one that is named after a moment later.
    pinned = [f"hydra.sweep.dir={_quoted(folder)}"]
    try:
        _through_hydra(job, arguments, overrides, extra_dirs, pinned)
    except Exception as failure:
        if not is_lost_job(failure):
            raise
        raise UserError(
            f"a job was lost: {' '.join(str(failure).split())}; the others are reported by "
            f"python -m ensemble_kd.report {folder}"
        ) from failure
    raise_failures(folder)


def _quoted(folder: Path) -> str:
    return QuotedString(str(folder), Quote.single).with_quotes()


def _through_hydra(
    job: Any,
    arguments: Sequence[str],
    overrides: Sequence[str],
    extra_dirs: Sequence[Path],
    further: Sequence[str] = (),
) -> None:
    with _errors_as_raised(), _command_line(arguments, overrides, further):
        try:
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(job)()
        except (HydraException, OmegaConfBaseException) as failure:
            raise UserError(explain(failure, extra_dirs, overrides)) from failure


def _flags(arguments: Sequence[str]) -> Any:
    """Hydra's own flags and the overrides, in whatever order they were typed."""
    parser = get_args_parser()
    parser.exit_on_error = False
    try:
        flags, unknown = parser.parse_known_intermixed_args(list(arguments))
    except ArgumentError as failure:
        raise UserError(f"{failure}; --help shows what there is") from failure
    for flag in ("config_name", "config_path", "experimental_rerun"):
        if getattr(flags, flag):
            raise UserError(
                f"--{flag.replace('_', '-')} is not supported: options of your own go into a "
                "folder for --config-dir, values go onto the command line"
            )
    if unknown:
        raise UserError(f"there is no flag {unknown[0]!r}; --help shows what there is")
    return flags


@contextmanager
def _command_line(
    arguments: Sequence[str], overrides: Sequence[str], further: Sequence[str]
) -> Iterator[None]:
    """Hydra reads ``sys.argv``, and wants its flags before the overrides."""
    flags = list(arguments)
    for override in overrides:
        flags.remove(override)
    before, sys.argv = sys.argv, [sys.argv[0], *flags, *overrides, *further]
    try:
        yield
    finally:
        sys.argv = before


def _checked(
    overrides: Sequence[str], extra_dirs: Sequence[Path], plan: bool, multirun: bool
) -> Prepared | None:
    """Compose, and plan, what the overrides ask for; of a sweep, each value of each axis once.

    Returns:
        What was made of the first (of a single run: the only) job; None if nothing was planned.
    """
    parsed = parse(overrides, extra_dirs)
    expect_launcher(parsed)
    first: Prepared | None = None
    # An interval is drawn from by a sweeper; what is composed here is the default.
    axes = [found for found in (values(override, extra_dirs) for override in parsed) if found]
    for variant in variants(axes):
        prepared = prepare(variant, extra_dirs, plan, multirun)
        first = first or prepared
    return first


def prepare(
    overrides: Sequence[str], extra_dirs: Sequence[Path], plan: bool = True, multirun: bool = False
) -> Prepared | None:
    """Compose and plan one job, which finds whatever is wrong with it; nothing is written.

    Args:
        overrides: without sweeps.
        extra_dirs: folders with the user's own groups.
        plan: make the plan too; otherwise it is only composed.
        multirun: it is a job of a sweep, whatever the configuration says of that.

    Raises:
        UserError: the first thing that is wrong.
    """
    try:
        whole = compose(overrides, extra_dirs, with_hydra=True)
        expect_harmless(whole.hydra)
        _check_swept(whole.hydra, overrides, extra_dirs)
        sweep = multirun or whole.hydra.mode == RunMode.MULTIRUN
        where = "hydra.sweep.dir" if sweep else "hydra.run.dir"
        folder = Path(OmegaConf.select(whole, where))
        looked_up(folder, where)
        config = _without_hydra(whole)
        if not plan:
            return None
        from ensemble_kd.plan import make_plan
        from ensemble_kd.run import refuse_finished

        if not sweep:
            refuse_finished(folder)
        expect_writable(folder, where)
        made = make_plan(config)
        expect_writable(Path(config.paths.store), "paths.store")
    except (HydraException, OmegaConfBaseException) as failure:
        raise UserError(explain(failure, extra_dirs, overrides)) from failure
    return Prepared(made, config, folder, sweep)


def _check_swept(
    hydra_node: DictConfig, overrides: Sequence[str], extra_dirs: Sequence[Path]
) -> None:
    """Look at what the options say through which a configuration file has a sweep run."""
    for key, swept_values in swept(hydra_node).items():
        if option_names(key.lstrip("+~").partition("@")[0], [*extra_dirs, conf_dir()]):
            for value in values(parse([f"{key}={swept_values}"])[0], extra_dirs):
                expect_harmless(compose([*overrides, value], extra_dirs, with_hydra=True).hydra)


def _without_hydra(config: DictConfig) -> DictConfig:
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    OmegaConf.set_struct(config, True)
    return config


class _SingleRun:
    """What Hydra calls for a single run: the very plan that was checked.

    Attributes:
        mistake: what stopped it, where Hydra's own words or a traceback would only be noise.
    """

    def __init__(self, prepared: Prepared | None) -> None:
        self.prepared = prepared
        self.mistake: Exception | None = None

    def __call__(self, _: DictConfig) -> float | None:
        from hydra.core.hydra_config import HydraConfig

        from ensemble_kd.run import carry_out

        if self.prepared is None:
            raise RuntimeError("expected a plan, got a command line that only asks for words")
        folder = Path(HydraConfig.get().runtime.output_dir)
        try:
            result = carry_out(self.prepared.plan, self.prepared.config, folder)
        except Exception as mistake:
            if ranks.size() == 1 and not isinstance(mistake, UserError) and not full_disk(mistake):
                raise
            self.mistake = mistake
            return None
        return result.results["predictors"]["student"]["val"]["accuracy"]


@contextmanager
def _errors_as_raised() -> Iterator[None]:
    """Have Hydra hand errors on instead of printing a traceback of its own."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


def config_dirs(config_dir: str | None) -> list[Path]:
    """The folder of ``--config-dir``, in a list that is empty without one.

    Raises:
        UserError: it is no folder.
    """
    if config_dir is None:
        return []
    folder = looked_up(config_dir, "--config-dir")
    if not folder.is_dir():
        raise UserError(f"--config-dir: expected a folder, got {config_dir}")
    return [folder]
