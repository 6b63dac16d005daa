"""The scores that attention makes of queries and keys, as comparisons of it see them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from ensemble_kd.functional import wide
from ensemble_kd.objectives.tokens import (
    check_groups,
    check_heads,
    cleared,
    in_heads,
    scaled_products,
)


@dataclass(frozen=True)
class Attention:
    """Attention of layers that are named as query, key, query, key, ..., in both networks.

    Attributes:
        heads: of the attention of both networks.

    Raises:
        ValueError: the number of heads is not positive.
    """

    heads: int

    def __post_init__(self) -> None:
        if self.heads < 1:
            raise ValueError(f"heads must be >= 1, got {self.heads}")

    def check(self, students: Sequence[Tensor], teachers: Sequence[Tensor]) -> None:
        """See that features can be compared.

        Raises:
            ValueError: the layers are not pairs, or their features no sequences of one length, or
                not to be divided among the heads.
        """
        check_groups(students, teachers, ("query", "key"))
        check_heads([*students, *teachers], self.heads)

    def scores(self, features: Sequence[Tensor], mask: Tensor) -> Iterator[Tensor]:
        """For each pair of layers (b, h, l, l): the products of query p and key q over sqrt(d / h).

        Args:
            features: queries and keys in turn, (b, l, d) each.
            mask: (b, l), true at tokens; scores in which padding takes part are zero.
        """
        for query in range(0, len(features), 2):
            queries, keys = (
                in_heads(cleared(wide(feature), mask), self.heads)
                for feature in features[query : query + 2]
            )
            yield scaled_products(queries, keys)
