"""Whether, where and how what teachers say is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from ensemble_kd.cache import Float32, Format, format_named

if TYPE_CHECKING:
    from ensemble_kd.data.recurring import Recurring

Where = Literal["off", "auto", "memory", "disk"]


class Keeping:
    """Whether, where and how outputs of teachers are kept.

    Args:
        where: ``off``: teachers answer live; ``memory``: their outputs are kept in memory for the
            run; ``disk``: beside the store, for all runs; ``auto``: in memory, where each view is
            seen more than once, of as many teachers as ``limit`` has room for; the others answer
            live.
        limit: bytes, > 0.
        format: of what is kept on disk, by its name: ``float32`` is exact; ``float16``, ``topk-8``
            or ``sampled-16-seed-0`` are smaller, and the student is not the same.
        workers: processes that ask the teachers together, > 0; more than one only on ``disk``.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        where: Where = "auto",
        limit: float = 1e9,
        format: str = "float32",
        workers: int = 1,
    ) -> None:
        if where not in get_args(Where):
            raise ValueError(f"where must be one of {', '.join(get_args(Where))}, got {where!r}")
        if not limit > 0:
            raise ValueError(f"limit must be a number of bytes > 0, got {limit}")
        if isinstance(workers, bool) or not isinstance(workers, int) or not 1 <= workers <= 1024:
            raise ValueError(f"workers must be a number from 1 to 1024, got {workers!r}")
        if workers > 1 and where != "disk":
            raise ValueError(f"workers must be 1 unless where is disk, got {workers}")
        self.where: Where = where
        self.workers = workers
        self.limit = limit
        self.format: Format = format_named(format)

    def inexact(self) -> str | None:
        """The name of the format, where a student learns something else than from live teachers."""
        exact = self.where != "disk" or isinstance(self.format, Float32)
        return None if exact else self.format.name

    def wanted(self, recurring: Recurring, epochs: int, size: int) -> bool:
        """Whether the answers of one more teacher are worth keeping.

        Args:
            recurring: the inputs.
            epochs: of the stage that hears it.
            size: bytes that its answers and all that are kept already take.
        """
        if self.where == "auto":
            return epochs > recurring.views and size <= self.limit
        return self.where != "off"
