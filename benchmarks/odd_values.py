"""Values that are wrong almost everywhere, and how Hydra's grammar writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString
from hypothesis import strategies as st


class Raw(str):
    """Written into an override as it is, so that Hydra's grammar reads it."""


INF, NAN = float("inf"), float("nan")
PLAIN: Sequence[Any] = (
    *(None, True, False, "", "text", "größer 猫", "a\nb", "nul\0", "\x1b[31m", "x" * 5000),
    *(0, -1, 1, 2, 3, 7, 100, 2**31, 2**63, 10**12, 10**30, -(2**63)),
    *(0.5, -0.5, 1.5, 1e-320, 1e308, -1e308, NAN, INF, -INF),
    *("2026-01-01", "off", "1", "1.0", "null", "last", "stages.1", "../../x", "/dev/null", "."),
    *([], [[]], [None], [1, [2, "b"]], [[1, 2], [3]], ["student"], [0.2, 0.8], [-1]),
    *({}, {"a": 1}, {"a": {"b": [None]}}, {"_target_": "os.system"}, {"_target_": 1}),
    *({"_target_": "torch.nn.Linear"}, {"_target_": "ensemble_kd.schedules.Cosine"}),
    *({"_partial_": True}, {"network": "cnn_tiny", "x": 1}, {"onnx": None}, {1: 2}),
    *(Raw("???"), Raw("${x}"), Raw("${oc.env:NOPE}"), Raw("${seed}"), Raw("${student}")),
    *(Raw("${networks:3}"), Raw("${"), Raw("}"), Raw("[1,"), Raw("{a"), Raw("a,b"), Raw("1,2")),
    *(Raw("range(1,3)"), Raw("choice(1,2)"), Raw("interval(0,1)"), Raw("glob(*)"), Raw("int(x)")),
    *(Raw("sort(3,1)"), Raw("shuffle(1,2)"), Raw("'"), Raw('"a'), Raw("a: b"), Raw("\\,"), Raw("")),
)
"""Replacements that have shown something elsewhere: the edges of types, formats and grammars."""


@cache
def values() -> st.SearchStrategy[Any]:
    """What may stand in the place of a value: mostly of ``PLAIN``, else drawn anew."""
    texts = st.text(max_size=8)
    numbers = st.integers(-(2**65), 2**65) | st.integers(-3, 70) | st.floats()
    scalars = st.none() | st.booleans() | numbers | texts
    names = st.text("ab_", min_size=1, max_size=3)
    nested = st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner),
        max_leaves=4,
    )
    return st.sampled_from(PLAIN) | st.sampled_from(PLAIN) | nested


def alike(value: Any) -> st.SearchStrategy[Any]:
    """Values of the same type, of which some may be right."""
    if isinstance(value, bool):
        return st.just(not value)
    if isinstance(value, int):
        return st.sampled_from((-1, 0, 1, 2, 3, 5, 8, 64, 1000, 10**5, 10**9, 2**31, 2**64))
    if isinstance(value, float):
        return st.sampled_from((-1.0, 0.0, 1e-320, 1e-9, 0.3, 1.0, 2.0, 50.0, 1e9, 1e308, INF, NAN))
    if isinstance(value, list) and value:
        fewer = st.sampled_from((value[1:], value[:-1], value * 2, value[::-1], [value], []))
        return fewer | st.sampled_from(range(len(value))).flatmap(lambda k: _with(value, k))
    return values()


def _with(listed: list[Any], place: int) -> st.SearchStrategy[list[Any]]:
    """A list in which one element is another."""
    others = values() if isinstance(listed[place], str) else alike(listed[place]) | values()
    return others.map(lambda other: [*listed[:place], other, *listed[place + 1 :]])


def written(value: Any) -> str:
    """A value as Hydra's grammar writes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, str):
        return QuotedString(value, Quote.single).with_quotes()
    if isinstance(value, Mapping):
        # The grammar has no quotes around keys.
        inner = (f"{key}:{written(each)}" for key, each in value.items())
        return "{" + ",".join(inner) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(map(written, value)) + "]"
    return repr(value)
