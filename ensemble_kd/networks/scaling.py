"""Networks of the same shape, wider or narrower."""

from __future__ import annotations

from collections.abc import Sequence


def check_scale(scale: float) -> float:
    """A factor of widths.

    Raises:
        ValueError: it is not a finite number > 0.
    """
    if not 0 < scale < float("inf"):
        raise ValueError(f"scale must be a finite number > 0, got {scale}")
    return scale


def scaled(widths: Sequence[int], scale: float, multiple: int = 1) -> tuple[int, ...]:
    """Widths times a factor: the nearest multiple, halves upwards, and at least one of it.

    Args:
        widths: channels or units; at a scale of 1 they stay as they are.
        scale: the factor.
        multiple: of what they have to be multiples.

    Raises:
        ValueError: the factor is not a finite number > 0.
    """
    if check_scale(scale) == 1:
        return tuple(widths)
    return tuple(multiple * max(1, int(width * scale / multiple + 0.5)) for width in widths)
