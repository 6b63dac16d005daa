"""Self-distillation: the classifiers behind earlier blocks learn from the last one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ensemble_kd.build import Node
from ensemble_kd.errors import UserError
from ensemble_kd.networks.cut import resting
from ensemble_kd.networks.early_exit import EarlyExit
from ensemble_kd.objectives import ReverseKl, Soft, Term
from ensemble_kd.stage import Stage
from ensemble_kd.strategies.strategy import Strategy
from ensemble_kd.strategies.two_phases import checked_share, in_two
from ensemble_kd.teachers.ensemble import Ensemble
from ensemble_kd.types import Batch, Output, Progress, Tokens, Turn

Direction = Literal["last_first", "earlier_first"]


class SelfDistillation:
    """First the network with its last classifier, then the earlier ones learn from that one.

    The stages share the epochs. In the first the network learns under the teachers of the run where
    the strategy is taught, and without teachers otherwise. The second starts from its weights,
    changes nothing but the earlier classifiers (``BranchDistillation``), and always keeps its last
    weights: what ``select`` looks at is the network's own accuracy, which changes only as far as
    texts leave early. They do so from the second stage on; in the first, and in a control, they go
    through all blocks whatever the speed. On several processes the trainer must be told of what is
    left alone: ``trainer.strategy=ddp_spawn_find_unused_parameters_true``.

    Source: FastBERT, Liu et al. (arXiv 2004.02178), section 3.2, without its first step, the
    pre-training, which ``initial`` brings along. In the authors' code
    (autoliuweijie/FastBERT @859632f) the second stage takes ten epochs after three of the first,
    and ten times the learning rate; here ``share`` and ``faster``. Deviation: teachers may be heard
    in the first stage.

    Args:
        first: the strategy of the first stage where there are no teachers, as a node.
        second: the strategy of the second stage, as a node.
        share: of the epochs for the first stage, in (0, 1); each stage has at least one epoch.
        faster: factor on the learning rate of the second stage, > 0.

    Raises:
        ValueError: an argument is out of range.
    """

    FIRST = "phase/1"
    """Name of the first stage."""

    def __init__(self, first: Node, second: Node, share: float = 0.5, faster: float = 1.0) -> None:
        if not 0 < faster < float("inf"):
            raise ValueError(f"faster must be a finite number > 0, got {faster}")
        self.first = first
        self.second = second
        self.share = checked_share(share)
        self.faster = faster

    def stages(self, last: Stage) -> tuple[Stage, ...]:
        """The two stages; the second is the student's own.

        Raises:
            UserError: the optimiser has no learning rate that could be multiplied.
        """
        first, second = in_two(last, self.FIRST, self.share)
        default = last.optimizers["default"]
        if not isinstance(default.get("lr"), int | float):
            raise UserError(
                f"optimizer.lr: expected a number for strategy=self_distillation, "
                f"got {default.get('lr')!r}"
            )
        if not last.teachers:
            first = replace(first, strategy=self.first, optimizers={"default": default})
        second = replace(
            second,
            teachers=(),
            strategy=self.second,
            optimizers={"default": {**default, "lr": self.faster * default["lr"]}},
            ensemble=None,
            select="last",
        )
        return first, second


class BranchDistillation(Strategy):
    """All classifiers but the last learn what the last one says; nothing else is changed.

    Blocks and last classifier are in eval mode and give no gradient. Labels play no part, so that
    samples without one teach as well. The losses of the classifiers are summed.

    Source: FastBERT, Liu et al. (arXiv 2004.02178), equations 5 and 6. The paper's equation is
    recalled as KL(p_s || p_t), p_s of an earlier classifier and p_t of the last one; the authors'
    code (autoliuweijie/FastBERT @859632f) computes KL(p_t || p_s). Both have no temperature.
    Deviation: in the code the frozen part keeps its dropout.

    Args:
        direction: ``last_first`` for KL(p_t || p_s), as in the code, or ``earlier_first`` for
            KL(p_s || p_t), as in the paper.
        temperature: T, of both; the divergence is multiplied with T^2.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, direction: Direction = "last_first", temperature: float = 1.0) -> None:
        super().__init__()
        if direction not in get_args(Direction):
            raise ValueError(
                f"direction must be one of {', '.join(get_args(Direction))}, got {direction!r}"
            )
        objective = Soft if direction == "last_first" else ReverseKl
        self.term = Term(objective(temperature))

    def meet(self, student: nn.Module) -> None:
        """See whether the student can learn like this.

        Raises:
            ValueError: it has no classifiers behind its blocks, or one only.
        """
        if not isinstance(student, EarlyExit) or student.layers < 2:
            raise ValueError(
                "self-distillation needs a network with classifiers behind two blocks or more, "
                f"such as student=fastbert, got {type(student).__name__}"
            )

    def begin(self, student: nn.Module, teachers: Ensemble) -> None:
        """From now on texts may leave early."""
        _exiting(student).settled.fill_(True)

    def players(self, student: nn.Module) -> dict[str, list[nn.Parameter]]:
        """``exits``: all classifiers but the last."""
        earlier = _earlier(_exiting(student))
        return {"exits": [p for each in earlier for p in each.parameters() if p.requires_grad]}

    def predictors(self, student: nn.Module) -> dict[str, nn.Module]:
        """``student``; and ``exit/1`` and so on, it as far as each of the earlier classifiers."""
        network = _exiting(student)
        exits = {f"exit/{n}": Through(network, n) for n in range(1, network.layers)}
        for each in exits.values():
            # A fresh module is in training mode, whatever its parts are in.
            each.training = student.training
        return {"student": student, **exits}

    def turns(
        self, student: nn.Module, teachers: Ensemble, batch: Batch, progress: Progress
    ) -> Iterator[Turn]:
        """One turn: all earlier classifiers step together."""
        network = _exiting(student)
        with torch.no_grad(), resting(network.body), resting(network.exits[-1]):
            states, bias = network.states(batch.inputs)
            last = Output(network.exits[-1](states[-1], bias))
        weight = last.logits.new_ones(1, len(batch.index))
        terms: dict[str, Tensor] = {}
        for number, (leave, behind) in enumerate(
            zip(_earlier(network), states, strict=False), start=1
        ):
            said = Output(leave(behind, bias))
            terms[f"exit/{number}/soft"] = self.term(said, (last,), weight, batch, progress)
        yield Turn("exits", terms)


class Through(nn.Module):
    """A network with early exits, as far as one of them.

    Args:
        network: the network.
        layers: number of blocks that are run.
    """

    def __init__(self, network: EarlyExit, layers: int) -> None:
        super().__init__()
        self.network = network
        self.layers = layers

    def forward(self, inputs: Tokens) -> Tensor:
        """(b, c) logits."""
        return self.network.through(inputs, self.layers)


def _exiting(student: nn.Module) -> EarlyExit:
    if not isinstance(student, EarlyExit):
        raise ValueError(
            f"self-distillation needs a network that is left early, got {type(student).__name__}"
        )
    return student


def _earlier(network: EarlyExit) -> Sequence[nn.Module]:
    return list(network.exits)[:-1]
