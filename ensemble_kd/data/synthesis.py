"""Made-up samples for the teachers to label."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class Synthesis(ABC):
    """One way to make further training samples, which nobody has labelled.

    Subclasses are frozen dataclasses: their ``repr`` says all their settings, and the digest of the
    data covers it.
    """

    @abstractmethod
    def __call__(self, inputs: Any, seed: int) -> Any:
        """Make samples.

        Args:
            inputs: those of the training split: an array (n, ...) or ``Written``.
            seed: decides all draws.

        Returns:
            Samples of the same kind: an array (m, ...) of the same type, or ``Written``.

        Raises:
            UserError: samples of this kind cannot be made up.
        """

    def fitted(self, tokenizer: Any) -> Synthesis:
        """This rule for texts of a ``tokenizers.Tokenizer``; itself where none matters."""
        return self
