"""Feature maps of unlike networks, brought to one shape."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class Aligned(nn.Module):
    """One regressor per map: a 1x1 convolution where the channels differ from the first map's.

    Height and width become the smallest among the maps, by average pooling.

    Args:
        channels: channels of each map.

    Raises:
        ValueError: there is no map, or a number is not positive.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        if not channels or min(channels) < 1:
            raise ValueError(f"channels must be one or more numbers >= 1, got {list(channels)}")
        self.regressors = nn.ModuleList(
            nn.Identity() if count == channels[0] else nn.Conv2d(count, channels[0], 1)
            for count in channels
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (b, d_k, h_k, w_k) as maps (b, d_0, h, w)."""
        height = min(each.shape[2] for each in maps)
        width = min(each.shape[3] for each in maps)
        said: list[Tensor] = []
        for regressor, each in zip(self.regressors, maps, strict=True):
            same = each.shape[2:] == (height, width)
            said.append(regressor(each if same else F.adaptive_avg_pool2d(each, (height, width))))
        return said
