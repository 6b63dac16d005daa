from __future__ import annotations

import doctest
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "merging.md"


def test_the_page_about_merging_says_what_the_code_does() -> None:
    result = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.REPORT_UDIFF)
    assert result.attempted > 5
    assert result.failed == 0
