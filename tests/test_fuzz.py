"""Command lines with something wrong in them end well or in one line, never in a traceback.

``benchmarks/fuzz.py`` draws thousands of such cases; here are a few of each group, always the same.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from ensemble_kd.groups import options
from ensemble_kd.paths import conf_dir

GROUPS = [*options([conf_dir()]), "settings", "together", "words", "commands"]
PLANNED = 3
SMALL = ("teacher.members=[cnn_tiny]", "epochs=1", "batch_size=32")
CARRIED_OUT = ("settings", "optimizer", "weighting", "objective", "strategy", "student")


@pytest.fixture(autouse=True)
def limited() -> Iterator[None]:
    """What would be too large for most machines fails here too, before it is."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (16 * 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def fuzz(script: Callable[[str], ModuleType]) -> ModuleType:
    """The script that draws cases and carries them out, in a folder with files for them."""
    loaded = script("benchmarks/fuzz.py")
    loaded.write_files(loaded.Path())
    return loaded


def check(fuzz: ModuleType, group: str, count: int, run: bool) -> None:
    """Draw cases of a group, always the same, and hold what comes of them against the rule."""

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(fuzz.cases(group))
    def ends_well_or_in_one_line(case: tuple[str, tuple[str, ...]]) -> None:
        kind, said = fuzz.outcome(case, run)
        assert kind != fuzz.FINDING, f"{case}: {said}"

    ends_well_or_in_one_line()


@pytest.mark.parametrize("group", GROUPS)
def test_what_is_wrong_is_one_line(fuzz: ModuleType, group: str) -> None:
    check(fuzz, group, PLANNED, run=False)


@pytest.mark.parametrize("group", CARRIED_OUT)
def test_what_can_be_planned_ends_well_or_in_one_line(fuzz: ModuleType, group: str) -> None:
    check(fuzz, group, PLANNED, run=True)


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("cache=null", "cache must be one of its options, got 'null'"),
        ("evaluation=[null]", "evaluation must be one of its options, got '[null]'"),
        ("hydra/launcher=[[]]", "hydra/launcher must be one of its options"),
        (f"report={'x' * 300}", "report must be one of its options"),
        ("data.source=true", "data.source: expected Source, got True"),
        ("+objective.terms.soft._recursive_=1", "_recursive_: expected true or false, got 1"),
        ("+objective.terms.soft._convert_=x", "_convert_: expected one of none, partial"),
        ("cache='{\x1b[31m'", r"\x1b[31m"),
        (f"paths.store={'x' * 300}", "paths.store: expected a path, got 'xxx"),
        (f"hydra.run.dir={'x' * 300}", "hydra.run.dir: expected a path, got 'xxx"),
        (f"data.splits={'x' * 300}", "data.splits: expected a path, got 'xxx"),
        ("hydra.searchpath=[nowhere]", "path=nowhere is not available"),
        ("teacher.networks=null", "teacher.networks: expected a list of networks, got None"),
        ("teacher.networks=[1]", "teacher.members: expected networks and sources of teachers"),
        ("+strategy.chain={}", "strategy.chain: expected what makes stages, got {}"),
        ("+strategy.ensemble=1", "strategy.ensemble: expected an ensemble of teachers, got 1"),
        ("+strategy.optimizers=1", "strategy.optimizers: expected one for each player, got 1"),
        ("optimizer._target_=torch.nn.Identity", "optimizer"),
        ("objective.temperature=1e308", "temperature must be between 1e-18 and 1e+18, got 1e+308"),
        ("evaluation.bins=1000000000", "evaluation: bins must be <= 100000, got 1000000000"),
        ("trainer.accelerator=tpu", "trainer: Requirement 'torch_xla"),
        ("trainer.devices=2147483648", "trainer.devices: expected at most 10000"),
        ("trainer._partial_=false", "trainer"),
        ("trainer.check_val_every_n_epoch=0", "check_val_every_n_epoch: expected 1 or more"),
    ],
)
def test_found_by_fuzzing(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str], argument: str, line: str
) -> None:
    assert command(argument) == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.startswith("error: ")
    assert said.removesuffix("\n").isprintable()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["+trainer.val_check_interval=2"], "trainer.val_check_interval: `val_check_interval` (2)"),
        (
            [
                *("optimizer.optimizer._target_=torch.optim.SparseAdam",),
                *("~optimizer.optimizer.weight_decay", "~optimizer.optimizer.fused"),
            ],
            "optimizer: SparseAdam does not support dense gradients",
        ),
    ],
)
def test_found_while_training(fuzz: ModuleType, arguments: list[str], line: str) -> None:
    kind, said = fuzz.outcome(fuzz.Case("trainer", (*SMALL, *arguments)), run=True)
    assert (kind, line in said) == (fuzz.ONE_LINE, True), said


@pytest.mark.parametrize("name", ["report", "worth", "speeds"])
def test_a_path_that_cannot_be_looked_up_is_one_line(fuzz: ModuleType, name: str) -> None:
    kind, said = fuzz.outcome(fuzz.Case("commands", (name, "x" * 300)), run=False)
    assert (kind, "File name too long" in said) == (fuzz.ONE_LINE, True), said
