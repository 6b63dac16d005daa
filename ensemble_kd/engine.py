"""The stage engine: each stage is taken from the store or trained into it, in order."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning import Callback
from safetensors import SafetensorError
from torch import nn

from ensemble_kd.artefact import COMPANIONS, WEIGHTS, Artefact, snapshots_in, write_artefact
from ensemble_kd.asking.answers import Answers
from ensemble_kd.build import Node, build
from ensemble_kd.callbacks import Snapshots
from ensemble_kd.checkpoint import FOLDER, Checkpointing, Checkpoints, finished, taken_up
from ensemble_kd.data import seen_by
from ensemble_kd.distributed import ranks
from ensemble_kd.errors import UserError
from ensemble_kd.export import constructor_of, count_parameters
from ensemble_kd.files import flush
from ensemble_kd.origin import start
from ensemble_kd.plan import Plan
from ensemble_kd.rehearsal import acquaint
from ensemble_kd.report.progress import StageProgress
from ensemble_kd.report.recording import Curves
from ensemble_kd.report.results import versions
from ensemble_kd.stage import Given, Stage
from ensemble_kd.store import Store
from ensemble_kd.taught import class_names
from ensemble_kd.teachers import Ensemble, Keeping, Kept, translated
from ensemble_kd.training import Learner, assemble, frozen, train

CURVES = "curves.csv"


@dataclass(frozen=True)
class Product:
    """A stage that is done.

    Attributes:
        stage: what was trained.
        artefact: where it lies.
        learner: the trained networks, in eval mode.
        reused: it was found in the store.
        seconds: what the training took in this run.
        classes: number of classes of the data.
    """

    stage: Stage
    artefact: Artefact
    learner: Learner
    reused: bool
    seconds: float
    classes: int

    def predictors(self) -> dict[str, nn.Module]:
        """The networks of this stage under the names by which the run reports them.

        One that was wanted as it was made predicts nothing that anybody asks for.
        """
        if self.stage.epochs == 0:
            return {}
        named = self.learner.predictors()
        return {self.stage.reported(name): self._known(network) for name, network in named.items()}

    def deliverable(self) -> nn.Module:
        """The network that may teach, in the classes of the data."""
        return self._known(self.learner.deliverable())

    def _known(self, network: nn.Module) -> nn.Module:
        return translated(network, self.stage.covered, self.classes)


class Engine:
    """Carries out the stages of a plan.

    Args:
        plan: what to do.
        store: where artefacts are looked up and written.
        folder: the run folder, for the loggers.
        logger: makes a Lightning logger from ``save_dir`` and ``name``; false for none.
        keeping: whether what teachers say is kept; ``auto`` if not given.
        every_n_steps: optimiser steps from one checkpoint to the next within an epoch; None for
            checkpoints after epochs only.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        folder: Path,
        logger: Any,
        keeping: Keeping | None = None,
        every_n_steps: int | None = None,
    ) -> None:
        self.plan = plan
        self._answers = Answers(plan, keeping or Keeping(), store.root)
        self.store = store
        self.folder = folder
        self.logger = logger
        self.every_n_steps = every_n_steps
        there = {**plan.given, **plan.origins}
        self._networks = {name: each.network for name, each in there.items()}
        self._digests = {name: each.digest for name, each in there.items()}
        self._folders = {name: each.folder for name, each in there.items() if each.folder}

    def products(self) -> dict[str, Product]:
        """All stages, by name, in the order of the plan.

        Raises:
            UserError: a loss stopped being finite, or the store cannot be written.
            Interrupted: Ctrl-C; what was finished before is in the store.
        """
        done: dict[str, Product] = {}
        for number, stage in enumerate(self.plan.stages, start=1):
            progress = StageProgress(number, len(self.plan.stages), stage.name, stage.epochs)
            product = self._finish(stage, progress)
            done[stage.name] = product
            self._networks[stage.name] = product.deliverable()
            self._digests[stage.name] = product.artefact.digest
            self._folders[stage.name] = product.artefact.folder
        return done

    def kept(
        self, split: Literal["val", "test"], predictors: Mapping[str, nn.Module], trainer: Node
    ) -> dict[str, Kept]:
        """What the teachers among some predictors say of a split; none unless kept on disk."""
        teachers = {name: predictors[name] for name in self.plan.teachers}
        number = len(self.plan.stages)
        progress = StageProgress(number, number, f"{split} split", 0)
        return self._answers.on(split, teachers, self._digests, trainer, progress)

    def _finish(self, stage: Stage, progress: StageProgress) -> Product:
        digest = ranks.agreed(stage.digest(self._digests), f"stage {stage.name}")
        learner = assemble(stage, self.plan.allow)
        ensemble = self._ensemble(stage, learner)
        acquaint(stage, learner, ensemble, next(iter(self.plan.data.val_dataloader())))
        with ranks.by_first(lambda: self.store.locked(digest, progress.waiting)):
            artefact = ranks.first(lambda: self.store.find(digest))
            if artefact is not None:
                progress.reused(digest)
                artefact = restored(learner, artefact)
                return Product(stage, artefact, learner, True, 0.0, self.plan.classes)
            with ranks.by_first(lambda: self.store.writing(digest)) as unfinished:
                whole = ranks.first(lambda: finished(unfinished, digest))
                if whole is not None:
                    progress.reused(digest)
                    restored(learner, whole)
                    own = Artefact(self.store.folder(digest), whole.provenance)
                    return Product(stage, own, learner, True, 0.0, self.plan.classes)
                seconds = self._train(stage, learner, ensemble, unfinished, progress)
                written = ranks.first(
                    lambda: self._write(stage, digest, learner, unfinished, seconds)
                )
        artefact = Artefact(self.store.folder(digest), written.provenance)
        return Product(stage, artefact, learner, False, seconds, self.plan.classes)

    def _train(
        self,
        stage: Stage,
        learner: Learner,
        ensemble: Ensemble,
        unfinished: Path,
        progress: StageProgress,
    ) -> float:
        checkpoints = Checkpoints(unfinished / FOLDER, stage.name)
        checkpoint = ranks.first(lambda: taken_up(unfinished, checkpoints))
        if stage.epochs == 0:
            ranks.first((unfinished / CURVES).touch)
            return 0.0
        self.plan.data.labelled_only = stage.labelled_only
        self.plan.data.views = stage.views
        if stage.initial is not None:
            learner.start_from(self._networks[stage.initial], stage.name)
        elif stage.origin is not None:
            start(learner.student, stage.origin, self._networks, stage.name)
        recording: list[Callback] = [Curves(unfinished / CURVES, stage.name), progress]
        if stage.snapshots:
            recording.append(Snapshots(unfinished))
        checkpointing = Checkpointing(checkpoints, unfinished / CURVES, self.every_n_steps)
        # Each of several processes that train apart would need checkpoints of its own.
        apart = learner.strategy.apart
        silent = apart and not ranks.is_first()
        seconds = train(
            stage,
            learner,
            self._answers.of(stage, ensemble, self._digests, progress),
            seen_by(stage.covered, self.plan.data, self.plan.classes),
            self.plan.classes if stage.covered is None else len(stage.covered),
            callbacks=[] if silent else recording,
            loggers=[] if silent else self._stage_loggers(stage),
            allow=self.plan.allow,
            checkpointing=None if apart else checkpointing,
            checkpoint=checkpoint,
        )
        # Of what comes next, this process reads all and not its share.
        self.plan.data.trainer = None
        return seconds

    def _classes(self, stage: Stage) -> list[Any]:
        """What the outputs mean: names of classes, or lists of those that one covers together."""
        names = class_names(self.plan.data)
        if stage.covered is None:
            return list(names)
        return [[names[number] for number in entry] or None for entry in stage.covered]

    def _ensemble(self, stage: Stage, learner: Learner) -> Ensemble:
        members = frozen(learner.strategy, [self._networks[name] for name in stage.teachers])
        if stage.ensemble is None:
            return Ensemble(members)
        snapshots = [snapshots_in(self._folders.get(name)) for name in stage.teachers]
        ensemble: Ensemble = build(stage.ensemble, "strategy.ensemble", self.plan.allow)(
            members, snapshots
        )
        return ensemble

    def _stage_loggers(self, stage: Stage) -> list[Any]:
        maker = build(self.logger, "logger", self.plan.allow)
        return [maker(save_dir=self.folder / "logs", name=stage.name)] if maker else []

    def _write(
        self, stage: Stage, digest: str, learner: Learner, unfinished: Path, seconds: float
    ) -> Artefact:
        delivered = learner.deliverable()
        provenance = {
            "digest": digest,
            "name": stage.name,
            "parents": {name: self._digests[name] for name in stage.teachers},
            "stage": stage.determinants(self._digests),
            "parameters": count_parameters(delivered),
            "classes": self._classes(stage),
            "seconds": round(seconds, 3),
            "versions": versions(),
            **learner.strategy.recorded(),
        }
        node = constructor_node(stage, learner)
        try:
            if hasattr(self.plan.data, "accompany"):
                self.plan.data.accompany(unfinished)  # what the network needs to read: a tokenizer
            written = write_artefact(unfinished, delivered, node, provenance, learner.companions())
            for path in unfinished.iterdir():
                flush(path)
        except (OSError, SafetensorError) as failure:
            raise UserError(
                f"stage {stage.name}: {unfinished} could not be written: "
                f"{' '.join(str(failure).split())}; what was whole still is, and the same command "
                "goes on from the last checkpoint"
            ) from failure
        # Not before all else is on the disk: until then it is what a next attempt goes on from.
        shutil.rmtree(unfinished / FOLDER, ignore_errors=True)
        return written


def restored(learner: Learner, artefact: Artefact) -> Artefact:
    """Fill a freshly assembled learner with what an artefact holds; returns the artefact."""
    companions = learner.companions()
    if companions is None:
        artefact.fill(learner.student, WEIGHTS)
    else:
        artefact.fill(companions, COMPANIONS)
    learner.rest()
    return artefact


def constructor_node(stage: Stage, learner: Learner) -> Node | None:
    """How the delivered network can be constructed again; None when that is not known."""
    delivered = learner.deliverable()
    if delivered is learner.student and not isinstance(stage.student, Given):
        # The weights from which it began are not needed again, and may be gone by then.
        begun = getattr(delivered, "begins_with", ())
        return {**stage.student, **{key: getattr(delivered, key) for key in begun}}
    found: Node | None = constructor_of(delivered)
    return found
