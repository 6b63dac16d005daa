"""The group `sweep`: choosing an option is enough to make a multirun of it."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import OmegaConf

from ensemble_kd.config import compose as compose_shipped
from ensemble_kd.paths import conf_dir
from ensemble_kd.statistics import seeds_to_call

SWEEPS = sorted(path.stem for path in (conf_dir() / "sweep").glob("*.yaml"))
APPLICATION = """
import hydra

@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def job(config):
    print("job", config.seed, flush=True)

job()
"""


def axes(name: str, folder: Path) -> dict[str, list[str]]:
    """The values of a sweep by key; each is checked to be a multirun."""
    (folder / "primary.yaml").write_text("defaults: [{sweep: null}]\n")
    with initialize_config_dir(str(folder), version_base="1.3"):
        chosen = [f"hydra.searchpath=[file://{conf_dir()}]", f"sweep={name}"]
        config = compose("primary", chosen, return_hydra_config=True)
    assert config.hydra.mode == RunMode.MULTIRUN
    params = OmegaConf.to_container(config.hydra.sweeper.params)
    assert isinstance(params, dict)
    lines = [f"{key!s}={values!s}" for key, values in params.items()]
    return {
        override.key_or_group: [str(value) for value in override.sweep_string_iterator()]
        for override in OverridesParser.create().parse_overrides(lines)
    }


@pytest.mark.parametrize("name", SWEEPS)
def test_every_value_of_a_sweep_is_a_configuration(name: str, tmp_path: Path) -> None:
    for key, values in axes(name, tmp_path).items():
        assert len(values) > 1
        assert len(set(values)) == len(values)
        for value in values[: 1 if key == "seed" else None]:
            compose_shipped([f"{key}={value}"])


@pytest.mark.parametrize("name", SWEEPS)
def test_every_sweep_has_seeds_enough_to_call_its_settings(name: str, tmp_path: Path) -> None:
    found = axes(name, tmp_path)
    seeds = len(found.pop("seed"))
    assert seeds >= seeds_to_call(math.prod(map(len, found.values())))


def test_seeds_run_without_the_flag(tmp_path: Path) -> None:
    (tmp_path / "conf" / "sweep").mkdir(parents=True)
    shutil.copy(conf_dir() / "sweep" / "seeds.yaml", tmp_path / "conf" / "sweep")
    (tmp_path / "conf" / "config.yaml").write_text("defaults: [_self_, {sweep: null}]\nseed: 7\n")
    (tmp_path / "application.py").write_text(APPLICATION)

    def jobs(*overrides: str) -> list[str]:
        command = [sys.executable, "application.py", *overrides]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return [line for line in ran.stdout.splitlines() if line.startswith("job")]

    assert jobs("sweep=seeds") == [f"job {seed}" for seed in range(8)]
    assert jobs() == ["job 7"]
