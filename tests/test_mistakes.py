"""Each exception that Hydra and OmegaConf really raise becomes one line that says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ensemble_kd import mistakes
from ensemble_kd.config import compose as compose_shipped
from ensemble_kd.mistakes import explain

FILES = {
    "config.yaml": """\
defaults: [{strategy: parallel}, {optimizer: sgd}, {sweep: null}, _self_]
seed: 0
epochs: 30
must: ???
lost: ${nowhere}
unset: ${oc.env:NO_SUCH_VARIABLE}
endless: ${endless}
""",
    "strategy/parallel.yaml": "turns: {dense: false}",
    "strategy/assistant.yaml": "defaults: [parallel]\nassistants: [small]",
    "strategy/stray.yaml": "defaults: [nobody]",
    "strategy/missing.yaml": "defaults: [{/objective: kd}]",
    "strategy/broken.yaml": "a: [1,\nb: c",
    "optimizer/sgd.yaml": "lr: 0.1\nmomentum: 0.9",
    "sweep/seeds.yaml": "# @package _global_\nsomething: 1",
}

ON_THE_COMMAND_LINE = {
    # an option, a group or a key that is not there
    "strategy=asistant": (
        "strategy must be one of its options, got 'asistant'; did you mean 'assistant'?"
    ),
    "optimizer=zzz": "optimizer must be one of its options, got 'zzz'; known: sgd",
    "strategy=": (
        "strategy must be one of its options, got ''; "
        "known: assistant, broken, missing, parallel, stray"
    ),
    "strategy=[parallel,b]": "strategy must be one of its options, got 'b'; known: assistant,",
    "optimizer=5": "optimizer must be one of its options, got '5'; known: sgd",
    "optimizer=null": "optimizer must be one of its options, got 'null'; known: sgd",
    "optimizer=???": "optimizer must be one of its options, got '???'; known: sgd",
    "hydra/launcher=basik": (
        "hydra/launcher must be one of its options, got 'basik'; did you mean 'basic'?"
    ),
    "stratgy=assistant": "there is no key 'stratgy'; did you mean 'strategy'?",
    "epohcs=3": "there is no key 'epohcs'; did you mean 'epochs'?",
    "epochs.more=3": "there is no key 'epochs.more'; did you mean 'epochs'?",
    "lr=1": "there is no key 'lr'; did you mean 'optimizer.lr'?",
    "optimizer.lrr=1": "optimizer has no key 'lrr'; did you mean 'lr'?",
    "optimizer.lr.x=1": "optimizer has no key 'lr.x'; did you mean 'lr'?",
    "optimizer.zz=1": (
        "optimizer has no key 'zz'; known: lr, momentum; +optimizer.zz=1 would add it"
    ),
    "strategy.assistants=[a]": (
        "there is no key 'strategy.assistants' here; it belongs to strategy=assistant"
    ),
    "~zz": (
        "there is no key 'zz'; known: endless, epochs, lost, must, optimizer, seed, strategy, unset"
    ),
    # something that is there, used wrongly
    "~seed=4": "Could not delete from config. The value of 'seed' is 0 and not 4.",
    "+seed=1": "the key 'seed' exists already; leave out the +",
    "+strategy=assistant": "strategy is chosen already; write strategy=OPTION without a +",
    "strategy@x=assistant": (
        "'strategy@x' is not in the list of defaults; +strategy@x=assistant adds it"
    ),
    "strategy=parallel,assistant": (
        "strategy=parallel,assistant holds several values; "
        "--multirun would run each, [A,B] would be a list"
    ),
    "seed=range(3)": "seed=range(3) holds several values; --multirun would run each,",
    "hydra.job.num=abc": (
        "hydra.job.num: Value 'abc' of type 'str' could not be converted to Integer"
    ),
    "hydra.mode=FAST": "hydra.mode: Invalid value 'FAST', expected one of [RUN, MULTIRUN]",
    # something that cannot be read
    "strategy": "an override must be KEY=VALUE or GROUP=OPTION, got 'strategy'; known: assistant,",
    "run.py": "an override must be KEY=VALUE or GROUP=OPTION, got 'run.py'",
    "a=[1,2": "an override must follow Hydra's grammar, got 'a=[1,2'; a value that holds spaces,",
    "a='b": "an override must follow Hydra's grammar, got \"a='b\"; a value that holds spaces,",
    # a file that is wrong
    "strategy=stray": "strategy must be one of its options, got 'nobody' in strategy/stray.yaml;",
    "strategy=missing": "there is no group 'objective', named in strategy/missing.yaml; known:",
    "strategy=broken": "broken.yaml\", line 2, column 5: not readable as YAML: expected ',' or",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small configuration in the place of the one that is shipped."""
    small = tmp_path / "conf"
    for name, text in FILES.items():
        (small / name).parent.mkdir(parents=True, exist_ok=True)
        (small / name).write_text(text)
    monkeypatch.setattr(mistakes, "conf_dir", lambda: small)
    return small


