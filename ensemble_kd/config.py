"""Composing the configuration, outside and inside a Hydra job."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ensemble_kd.errors import UserError, nearest
from ensemble_kd.hydra_node import expect_typed
from ensemble_kd.paths import conf_dir
from ensemble_kd.plain_files import expect_small_options

NETWORKS = "student"
"""The group whose options are networks; teachers, assistants and peers name them too."""

SOURCES = "source"
"""The group whose options say where teachers come from that were not trained here."""

CONTROLS = "control"
"""The group whose options say what the student is held against."""


def compose(
    overrides: Sequence[str], extra_dirs: Sequence[Path] = (), with_hydra: bool = False
) -> DictConfig:
    """The configuration that a command line with these overrides would get.

    Args:
        overrides: ``group=option`` and ``key=value``, as on the command line.
        extra_dirs: folders with the user's own groups, as given by ``--config-dir``.
        with_hydra: keep the node ``hydra``, which says where a run would write.

    Raises:
        UserError: a file of the user's is too large, or allows packages by itself.
        hydra.errors.HydraException, omegaconf.errors.OmegaConfBaseException: as Hydra finds it.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import ConfigCompositionException, HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    for folder in extra_dirs:
        expect_small_options(folder, [each.name for each in conf_dir().iterdir() if each.is_dir()])
    install_resolvers(extra_dirs)
    folders = ",".join(f"file://{folder.resolve()}" for folder in extra_dirs)
    searched = [f"hydra.searchpath=[{folders}]"] if folders else []
    # A notebook may hold a Hydra of its own; it is given back as it was.
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().hydra = None
    try:
        with (
            warnings.catch_warnings(),
            initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())),
        ):
            warnings.filterwarnings("error", "provider=")  # a folder to search is not there
            composed = hydra_compose(
                "config", overrides=[*searched, *overrides], return_hydra_config=with_hydra
            )
            expect_typed(composed, overrides)
            return composed
    except (ValueError, TypeError, OSError, YAMLError, UserWarning) as failure:
        if isinstance(failure, OmegaConfBaseException | HydraException | UserError):
            raise
        # Mistakes for which Hydra has no exception of its own: group=null, group=[1], an
        # option whose name no file could have, a file that is no YAML.
        raise ConfigCompositionException(str(failure)) from failure
    finally:
        GlobalHydra.instance().hydra = outer


def install_resolvers(extra_dirs: Sequence[Path] = ()) -> None:
    """Make ``${networks:[name, ...]}`` known: a list of network nodes from names, nodes or both.

    ``${network:name}`` is a single one, and ``${control_nodes:[name, ...]}`` are those of controls.
    """
    folders = [*extra_dirs, conf_dir()]

    def networks(entries: Any, *, _root_: DictConfig) -> list[Any]:
        listed = _without_config(entries)
        if not isinstance(listed, list):
            raise UserError(f"expected a list of networks of the group {NETWORKS}, got {listed!r}")
        return [_resolved(_network(entry, folders), _root_) for entry in listed]

    def network(entry: Any, *, _root_: DictConfig) -> Any:
        return networks([_without_config(entry)], _root_=_root_)[0]

    def controls(entries: Any, *, _root_: DictConfig) -> list[Any]:
        return [_resolved(_control(entry, folders), _root_) for entry in _without_config(entries)]

    OmegaConf.register_new_resolver("networks", networks, replace=True)
    OmegaConf.register_new_resolver("network", network, replace=True)
    OmegaConf.register_new_resolver("control_nodes", controls, replace=True)


def control_nodes(config: DictConfig) -> dict[str, Any]:
    """The nodes of a run's controls, by name, with every interpolation resolved.

    Args:
        config: the configuration, whose ``controls`` are names and mappings with ``name``.

    Raises:
        UserError: there is no such control, or an interpolation leads nowhere.
    """
    asked = OmegaConf.create({"controls": "${control_nodes:${controls}}"})
    asked._set_parent(config)
    named: list[dict[str, Any]] = plain(asked, "controls")["controls"]
    return {each["name"]: each["node"] for each in named}


