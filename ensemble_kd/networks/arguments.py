"""Checks that the constructors of all networks share."""

from __future__ import annotations

from collections.abc import Sequence


def image_shape(inputs: Sequence[int]) -> tuple[int, int, int]:
    """The shape of one image.

    Raises:
        ValueError: it is not three positive sizes.
    """
    if len(inputs) != 3 or any(size < 1 for size in inputs):
        raise ValueError(f"inputs must be (channels, height, width), got {list(inputs)}")
    channels, height, width = inputs
    return channels, height, width


def text_length(inputs: Sequence[int]) -> int:
    """The number of tokens of one text.

    Raises:
        ValueError: it is not one positive size.
    """
    if len(inputs) != 1 or inputs[0] < 1:
        raise ValueError(f"inputs must be (length,) of a text in tokens, got {list(inputs)}")
    return inputs[0]


def divides(heads: int, width: int, name: str = "width") -> None:
    """Check that a width can be divided among heads.

    Raises:
        ValueError: it cannot.
    """
    if width % heads:
        raise ValueError(f"{name} must be a multiple of heads = {heads}, got {width}")


def at_least(minimum: int, **arguments: int) -> None:
    """Check arguments that are numbers of something.

    Raises:
        ValueError: one of them is smaller than the minimum.
    """
    for name, value in arguments.items():
        if value < minimum:
            raise ValueError(f"{name} must be >= {minimum}, got {value}")


def sizes(name: str, values: Sequence[int]) -> tuple[int, ...]:
    """A list of layer sizes.

    Raises:
        ValueError: it is empty, or a size is not positive.
    """
    if not values or any(value < 1 for value in values):
        raise ValueError(f"{name} must be one or more sizes >= 1, got {list(values)}")
    return tuple(values)


def probability(name: str, value: float) -> float:
    """A share of units that are dropped.

    Raises:
        ValueError: it is not in [0, 1).
    """
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be in [0, 1), got {value}")
    return value