@pytest.mark.parametrize("override", ON_THE_COMMAND_LINE)
def test_an_override_that_is_wrong(override: str, folder: Path) -> None:
    with (
        initialize_config_dir(str(folder), version_base="1.3"),
        pytest.raises(Exception) as raised,  # noqa: PT011  every kind, and its own line for each
    ):
        compose("config", [override])
    line = explain(raised.value, overrides=[override])
    assert ON_THE_COMMAND_LINE[override] in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("must", "must must be given: must=VALUE"),
        ("lost", "lost: ${nowhere} leads nowhere: there is no key 'nowhere'; known: "),
        ("unset", 'unset: KeyError raised while resolving interpolation: "Environment variable'),
        ("endless", "endless: Recursive interpolation detected"),
        ("epohcs", "there is no key 'epohcs'; did you mean 'epochs'?"),
    ],
)
def test_a_value_that_cannot_be_had(key: str, expected: str, folder: Path) -> None:
    with initialize_config_dir(str(folder), version_base="1.3"):
        config = compose("config")
    with pytest.raises(Exception) as raised:  # noqa: PT011
        getattr(config, key)
    assert explain(raised.value).startswith(expected)


def test_an_interpolation_without_a_key(folder: Path) -> None:
    config = OmegaConf.create({"a": "${optimiser.lr}"})
    with pytest.raises(Exception) as raised:  # noqa: PT011
        OmegaConf.resolve(config)
    assert "there is no key 'optimiser.lr'; did you mean 'optimizer.lr'?" in explain(raised.value)


def test_a_primary_configuration_that_is_not_there(folder: Path) -> None:
    with (
        initialize_config_dir(str(folder), version_base="1.3"),
        pytest.raises(Exception) as raised,  # noqa: PT011
    ):
        compose("confg")
    expected = "--config-name must name a file of the configuration, got 'confg'"
    assert explain(raised.value) == expected


def test_options_of_a_folder_of_ones_own_are_offered(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "strategy").mkdir(parents=True)
    (own / "strategy" / "apprentice.yaml").write_text("master: 1")
    with (
        initialize_config_dir(str(folder), version_base="1.3"),
        pytest.raises(Exception) as raised,  # noqa: PT011
    ):
        compose("config", ["strategy=aprentice"])
    assert "did you mean 'apprentice'?" in explain(raised.value, [own])
    assert "apprentice" not in explain(raised.value)


def test_an_exception_without_words_is_named() -> None:
    assert explain(RuntimeError()) == "RuntimeError"
    assert explain(RuntimeError("first\n  second")) == "first second"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("strategy=asistant", "did you mean 'assistant'?"),
        ("stratgy=assistant", "did you mean 'strategy'?"),
        ("trainer=cpus", "did you mean 'cpu' or 'gpu'?"),
        ("temperature=2", "did you mean 'objective.temperature'"),
        ("trainer.precison=16", "trainer has no key 'precison'; did you mean 'precision'?"),
        ("hydra.run.dri=x", "hydra.run has no key 'dri'; did you mean 'dir'?"),
        ("strategy.assistant=[a]", "strategy has no key 'assistant'; did you mean 'assistants'"),
    ],
)
def test_the_shipped_configuration(override: str, expected: str) -> None:
    with pytest.raises(Exception) as raised:  # noqa: PT011
        compose_shipped([override])
    line = explain(raised.value, overrides=[override])
    assert expected in line
    assert "\n" not in line
