"""The search itself: trials one after the other, each of them a run, kept in a study of Optuna."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ensemble_kd.command_line import explain
from ensemble_kd.commands import full_disk
from ensemble_kd.config import compose
from ensemble_kd.errors import UserError
from ensemble_kd.files import write_whole
from ensemble_kd.paths import expect_writable
from ensemble_kd.plan import Plan, make_plan
from ensemble_kd.report.results import read_results
from ensemble_kd.run import RESULTS, carry_out
from ensemble_kd.search.space import Space
from ensemble_kd.search.summary import FAILURE, ended, print_summary, summarise, write_summary
from ensemble_kd.stage import derived_seed
from ensemble_kd.variants import variants

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import RDBStorage

STUDY = "study.db"
LINES = "command"
"""The attribute of a study that holds the overrides with which it began."""

QUIET = ("report.table=false",)
"""The table of a run shows test accuracies, by which nobody is to choose a trial."""


@dataclass(frozen=True)
class Search:
    """A search and where it lies.

    Attributes:
        space: what is searched.
        folder: of the study; trial 3 is the run in ``trials/3``.
        trials: how many there shall be in the end.
        extra_dirs: folders with the user's own groups.
    """

    space: Space
    folder: Path
    trials: int
    extra_dirs: tuple[Path, ...] = ()

    def run(self) -> None:
        """Carry out the trials that are missing and say which was best.

        Raises:
            UserError: something is wrong, and nothing was written; or every trial failed.
            Interrupted: Ctrl-C; the same command goes on.
        """
        seed = self._checked()
        with self._alone(), self._study() as study:
            self._mend(study)
            while (done := ended(study)) < self.trials:
                # A sampler for each trial: what is drawn does not depend on interruptions.
                study.sampler = _sampler(derived_seed(seed, f"trial/{done}"))
                self._trial(study)
                write_summary(self._summary(study, seed), self.folder)
            summary = self._summary(study, seed)
            write_summary(summary, self.folder)
        print_summary(summary, self.folder)

    def _checked(self) -> int:
        """Plan each choice and both ends of each interval once; the seed of the search."""
        if (self.folder / "trials").exists() and not (self.folder / STUDY).exists():
            raise UserError(
                f"--folder: expected a new folder or that of a search, got {self.folder}"
            )
        seeds = []
        for overrides in variants(self.space.probes()):
            _, config = self._planned(overrides)
            expect_writable(Path(config.paths.store), "paths.store")
            seeds.append(config.seed)
        expect_writable(self.folder, "--folder")
        return int(seeds[0])

    def _planned(self, overrides: list[str]) -> tuple[Plan, DictConfig]:
        try:
            config = compose([*QUIET, *overrides], self.extra_dirs)
            return make_plan(config), config
        except (HydraException, OmegaConfBaseException) as failure:
            raise UserError(explain(failure, self.extra_dirs, overrides)) from failure

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process may take this one's trial for one that was cut off."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(f"{self.folder}: another process is at work on this search") from None
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _study(self) -> Iterator[Study]:
        """The study on disk, begun or opened again."""
        from optuna import create_study
        from optuna.exceptions import StorageInternalError
        from sqlalchemy.exc import SQLAlchemyError

        path = (self.folder / STUDY).absolute()
        with _unheard("optuna"), ExitStack() as ending:
            try:
                storage = _storage(path)
                ending.callback(storage.engine.dispose)
                ending.callback(storage.remove_session)
                study = create_study(
                    storage=storage, study_name="search", direction="maximize", load_if_exists=True
                )
                self._expect_same(study)
                yield study
            except (SQLAlchemyError, StorageInternalError) as failure:
                reason = " ".join(str(failure.__cause__ or failure).partition("\n")[0].split())
                raise UserError(f"{path}: cannot be used as a study: {reason}") from failure

    def _expect_same(self, study: Study) -> None:
        ours = sorted([*self.space.lines, *(f"--config-dir {each}" for each in self.extra_dirs)])
        theirs = study.user_attrs.get(LINES)
        if theirs is None:
            study.set_user_attr(LINES, ours)
        elif theirs != ours:
            begun = [line for line in theirs if line not in ours]
            now = [line for line in ours if line not in theirs]
            raise UserError(
                f"{self.folder}: expected the search that was begun there, with "
                f"{' '.join(begun) or 'nothing more'}, got {' '.join(now) or 'less'}: "
                "choose another --folder"
            )

    def _mend(self, study: Study) -> None:
        """Finish the trial during which an earlier process was stopped, or have it run again."""
        from optuna.trial import TrialState

        for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            results = self._place(trial.number) / RESULTS
            if results.exists() and accuracy_of(read_results(results)) is not None:
                study.tell(trial.number, accuracy_of(read_results(results)))
            else:
                print(f"trial {trial.number} was cut off and is run again")
                study.tell(trial.number, state=TrialState.FAIL)
                study.enqueue_trial(trial.params)

    def _trial(self, study: Study) -> None:
        from optuna.trial import TrialState

        trial = study.ask({axis.key: axis.distribution for axis in self.space.axes})
        drawn = [axis.override(trial.params[axis.key]) for axis in self.space.axes]
        print(f"\ntrial {trial.number}: {' '.join(drawn)}", flush=True)
        try:
            accuracy = self._accuracy(trial)
        except UserError as mistake:
            if full_disk(mistake) is not None:
                raise  # the trial did not fail: it is run again when there is room
            trial.set_user_attr(FAILURE, str(mistake))
            study.tell(trial, state=TrialState.FAIL)
            print(f"trial {trial.number} failed: {mistake}", file=sys.stderr)
        else:
            study.tell(trial, accuracy)
            best = study.best_trial
            which = "the best so far" if best.number == trial.number else f"best: {best.value:.3f}"
            print(f"trial {trial.number}: validation accuracy {accuracy:.3f} ({which})")

    def _accuracy(self, trial: Trial) -> float:
        overrides = self.space.overrides(trial.params)
        plan, config = self._planned(overrides)
        place = self._place(trial.number)
        # As Hydra would: it is a run like any other.
        write_whole(place / ".hydra" / "config.yaml", OmegaConf.to_yaml(config))
        write_whole(place / ".hydra" / "overrides.yaml", OmegaConf.to_yaml(overrides))
        accuracy = accuracy_of(carry_out(plan, config, place).results)
        if accuracy is None:
            raise UserError("expected labels in the validation split, which a search needs")
        return accuracy

    def _place(self, number: int) -> Path:
        return self.folder / "trials" / str(number)

    def _summary(self, study: Study, seed: int) -> dict[str, Any]:
        return summarise(study, self.space, self.folder, self.trials, seed, self.extra_dirs)


def accuracy_of(results: Mapping[str, Any]) -> float | None:
    """What is maximised. Nothing of the test split may be looked at while a search goes on."""
    accuracy: float | None = results["predictors"]["student"]["val"]["accuracy"]
    return accuracy


def _storage(path: Path) -> RDBStorage:
    """A database of Optuna, made where there is none.

    Raises:
        UserError: it was written by a version of Optuna that this one does not understand.
        sqlalchemy.exc.SQLAlchemyError: it is something else, or cannot be written.
    """
    from optuna.storages import RDBStorage
    from sqlalchemy import URL

    try:
        return RDBStorage(URL.create("sqlite", database=str(path)).render_as_string())
    except RuntimeError as failure:
        raise UserError(f"{path}: {' '.join(str(failure).split())}") from failure


def _sampler(seed: int) -> Any:
    from optuna.samplers import TPESampler

    return TPESampler(seed=seed)


@contextmanager
def _unheard(name: str) -> Iterator[None]:
    """Keep what a package logs off the terminal, unless it warns."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
