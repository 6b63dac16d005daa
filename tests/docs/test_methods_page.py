"""The page of all methods is current, and says something of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from ensemble_kd.groups import options
from ensemble_kd.paths import conf_dir

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_is_what_the_code_says(script: Callable[[str], ModuleType]) -> None:
    assert (DOCS / "methods.md").read_text() == script("docs/methods_page.py").page(), (
        "docs/methods.md is not current: run python docs/methods_page.py"
    )


def test_every_method_has_a_row_and_a_section() -> None:
    page = (DOCS / "methods.md").read_text()
    groups = options([conf_dir()])
    for name in groups["strategy"]:
        assert f"\n| [`{name}`](#{name}) |" in page
        assert f"\n### {name}\n" in page
    for group in ("weighting", "objective"):
        for name in groups[group]:
            assert f"\n| [`{name}`](#{group}-{name}) |" in page
            assert f"\n### {group} {name}\n" in page
