"""The comparison of methods for texts: what is in it, and what its page says of made-up figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from ensemble_kd.config import compose
from ensemble_kd.groups import options
from ensemble_kd.paths import conf_dir

SEEDS = range(6)


@pytest.fixture
def text(script: Callable[[str], ModuleType], tmp_path: Path) -> ModuleType:
    """The script, whose files lie in a folder of the test."""
    loaded = script("benchmarks/text.py")
    for name in ("RAW", "SPEEDS", "PAGE"):
        setattr(loaded, name, tmp_path / getattr(loaded, name).name)
    return loaded


def test_every_experiment_on_texts_is_measured_or_excused(text: ModuleType) -> None:
    settings = [own for family in text.FAMILIES.values() for own in family.settings.values()]
    measured = {override for own in (*settings, *text.PRETRAINED.values()) for override in own}
    for name in options([conf_dir()])["experiment"]:
        if name.startswith(("sst2", "wnut17")):
            assert (f"experiment={name}" in measured) != (name in text.ELSEWHERE), name


def test_all_settings_can_be_composed(text: ModuleType) -> None:
    for family in text.FAMILIES.values():
        assert family.plain in family.settings
        for own in family.settings.values():
            compose([override for override in own if not override.startswith(text.BEGUN)])
            begun = [o.removeprefix(text.BEGUN) for o in own if o.startswith(text.BEGUN)]
            assert set(begun) <= set(text.PRETRAINED)
    for own in text.PRETRAINED.values():
        compose(list(own))


def written(text: ModuleType, gains: dict[str, list[float]]) -> None:
    """Figures of the first family: 60 points without a teacher, and so much more with one."""
    family = next(iter(text.FAMILIES.values()))
    for seed in SEEDS:
        figures = {"no teacher": 0.6, **{name: 0.6 + gain[seed] for name, gain in gains.items()}}
        named = [text.Row(text.label(family, n), seed, v, "code") for n, v in figures.items()]
        text.append(text.RAW, named)


def test_the_page_says_what_helps_and_what_does_not(text: ModuleType) -> None:
    apart = [0.01, 0.02, 0.015, 0.02, 0.01, 0.015]
    unsure = [0.01, -0.02, 0.015, -0.02, 0.01, 0.005]
    written(text, {"kd": apart, "minilm": unsure, "tinybert": [-gain for gain in apart]})
    text.report()
    lines = text.PAGE.read_text().splitlines()
    assert (
        "- Against no teacher: helps: `kd`; makes no clear difference: `minilm`; "
        "hurts: `tinybert`." in lines
    )
    (row,) = [line for line in lines if line.startswith("| `kd` |")]
    assert row.startswith("| `kd` | 61.50 | +1.50 [")
    assert row.endswith("| 0.031 |  |  |")


def test_few_seeds_claim_nothing(text: ModuleType) -> None:
    family = next(iter(text.FAMILIES.values()))
    for seed in range(3):
        figures = {"no teacher": 0.6, "kd": 0.9 + seed / 100}
        named = [text.Row(text.label(family, n), seed, v, "code") for n, v in figures.items()]
        text.append(text.RAW, named)
    text.report()
    said = text.PAGE.read_text()
    assert "- 3 seeds, fewer than 6: nothing is claimed of any row." in said
    assert "helps" not in said


def test_the_page_says_what_leaving_early_costs(text: ModuleType) -> None:
    written(text, {"kd": [0.0] * 6})
    points = [text.Point(0.0, 0.7, 4.0), text.Point(0.4, 0.6, 2.0)]
    text.write_speeds(0, [text.Point(0.0, 0.1, 1.0)])  # was measured again
    text.write_speeds(0, points)
    text.write_speeds(1, [text.Point(0.0, 0.8, 4.0), text.Point(0.4, 0.7, 3.0)])
    text.report()
    lines = text.PAGE.read_text().splitlines()
    assert "| 0 | 75.00 | 4.00 |" in lines
    assert "| 0.4 | 65.00 | 2.50 |" in lines


def test_figures_of_other_code_are_refused(text: ModuleType) -> None:
    written(text, {"kd": [0.0] * 6})
    with pytest.raises(SystemExit, match="holds figures of other code"):
        text.run([0], Path("store"))
