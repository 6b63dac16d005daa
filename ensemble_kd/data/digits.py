"""The digits that ship inside scikit-learn."""

from __future__ import annotations

import numpy as np

from ensemble_kd.data.source import Parts, Scale, checked, limited


class Digits:
    """1,797 real images of handwritten digits, 1x8x8 in [0, 1], 10 classes; no file is needed.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998), its test
    part, as scikit-learn bundles it. There is no official split.

    Args:
        limit: keep that many images only.
        stratified: keep the shares of the classes when limiting, else take the first images.
        mean: subtracted from the pixels; the default is that of all images.
        std: what they are divided by; the default is that of all images.
    """

    def __init__(
        self,
        limit: int | None = None,
        stratified: bool = True,
        mean: Scale = (0.3053,),
        std: Scale = (0.3760,),
    ) -> None:
        self.limit = limit
        self.stratified = stratified
        self.mean = mean
        self.std = std

    def load(self) -> Parts:
        """All images, their labels, and no test part."""
        # scikit-learn takes a second to import: only whoever reads these images waits for it.
        from sklearn.datasets import load_digits

        bunch = load_digits()
        images = (bunch.images[:, None] / 16).astype(np.float32)
        rows = limited(bunch.target, self.limit, self.stratified, "digits")
        return Parts(checked(images[rows], bunch.target[rows], "digits", 10), None, 10)
