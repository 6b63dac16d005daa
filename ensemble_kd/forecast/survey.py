"""From the plan of a run to what its forecast is made of, by short measurements."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from omegaconf import DictConfig

from ensemble_kd.build import build
from ensemble_kd.cache import Float32
from ensemble_kd.cache.shelf import SHARD_BYTES
from ensemble_kd.config import plain
from ensemble_kd.costs import size
from ensemble_kd.data import seen_by
from ensemble_kd.forecast.asked import answered, looked_up
from ensemble_kd.forecast.assessed import assessment, described_as
from ensemble_kd.forecast.described import Answered, Job, Work
from ensemble_kd.forecast.learners import Learned, learned
from ensemble_kd.forecast.replicas import between, one_of, together
from ensemble_kd.forecast.samples import of_size
from ensemble_kd.forecast.served import Asked, counted, held, served
from ensemble_kd.forecast.spans import AT_ONCE, Timing
from ensemble_kd.forecast.stopwatch import Clock
from ensemble_kd.plan import Plan
from ensemble_kd.stage import Given, Stage
from ensemble_kd.teachers import Frozen, Keeping, Numbered, translated
from ensemble_kd.training import assemble, frozen, on_card
from ensemble_kd.types import Batch


class Survey:
    """Measures what the stages of a plan take.

    Args:
        plan: of the run.
        config: from which it was made.
        asked: what the forecast shall be of.
        made_up: the data are noise: how it is served and held says nothing of the real data.
        clock: in seconds.

    Attributes:
        notes: what the figures leave out, in sentences.
    """

    def __init__(
        self,
        plan: Plan,
        config: DictConfig,
        asked: Asked,
        made_up: bool = False,
        clock: Clock = time.perf_counter,
    ) -> None:
        self.plan = plan
        self.config = config
        self.asked = asked
        self.clock = clock
        self.notes: list[str] = []
        self.keeping: Keeping = build(plain(config.cache, "cache"), "cache", plan.allow)
        self.trainer = plain(config.trainer, "trainer")
        self.device = torch.device("cuda" if on_card(self.trainer) else "cpu")
        self.data = counted(plan, self.trainer, self.keeping, asked, made_up, self.notes)
        self.networks = {name: each.network for name, each in plan.given.items()}
        self._learned: dict[str, Learned] = {}
        trained = [stage for stage in plan.stages if stage.epochs]
        self._kinds = len({_kind(stage) for stage in trained})

    def job(self) -> Job:
        """All that the arithmetic needs."""
        plan = self.plan
        for stage in plan.stages:
            learner = assemble(stage, plan.allow)
            self.networks[stage.name] = translated(
                learner.deliverable(), stage.covered, plan.classes
            )
        answers = self._answers()
        stages, there = [], 0.0
        for stage in plan.stages:
            kept = self._kept(stage, answers, there)
            there += sum(self._rows() * answers[name].held for name in kept)
            stages.append(self._work(stage, kept, answers))
        after = assessment(plan, self.config, self.networks, self._share(1), self.clock)
        written = self._looked_up(stages, answers)[1]
        return Job(
            self.data,
            answers,
            stages,
            after,
            self.keeping.where == "disk",
            written,
            SHARD_BYTES,
        )

    def held(self) -> int:
        """Bytes that this process holds of what the forecast counts by itself."""
        gc.collect()
        return held(self.plan) + sum(size(network) for network in self.networks.values())

    def _rows(self) -> int:
        return self.data.train * self.data.views

    def _share(self, parts: int) -> float:
        """Seconds for one of so many measurements, which are as many as there are learners."""
        return self.asked.seconds / (2 * self._kinds + 3) * parts

    def _batch(self, stage: Stage) -> Batch:
        data = self.plan.data
        data.labelled_only, data.views = stage.labelled_only, stage.views
        batch: Batch = next(
            iter(seen_by(stage.covered, data, self.plan.classes).train_dataloader())
        )
        return batch

    def _answers(self) -> dict[str, Answered]:
        """What it takes to ask every network that teaches some stage."""
        asked: dict[str, Frozen] = {}
        for stage in self.plan.stages:
            strategy = assemble(stage, self.plan.allow).strategy
            members = frozen(strategy, [self.networks[name] for name in stage.teachers])
            for name, member in zip(stage.teachers, members, strict=True):
                if name not in asked or member.taps:
                    asked[name] = member
        if not asked:
            return {}
        batch = self._batch(self.plan.stages[-1])
        chosen = self._sizes(lambda size: _forward(asked, batch, size, self.device))
        return answered(
            *(asked, batch, chosen, self._share(1), self.device, self.keeping.format, self.clock)
        )

    def _kept(self, stage: Stage, answers: Mapping[str, Answered], there: float) -> tuple[str, ...]:
        """The teachers of a stage whose answers are kept, as a run decides it."""
        data = self.data
        keeps = self.keeping.where != "off" and data.views and stage.hears
        if not keeps or stage.ensemble is not None:
            return ()
        kept = []
        for name in stage.teachers:
            if isinstance(self.networks[name], Numbered):
                continue
            there += self._rows() * answers[name].held
            auto = self.keeping.where == "auto"
            if auto and (stage.epochs <= data.views or there > self.keeping.limit):
                there -= self._rows() * answers[name].held
                continue
            kept.append(name)
        return tuple(kept)

    def _work(self, stage: Stage, kept: tuple[str, ...], answers: Mapping[str, Answered]) -> Work:
        learner = assemble(stage, self.plan.allow)
        artefact = described_as(learner.deliverable())
        companions = learner.companions()
        beside = 0 if companions is None else described_as(companions)
        if not stage.epochs:
            return Work(stage.name, 0, artefact=artefact)
        found = self._learn(stage)
        serving, others = served(
            self.plan, stage, self.data.batch_size, self._share(1) / 8, self.clock
        )
        work = Work(
            stage.name,
            stage.epochs,
            stage.teachers if stage.hears else (),
            kept,
            found.step,
            found.validation,
            serving,
            others,
            AT_ONCE,
            found.epoch,
            found.start,
            found.weights,
            found.buffers,
            found.gradients,
            found.pieces,
            found.state,
            found.working,
            len(learner.strategy.players(learner.student)),
            artefact + beside,
            artefact if stage.snapshots else 0,
            between(stage, learner.strategy, self.data),
            getattr(learner.strategy, "elsewhere", None) is None,
        )
        return replace(work, looked_up=self._looked_up([work], answers)[0])

    def _learn(self, stage: Stage) -> Learned:
        """What the learner takes; those that are alike are measured once."""
        kind = _kind(stage)
        if kind not in self._learned:
            teachers = [self.networks[name] for name in stage.teachers]
            batch, held_out = self._batch(stage), next(iter(self.plan.data.val_dataloader()))
            stage, replicas = together(stage, self.plan.allow)
            learner = assemble(stage, self.plan.allow)
            share = self._share(2)

            def forward(count: int) -> float:
                own = {stage.name: Frozen(learner.deliverable())}
                # A step goes forward and backward, and that twice and for memory once.
                return 3 * _forward(own, batch, count, torch.device("cpu")) + 0.004

            chosen = self._sizes(forward, share / 12)
            rounds = int(share / (4 * sum(map(forward, chosen))))
            found = learned(
                *(stage, teachers, batch, held_out),
                self.plan.classes if stage.covered is None else len(stage.covered),
                *(chosen, min(max(rounds, 3), 12), self.plan.allow, self.clock),
            )
            self._learned[kind] = one_of(found, replicas)
        return self._learned[kind]

    def _looked_up(
        self, works: Sequence[Work], answers: Mapping[str, Answered]
    ) -> tuple[Timing, Timing]:
        """Finding the answers of the stage that keeps most, and keeping those of one teacher."""
        kept = max((work.kept for work in works), key=len, default=())
        if not kept:
            return AT_ONCE, AT_ONCE
        widths = [(answers[name].held // 4,) for name in kept]
        format = self.keeping.format if self.keeping.where == "disk" else None
        if any(len(answers[name].rows) > 1 for name in kept):
            format = format and Float32()
        whole = self.data.batch_size
        chosen = sorted({max(1, whole // 4), whole})
        return looked_up(widths, self._rows(), format, chosen, self._share(1) / 4, self.clock)

    def _sizes(self, seconds: Callable[[int], float], most: float | None = None) -> list[int]:
        """Two sizes of batches: the run's and half of it, or smaller ones that take less time."""
        most = self._share(1) / 12 if most is None else most
        size = self.data.batch_size
        few = min(size, 4)
        each = seconds(few) / few
        size = max(min(size, int(most / each)), few)
        return sorted({max(2, size // 2), size}) if size > 2 else [size]


def _kind(stage: Stage) -> str:
    """What stages have in common whose learners take the same."""

    def said(part: Any) -> Any:
        return part.digest if isinstance(part, Given) else dict(part)

    parts = (said(stage.student), said(stage.strategy), stage.optimizers, stage.covered)
    return json.dumps([*parts, stage.views, len(stage.teachers), stage.compiled], default=str)


def _forward(asked: Mapping[str, Frozen], batch: Batch, size: int, device: torch.device) -> float:
    """Seconds that the slowest of some networks takes for a batch."""
    some = of_size(batch, size)
    slowest = 0.0
    for network in asked.values():
        network.answer(some)
        before = time.perf_counter()
        network.answer(some)
        slowest = max(slowest, time.perf_counter() - before)
    return slowest