def control_name(entry: Any) -> str:
    """The name of an entry of ``controls``; empty where it is neither a name nor a mapping of one.

    Args:
        entry: the name of an option, or a mapping with ``name`` and ``_target_``.
    """
    name = entry.get("name") if isinstance(entry, Mapping) and "_target_" in entry else entry
    return name if isinstance(name, str) and re.fullmatch(r"\w+", name) else ""


def _without_config(entry: Any) -> Any:
    return OmegaConf.to_container(entry, resolve=True) if OmegaConf.is_config(entry) else entry


def _resolved(node: Any, root: DictConfig) -> Any:
    """A node, whose interpolations such as ``${data.classes}`` are of the whole configuration."""
    holder = OmegaConf.create({"node": node})
    holder._set_parent(root)
    return OmegaConf.to_container(holder.node, resolve=True)


def option_names(group: str, folders: Sequence[Path]) -> list[str]:
    """The options of a group: the names of its YAML files."""
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


def _network(entry: Any, folders: Sequence[Path]) -> Any:
    """The node of a network given by name; whatever is already a mapping stays as it is.

    ``{network: NAME, ...}`` is the node of that name with further arguments, and so is
    ``{NAME: VALUE, ...}`` with a name of the group source, whose first argument is the value.
    """
    if isinstance(entry, Mapping):
        if "_target_" in entry:
            return entry
        if "network" not in entry:
            return _source(entry, folders)
        changes = {key: value for key, value in entry.items() if key != "network"}
        return {**_network(entry["network"], folders), **changes}
    for folder in folders:
        path = folder / NETWORKS / f"{entry}.yaml"
        if path.is_file():
            return OmegaConf.to_container(OmegaConf.load(path))
    hint = nearest(str(entry), option_names(NETWORKS, folders))
    raise UserError(f"no network {entry!r} in the group {NETWORKS}{hint}")


def _source(entry: Mapping[str, Any], folders: Sequence[Path]) -> Any:
    """The node of a source of teachers, from ``{NAME: VALUE, further: arguments}``."""
    known = option_names(SOURCES, folders)
    named = [key for key in entry if key in known]
    if len(named) != 1:
        raise UserError(
            f"expected a network, or one of the sources {', '.join(known)} as a key, "
            f"got {dict(entry)!r}"
        )
    path = next(f for f in (each / SOURCES / f"{named[0]}.yaml" for each in folders) if f.is_file())
    node: Any = OmegaConf.to_container(OmegaConf.load(path))
    first = next(key for key in node if not key.startswith("_"))
    rest = {key: value for key, value in entry.items() if key != named[0]}
    return {**node, first: entry[named[0]], **rest}


def _control(entry: Any, folders: Sequence[Path]) -> dict[str, Any]:
    """The name and the node of a control given by name, or as a mapping with a name."""
    if isinstance(entry, Mapping):
        return {
            "name": control_name(entry),
            "node": {key: value for key, value in entry.items() if key != "name"},
        }
    for folder in folders:
        path = folder / CONTROLS / f"{entry}.yaml"
        if path.is_file():
            return {"name": entry, "node": OmegaConf.to_container(OmegaConf.load(path))}
    hint = nearest(str(entry), option_names(CONTROLS, folders))
    raise UserError(f"no control {entry!r} in the group {CONTROLS}{hint}")


def plain(node: Any, key: str) -> Any:
    """A part of the configuration as plain Python values, with every interpolation resolved.

    Raises:
        UserError: a mandatory value is missing, or an interpolation leads nowhere.
    """
    from omegaconf.errors import OmegaConfBaseException

    try:
        if not OmegaConf.is_config(node):
            return node
        return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as failure:
        cause: BaseException | None = failure
        while cause is not None and not isinstance(cause, UserError):
            cause = cause.__cause__ or cause.__context__
        if cause is not None:
            raise UserError(f"{failure.full_key or key}: {cause}") from failure
        message = (failure.msg or str(failure)).splitlines()[0]
        lacking = re.fullmatch(r"Interpolation key '(data\.\w+)' not found", message)
        if lacking:
            message = f"expected data that says {lacking[1]}, as texts do; the chosen one does not"
        raise UserError(f"{failure.full_key or key}: {message}") from failure
