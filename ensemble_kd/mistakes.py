"""One line for whatever Hydra finds wrong with a command line or a configuration file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ensemble_kd.errors import UserError, nearest
from ensemble_kd.groups import options, split
from ensemble_kd.paths import conf_dir

Options = Mapping[str, Iterable[str]]
"""The options of each group."""


def explain(
    error: Exception, extra_dirs: Sequence[Path] = (), overrides: Sequence[str] = ()
) -> str:
    """One line for an exception of Hydra, OmegaConf or YAML: the key, what is wrong, what is near.

    Args:
        error: what composing or reading the configuration raised.
        extra_dirs: folders with the user's own groups.
        overrides: the command line, for the exceptions that do not say what they are about.
    """
    from hydra.errors import HydraException, MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import MarkedYAMLError

    folders = [*extra_dirs, conf_dir()]
    groups = options(folders)
    cause = error.__cause__
    if isinstance(error, MissingConfigException):
        line = _missing_file(error.missing_cfg_file or "", str(error), groups)
    elif isinstance(error, OverrideParseException):
        line = _unreadable(error.override, groups)
    elif isinstance(error, OmegaConfBaseException):
        line = _bad_value(error, folders)
    elif isinstance(cause, OmegaConfBaseException):
        line = _bad_value(cause, folders, str(error))
    elif isinstance(cause, MarkedYAMLError):
        line = f"{str(cause.problem_mark).strip()}: not readable as YAML: {cause.problem}"
    elif isinstance(error, HydraException) and isinstance(cause, ValueError | TypeError | OSError):
        line = _bad_choice(overrides, groups) or str(error)
    elif isinstance(error, MarkedYAMLError):
        line = f"{str(error.problem_mark).strip()}: not readable as YAML: {error.problem}"
    elif isinstance(error, HydraException):
        line = _reworded(str(error), groups, folders)
    else:
        line = _bad_choice(overrides, groups) or str(error)
    return " ".join((line or type(error).__name__).split())


def _missing_file(name: str, message: str, groups: Options) -> str:
    """An option, a group or a primary configuration that is not there."""
    if "primary config" in message:
        return f"--config-name must name a file of the configuration, got {name!r}"
    group, _, option = name.rpartition("/") if name.startswith("hydra/") else name.partition("/")
    known = {*groups.get(group, ()), *re.findall(r"^\t(\w+)$", message, re.MULTILINE)}
    asked = re.match(r"In '(.+/.+)': ", message)
    where = f" in {asked[1]}.yaml" if asked and not asked[1].startswith("hydra/") else ""
    if not known:
        return f"there is no group {group!r}{where and f', named{where}'}{nearest(group, groups)}"
    return f"{group} must be one of its options, got {option!r}{where}{nearest(option, known)}"


def _bad_choice(overrides: Sequence[str], groups: Options) -> str:
    """The first override that gives a group something else than one of its options."""
    for override in overrides:
        group, _, option = override.partition("=")
        # Plugins of Hydra have options as well, which are names too.
        ours = group in groups and not (group.startswith("hydra/") and option.isidentifier())
        if ours and option not in groups[group]:
            return _missing_file(f"{group}/{option}", "", groups)
    return ""


def _unreadable(override: str, groups: Options) -> str:
    if "=" not in override:
        hint = nearest("", groups[override]) if override in groups else ""
        return f"an override must be KEY=VALUE or GROUP=OPTION, got {override!r}{hint}"
    return (
        f"an override must follow Hydra's grammar, got {override!r}; a value that holds spaces, "
        "quotes, brackets or any of , : = must be quoted: 'KEY=\"VALUE\"'"
    )


def _bad_value(error: Exception, folders: Sequence[Path], message: str = "") -> str:
    """A key that is not there, or whose value cannot be had."""
    from omegaconf.errors import (
        ConfigAttributeError,
        ConfigKeyError,
        InterpolationKeyError,
        MissingMandatoryValue,
    )

    key = str(getattr(error, "full_key", None) or "")
    said = str(getattr(error, "msg", None) or error).partition("\n")[0]
    where = f"{key}: " if key else ""
    if isinstance(error, MissingMandatoryValue):
        return f"{key} must be given: {key}=VALUE"
    if isinstance(error, InterpolationKeyError):
        wanted = re.findall(r"'(.+)'", said)[0]
        return f"{where}${{{wanted}}} leads nowhere: {_unknown_key(wanted, folders)}"
    if isinstance(error, (ConfigAttributeError, ConfigKeyError)):
        addition = re.search(r"use (\+.*)", message)
        return _unknown_key(key, folders, addition[1] if addition else "")
    return where + said


def _unknown_key(key: str, folders: Sequence[Path], addition: str = "") -> str:
    """Says who has this key, which keys end like it, or what there is where it was looked for."""
    owners = _keys(folders)
    if owners.get(key):
        return f"there is no key {key!r} here; it belongs to " + " or ".join(owners[key])
    last = key.rpartition(".")[2]
    same = [known for known in owners if known.rpartition(".")[2] == last]
    if same:
        same.sort(key=lambda known: (known.count("."), known))
        return f"there is no key {key!r}; did you mean {' or '.join(map(repr, same[:3]))}?"
    parent = key
    inside: list[str] = []
    while parent and not inside:
        parent = parent.rpartition(".")[0]
        start = f"{parent}." if parent else ""
        inside = [known.removeprefix(start) for known in owners if known.startswith(start)]
    rest = key.removeprefix(f"{parent}.") if parent else key
    hint = nearest(rest, (known.partition(".")[0] for known in inside))
    if addition and "known:" in hint:
        hint += f"; {addition} would add it"
    return f"{parent} has no key {rest!r}{hint}" if parent else f"there is no key {rest!r}{hint}"


def _keys(folders: Sequence[Path]) -> dict[str, list[str]]:
    """Full names of the values in the configuration files, and the options that have them.

    A value of the primary configuration belongs to no option.
    """
    found: dict[str, list[str]] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.yaml")):
            group, option = split(path, folder)
            if path.read_text(encoding="utf-8").lstrip().startswith("# @package"):
                continue  # it changes values of other groups and has none of its own
            for key in _keys_of_file(path):
                package = group.replace("/", ".")
                owners = found.setdefault(f"{package}.{key}" if option else key, [])
                if option:
                    owners.append(f"{group}={option}")
    return found


def _keys_of_file(path: Path) -> Iterator[str]:
    from ensemble_kd.plain_files import read_yaml

    try:
        content = read_yaml(path)
    except UserError:
        return
    if isinstance(content, Mapping):
        for entry in content.get("defaults", ()):
            if isinstance(entry, str) and entry != "_self_":
                yield from _keys_of_file(path.with_name(f"{entry}.yaml"))
        yield from _flat({name: value for name, value in content.items() if name != "defaults"})


def _flat(values: Mapping[object, object]) -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from (f"{name}.{inner}" for inner in _flat(value))
        else:
            yield str(name)


def _reworded(message: str, groups: Options, folders: Sequence[Path]) -> str:
    """What Hydra says in several lines or in words of its own, as one line with a remedy."""
    first = message.partition("\n")[0]
    quoted = re.findall(r"'(.+?)'", first)
    subject = quoted[0] if quoted else ""
    addition = re.search(r"default list use (\+.*)", message)
    if first.startswith(("Ambiguous value", "Sweep parameters")):
        return f"{subject} holds several values; --multirun would run each, [A,B] would be a list"
    if first.startswith("Could not append"):
        return f"the key {subject!r} exists already; leave out the +"
    if first.startswith("Could not delete") and first.endswith("does not exist."):
        return _unknown_key(subject, folders)
    if first.startswith("Multiple values for "):
        group = first.split()[3].rstrip(".")
        return f"{group} is chosen already; write {group}=OPTION without a +"
    if first.startswith("You must specify"):
        hint = nearest("", groups.get(subject, ()))
        return f"{subject} must be one of its options, got '???'{hint}"
    if first.startswith("Could not override") and addition:
        return f"{subject!r} is not in the list of defaults; {addition[1]} adds it"
    return first
