"""Codistillation of replicas that are trained apart, held against the one that trains them all."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.objectives import Label, Soft, Term
from ensemble_kd.strategies import Codistillation
from ensemble_kd.strategies.elsewhere import Elsewhere
from ensemble_kd.strategies.exchange import Copy, Received, State, on_cpu
from ensemble_kd.teachers import Ensemble
from ensemble_kd.types import Batch, Progress, Turn
from ensemble_kd.weightings import Uniform

Board = dict[int, Copy]


class Pinned:
    """An exchange by way of a board on which the test pins the copies."""

    shares_a_run = False

    def __init__(self, board: Board, replica: int) -> None:
        self.board = board
        self.replica = replica
        self.swaps: list[int] = []
        self.closed: list[int] = []

    def own(self) -> int:
        return self.replica

    def open(self, layout: Mapping[str, Any], expected: Sequence[State], step: int) -> None:
        self.layout = layout

    def swap(self, step: int, state: State, held: Sequence[int]) -> Received:
        self.swaps.append(step)
        copies = [each for k, each in self.board.items() if k != self.replica]
        return Received([each for each in copies if each.step > held[each.replica]], 100, 11)

    def close(self, step: int, state: State) -> Received:
        self.closed.append(step)
        return Received([], 100, 0)


def normalised(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 4)
        ).double()


def terms() -> dict[str, Term]:
    return {"label": Term(Label()), "soft": Term(Soft(temperature=1.0, merge="probabilities"))}


def replica(
    number: int, networks: list[nn.Module], board: Board, **arguments: Any
) -> tuple[Codistillation, Pinned]:
    student, *peers = networks
    strategy = Codistillation(peers, terms(), Uniform(), **arguments)
    medium = Pinned(board, number)
    strategy.elsewhere = Elsewhere(medium, len(networks))
    strategy.meet(student)
    return strategy, medium


def play(strategy: Codistillation, student: nn.Module, batch: Batch, step: int) -> Turn:
    (turn,) = strategy.turns(student, Ensemble(), batch, Progress(step, 0, 0.0))
    return turn


def descend(strategy: Codistillation, student: nn.Module, turn: Turn) -> None:
    (parameters,) = strategy.players(student).values()
    for parameter in parameters:
        parameter.grad = None
    torch.stack(list(turn.terms.values())).sum().backward()
    with torch.no_grad():
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.sub_(0.5 * parameter.grad)


def served(step: int) -> Batch:
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(24, 5, generator=generator, dtype=torch.float64)
    return Batch(inputs, torch.arange(24) % 4, torch.arange(24) + 100 * step)


@pytest.mark.parametrize("partition", ["disjoint", "same"])
@pytest.mark.parametrize(("burn_in", "exchange"), [(0, 1), (2, 3), (4, 1), (0, 100)])
def test_each_replica_is_that_of_the_single_process(
    burn_in: int, exchange: int, partition: str
) -> None:
    """Nine steps of three replicas, bit by bit, with the statistics of BatchNorm."""
    settings: dict[str, Any] = {"burn_in": burn_in, "exchange": exchange, "partition": partition}
    student, *peers = together = [normalised(seed) for seed in range(3)]
    settings["seed"] = 3
    reference = Codistillation(peers, terms(), Uniform(), **settings)
    reference.meet(student)
    board: Board = {}
    own = [copy.deepcopy(together) for _ in range(3)]
    apart = [replica(number, own[number], board, **settings) for number in range(3)]
    for number, (strategy, _) in enumerate(apart):
        strategy.enter(own[number][0], 0, "data")
    for step in range(9):
        for part in (reference, student, *(s for s, _ in apart), *(n for ns in own for n in ns)):
            part.train()  # as the trainer does
        descend(reference, student, play(reference, student, served(step), step))
        states = [on_cpu(own[number][number].state_dict()) for number in range(3)]
        board.update({k: Copy(k, step, state) for k, state in enumerate(states)})
        for number, (strategy, medium) in enumerate(apart):
            turn = play(strategy, own[number][0], served(step), step)
            descend(strategy, own[number][0], turn)
            swapped = step in range(burn_in, 9, exchange)
            assert turn.measured["exchanged_bytes"] == 111 * swapped
            assert (step in medium.swaps) == swapped
        for number in range(3):
            expected = together[number].state_dict()
            for name, value in own[number][number].state_dict().items():
                assert torch.equal(value, expected[name]), (step, number, name)
    assert {name.split("/")[0] for name in turn.terms} == {"label", "soft"}


@pytest.mark.parametrize("number", [0, 1])
def test_copies_receive_no_gradient_and_are_never_trained(number: int) -> None:
    networks = [normalised(seed) for seed in range(2)]
    strategy, medium = replica(number, networks, {}, burn_in=0, exchange=5)
    other = copy.deepcopy(networks[1 - number])
    medium.board[1 - number] = Copy(1 - number, 0, on_cpu(normalised(7).state_dict()))
    strategy.enter(networks[0], 0, "")
    for step in range(4):
        strategy.train()
        networks[0].train()
        turn = play(strategy, networks[0], served(step), step)
        assert turn.terms["soft"] > 0
        descend(strategy, networks[0], turn)
    assert all(p.grad is None for p in networks[1 - number].parameters())
    assert not networks[1 - number].training
    for name, value in networks[1 - number].state_dict().items():
        assert torch.equal(value, normalised(7).state_dict()[name]), name
    assert not torch.equal(other[0].weight, networks[1 - number][0].weight)  # type: ignore[index]
    (trained,) = strategy.players(networks[0]).values()
    assert [id(p) for p in trained] == [id(p) for p in networks[number].parameters()]
    assert strategy.deliverable(networks[0]) is networks[number]
    assert strategy.predictors(networks[0]) == {"student": networks[number]}


def test_without_a_copy_of_everyone_it_learns_by_itself() -> None:
    networks = [normalised(seed) for seed in range(3)]
    strategy, medium = replica(0, networks, {}, burn_in=1, exchange=2)
    strategy.enter(networks[0], 0, "")
    copies = [Copy(k, 3, on_cpu(normalised(k).state_dict())) for k in range(3)]
    heard = []
    for step in range(9):
        if step == 3:
            medium.board[1] = copies[1]
        if step == 6:
            medium.board[2] = copies[2]
        heard.append("soft" in play(strategy, networks[0], served(step), step).terms)
    assert heard == [False] * 7 + [True] * 2


def test_without_labels_it_stands_still_until_there_are_copies() -> None:
    networks = [normalised(seed) for seed in range(2)]
    strategy = Codistillation(networks[1:], {"soft": Term(Soft())}, Uniform(), burn_in=0)
    strategy.elsewhere = Elsewhere(Pinned({}, 0), 2)
    strategy.meet(networks[0])
    strategy.enter(networks[0], 0, "")
    turn = play(strategy, networks[0], served(0), 0)
    assert list(turn.terms) == ["soft"]
    assert turn.terms["soft"].item() == 0
    before = copy.deepcopy(networks[0])
    descend(strategy, networks[0], turn)
    for p, q in zip(before.parameters(), networks[0].parameters(), strict=True):
        assert torch.equal(p, q)


def test_what_is_only_tried_out_exchanges_nothing(tmp_path: Path) -> None:
    """The rehearsal of a stage plays its start and its end; no folder is made for it."""
    networks = [normalised(seed) for seed in range(2)]
    strategy = Codistillation(
        networks[1:], terms(), Uniform(), burn_in=0, across=str(tmp_path / "swap"), replica=1
    )
    strategy.meet(networks[0])
    for step in (0, 2**31):
        turn = play(copy.deepcopy(strategy), networks[0], served(0), step)
        assert list(turn.terms) == ["label", "soft"]
    assert not (tmp_path / "swap").exists()
    assert strategy.recorded()["exchange"]["exchanges"] == 0


def test_what_is_held_is_part_of_the_state(capsys: pytest.CaptureFixture[str]) -> None:
    """Taken up again within an interval, it neither exchanges anew nor forgets the copies."""
    networks = [normalised(seed) for seed in range(2)]
    board = {1: Copy(1, 4, on_cpu(normalised(9).state_dict()))}
    strategy, medium = replica(0, networks, board, burn_in=4, exchange=4)
    strategy.enter(networks[0], 0, "")
    for step in range(6):
        strategy.train()
        expected = play(strategy, networks[0], served(step), step)
    assert medium.swaps == [4]
    again = [normalised(seed) for seed in (20, 21)]
    resumed, other = replica(0, again, board, burn_in=4, exchange=4)
    again[0].load_state_dict(networks[0].state_dict())
    resumed.load_state_dict(strategy.state_dict())
    again[0].train()
    resumed.enter(again[0], 4, "")
    # The network has seen one batch more, which moved the statistics, not what it says in training.
    found = play(resumed, again[0], served(5), 4)
    assert other.swaps == []
    assert torch.equal(found.terms["soft"], expected.terms["soft"])
    for step in range(5, 9):
        play(resumed, again[0], served(step), step)
    assert other.swaps == [8]
    resumed.leave(again[0], 9)
    assert other.closed == [9]
    assert capsys.readouterr().out == (
        "replica 0: 2 exchanges, 36 bytes per step; replica 1's copies were 2.0 steps old on "
        "average, 4 at most\n"
    )


def test_the_layout_is_what_all_must_agree_on(network: Callable[[int], nn.Module]) -> None:
    networks = [network(0), normalised(1)]
    strategy, medium = replica(1, networks, {}, burn_in=4, exchange=4, seed=8, partition="same")
    strategy.enter(networks[0], 0, "of the data")
    shapes = medium.layout["networks"]
    assert len(set(shapes)) == 2
    assert {k: v for k, v in medium.layout.items() if k != "networks"} == {
        "seed": 8,
        "burn_in": 4,
        "exchange": 4,
        "partition": "same",
        "data": "of the data",
    }


def test_the_state_that_is_published_is_not_moved_by_later_steps() -> None:
    network = normalised(0)
    state: dict[str, Tensor] = on_cpu(network.state_dict())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    for name, value in normalised(0).state_dict().items():
        assert torch.equal(state[name], value)
