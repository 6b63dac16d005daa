"""What is installed, pinned and shipped."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

import ensemble_kd
from ensemble_kd.paths import conf_dir
from ensemble_kd.version import __version__

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def pins(python: str) -> dict[str, str]:
    """Versions of constraints.txt that hold for a Python on Linux, by canonical name."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "platform_machine": "x86_64",
    }
    found: dict[str, str] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(dict(environment)):
            name = canonicalize_name(requirement.name)
            assert name not in found, f"two pins of {name} for Python {python}"
            (specifier,) = requirement.specifier
            assert specifier.operator == "=="
            found[name] = specifier.version
    return found


def direct_requirements() -> list[Requirement]:
    """Everything that pyproject.toml asks for, all extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    return [Requirement(name) for names in lists for name in names if "ensemble-kd" not in name]


@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_is_pinned_within_its_floor(python: str) -> None:
    pinned = pins(python)
    for requirement in direct_requirements():
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} but pinned to {version}"


def test_installed_versions_are_the_pinned_ones() -> None:
    from importlib.metadata import version

    if sys.version_info[:2] != (3, 11):
        pytest.skip("the other Pythons take the user's own environment")
    pinned = pins("3.11")
    differing = {
        name: (version(name), pinned[name])
        for name in ("torch", "pytorch-lightning", "hydra-core", "numpy", "ruff", "mypy")
        if version(name).partition("+")[0] != pinned[name]
    }
    assert not differing


def test_pre_commit_uses_the_pinned_ruff() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["rev"] == "v" + pins("3.11")["ruff"]


def test_the_changelog_knows_the_version() -> None:
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, ensemble_kd; print(*sys.modules)"
    loaded = set(run_python("-c", code, cwd=ROOT).split())
    assert not loaded & {"torch", "hydra", "omegaconf", "pytorch_lightning", "numpy", "yaml"}


@pytest.mark.parametrize("name", ensemble_kd.__all__)
def test_public_names_can_be_had_and_are_listed(name: str) -> None:
    assert getattr(ensemble_kd, name) is not None
    assert name in dir(ensemble_kd)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        _ = ensemble_kd.distil


def test_the_configuration_is_found_in_a_checkout() -> None:
    assert conf_dir() == ROOT / "conf"
    assert conf_dir().is_absolute()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the source distribution, as an installer would, without network."""
    folder = tmp_path_factory.mktemp("dist")
    run_python(
        "-m", "hatchling", "build", "--target", "sdist", "--directory", str(folder), cwd=ROOT
    )
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as sources:
        sources.extractall(folder, filter="data")
    run_python(
        *("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"),
        *("--wheel-dir", str(folder), str(folder / archive.name.removesuffix(".tar.gz"))),
    )
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_its_configuration_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        metadata = archive.read(f"ensemble_kd-{__version__}.dist-info/METADATA").decode()
    about = {name for name in names if ".dist-info/" in name}
    assert names - about == shipped(ROOT / "ensemble_kd", "") | shipped(ROOT / "conf", "conf/")
    assert "ensemble_kd/py.typed" in names
    assert "ensemble_kd/conf/config.yaml" in names
    assert any(name.endswith("licenses/LICENSE") for name in about)
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Python: >=3.10" in metadata


def test_the_wheel_works_from_any_folder(wheel: Path, tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run_python(
        *("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)),
        str(wheel),
    )
    found = run_python(
        "-c",
        "from ensemble_kd.paths import conf_dir; print(conf_dir())",
        cwd=elsewhere,
        PYTHONPATH=str(site),
    )
    assert found.strip() == str(site / "ensemble_kd" / "conf")
    command = site / "bin" / "ensemble-kd"
    listed = run_python(str(command), "--help", cwd=elsewhere, PYTHONPATH=str(site))
    assert "Groups:" in listed
    assert "ensemble3" in listed
    shown = run_python(str(command), "--cfg", "job", cwd=elsewhere, PYTHONPATH=str(site))
    assert yaml.safe_load(shown)["seed"] == 0
    assert not list(elsewhere.iterdir())


def shipped(folder: Path, prefix: str) -> set[str]:
    """The files of a folder by the names that they have inside the wheel."""
    return {
        f"ensemble_kd/{prefix}{path.relative_to(folder).as_posix()}"
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def run_python(*arguments: str, cwd: Path | None = None, **environment: str) -> str:
    """Standard output of a Python process; it fails the test when it fails."""
    result = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
