"""Whether two tokenizers are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ensemble_kd.errors import UserError
from ensemble_kd.plain_files import parse_json, read_json

FILE = "tokenizer.json"


def settings_of(tokenizer: Any) -> dict[str, Any]:
    """What a ``tokenizers.Tokenizer`` is, but for the length to which it cuts and pads."""
    return _without_length(parse_json(tokenizer.to_str()))


def settings_in(folder: Path) -> dict[str, Any] | None:
    """The same of the one whose file lies in a folder; None where there is none.

    Raises:
        UserError: the file is damaged.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        return _without_length(read_json(file))
    except (OSError, ValueError, AttributeError) as failure:
        raise UserError(f"{file}: expected a tokenizer, got something else") from failure


def _without_length(said: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in said.items() if key not in ("truncation", "padding")}
