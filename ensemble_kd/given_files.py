"""Files that the user brings: checks, and the digest of what is in them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ensemble_kd.errors import UserError
from ensemble_kd.files import file_digest

PICKLES = (".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle", ".p")
"""How files end that are nothing but a pickle."""

REMEDY = (
    "nothing is unpickled, for a pickle runs whatever code it holds: save a network's state_dict "
    "as safetensors, an estimator with skops.io.dump, boosted trees with save_model, anything else "
    "as ONNX or as recorded predictions"
)


def offered(path: str | Path, what: str, any_bytes: bool = False) -> Path:
    """The path of a file that is there, is not empty and is no pickle.

    Args:
        path: where it should be.
        what: what is expected in it, for messages, such as ``an ONNX file``.
        any_bytes: its format may begin as pickles do, such as safetensors whose header has 640
            bytes: whoever reads it makes sure that nothing is unpickled.

    Raises:
        UserError: it is not so.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        raise UserError(f"{file}: expected {what}, got a folder")
    if not file.is_file():
        raise UserError(f"{file}: expected {what}, found no such file")
    if not file.stat().st_size:
        raise UserError(f"{file}: expected {what}, got an empty file")
    if file.suffix.lower() in PICKLES or (not any_bytes and is_pickle(file)):
        raise UserError(f"{file}: expected {what}, got a pickle: {REMEDY}")
    return file


def is_pickle(file: Path) -> bool:
    """Whether a file is a bare pickle, by its name or by how it begins."""
    if file.suffix.lower() in PICKLES:
        return True
    with file.open("rb") as opened:
        head = opened.read(2)
    # The opcode PROTO with one of the versions that exist.
    return len(head) == 2 and head[0] == 0x80 and 2 <= head[1] <= 5


def pickled_hint(file: Path) -> str:
    """What a message adds of a file that its reader refused: that it is what pickles lie in."""
    with file.open("rb") as opened:
        zipped = opened.read(4) == b"PK\x03\x04"
    if is_pickle(file) or zipped:
        return (
            "; it is a pickle, or what torch.save wrote: nothing is unpickled, save "
            "network.state_dict() as safetensors"
        )
    return ""


def ending(file: Path, *endings: str) -> Path:
    """A file whose name ends as it should.

    Raises:
        UserError: it does not.
    """
    if file.suffix.lower() not in endings:
        raise UserError(f"{file}: expected a file {' or '.join(endings)}, got {file.suffix!r}")
    return file


def digest_of(kind: str, files: Iterable[Path], settings: Mapping[str, Any]) -> str:
    """sha256 of all that decides what a teacher says, in hex.

    Args:
        kind: of its source.
        files: their bytes count, and the names of several; not where they lie.
        settings: what else counts, as plain values, or as objects whose ``repr`` says all of them.
    """
    ordered = sorted(files)
    names = [file.name for file in ordered] if len(ordered) > 1 else []
    held = [names, [file_digest(file) for file in ordered]]
    said = json.dumps([kind, held, sorted(settings.items())], default=repr)
    return hashlib.sha256(said.encode()).hexdigest()


def one_line(failure: BaseException, length: int = 200) -> str:
    """What an error of another library says, in one line of at most so many characters."""
    words = " ".join(str(failure).split()) or type(failure).__name__
    return words if len(words) <= length else f"{words[:length]} ..."


def is_commit(revision: str | None) -> bool:
    """Whether a revision of a hub is a commit: nobody can move it to other weights."""
    return revision is not None and re.fullmatch("[0-9a-f]{40}", revision) is not None


def shortened(names: Iterable[Any], count: int = 5) -> str:
    """The first of some names, and how many others there are."""
    listed = sorted(map(str, names))
    rest = f" and {len(listed) - count} more" if len(listed) > count else ""
    return ", ".join(listed[:count]) + rest
