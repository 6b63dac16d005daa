"""Numbers in words, sentences, and colours in which they can be read."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ensemble_kd.report.page.parts import decimals, duration, octets, points, size, times
from ensemble_kd.report.page.write import TEMPLATES
from ensemble_kd.report.svg.element import short
from ensemble_kd.report.svg.frame import compact

MINUS = "\N{MINUS SIGN}"


@pytest.mark.parametrize(
    ("form", "value", "text"),
    [
        (points, 0.0334, "+3.3"),
        (points, -0.0004, "0.0"),
        (points, -0.02, f"{MINUS}2.0"),
        (decimals, -0.5, f"{MINUS}0.500"),
        (size, 49818, "49,818"),
        (size, 123_456_789, "123 million"),
        (size, 1.34e9, "1.34 billion"),
        (octets, 999, "999 B"),
        (octets, 199_272, "199 kB"),
        (octets, 5.1e9, "5.1 GB"),
        (duration, 0.0123, "0.012"),
        (duration, 12.345, "12.3"),
        (duration, 1234.5, "1,234"),
        (times, 220.4, "220"),
        (times, 2.31, "2.3"),
        (compact, 1_640_000, "1.64M"),
        (short, -0.001, "0"),
    ],
)
def test_numbers_are_written_as_people_read_them(
    form: Callable[[float], str], value: float, text: str
) -> None:
    assert form(value) == text


def luminance(colour: str) -> float:
    """Relative luminance, as the Web Content Accessibility Guidelines 2.2 define it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_stands_out_from_its_paper_in_light_and_dark() -> None:
    style = (TEMPLATES / "style.css").read_text()
    schemes = [
        dict(re.findall(r"--([\w-]+): (#\w{6})", block))
        for block in re.findall(r":root \{(.*?)\}", style, re.S)
    ]
    assert len(schemes) == 2
    for colours in schemes:
        paper = luminance(colours["paper"])
        for name in colours.keys() - {"paper", "panel", "rule", "grid", "heat", "more", "fewer"}:
            own = luminance(colours[name])
            contrast = (max(own, paper) + 0.05) / (min(own, paper) + 0.05)
            assert contrast >= (3.0 if name.startswith("term") else 4.5), name


def test_all_templates_are_found() -> None:
    assert {path.name for path in Path(TEMPLATES).iterdir()} >= {"page.html.jinja", "style.css"}
