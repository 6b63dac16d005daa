"""Universal Binary JSON, as far as it takes to see whether a file is whole."""

from __future__ import annotations

PLAIN = {
    **dict.fromkeys(b"ZNTF", 0),
    **dict.fromkeys(b"iUC", 1),
    **dict.fromkeys(b"I", 2),
    **dict.fromkeys(b"ld", 4),
    **dict.fromkeys(b"LD", 8),
}
"""Bytes of the values that have always as many, by their markers."""

WHOLE = b"iUIlL"
"""Markers of whole numbers; all but U have a sign."""


def check_ubjson(data: bytes) -> None:
    """See whether bytes are one value of UBJSON (draft 12) and nothing else.

    Raises:
        ValueError: they are not.
    """
    if _after(data, 0) != len(data):
        raise ValueError("bytes behind the end")


def _after(data: bytes, place: int) -> int:
    """Where the value that begins here ends."""
    return _after_payload(data, place + 1, _byte(data, place))


def _after_payload(data: bytes, place: int, marker: int) -> int:
    if marker in PLAIN:
        return _within(data, place + PLAIN[marker])
    if marker in b"SH":
        return _after_text(data, place)
    if marker == ord("["):
        return _after_items(data, place, ord("]"), named=False)
    if marker == ord("{"):
        return _after_items(data, place, ord("}"), named=True)
    raise ValueError(f"no marker of a value: {marker:#x} at {place - 1}")


def _after_items(data: bytes, place: int, end: int, named: bool) -> int:
    """After the items of an array, or the names and values of an object."""
    kind = count = None
    if _byte(data, place) == ord("$"):
        kind, place = _byte(data, place + 1), place + 2
    if _byte(data, place) == ord("#"):
        count, place = _length(data, place + 1)
    elif kind is not None:
        raise ValueError(f"a type without a count at {place}")
    if kind in PLAIN and count is not None and not named:
        return _within(data, place + count * PLAIN[kind])
    done = 0
    while done != count:
        if count is None and _byte(data, place) == end:
            return place + 1
        place = _after_text(data, place) if named else place
        place = _after(data, place) if kind is None else _after_payload(data, place, kind)
        done += 1
    return place


def _after_text(data: bytes, place: int) -> int:
    length, place = _length(data, place)
    return _within(data, place + length)


def _length(data: bytes, place: int) -> tuple[int, int]:
    """A whole number that counts something, and where it ends."""
    marker = _byte(data, place)
    if marker not in WHOLE:
        raise ValueError(f"no marker of a count: {marker:#x} at {place}")
    end = _within(data, place + 1 + PLAIN[marker])
    count = int.from_bytes(data[place + 1 : end], "big", signed=marker != ord("U"))
    if count < 0:
        raise ValueError(f"a count below zero at {place}")
    return count, end


def _byte(data: bytes, place: int) -> int:
    _within(data, place + 1)
    return data[place]


def _within(data: bytes, place: int) -> int:
    if place > len(data):
        raise ValueError("ends in the middle of something")
    return place
