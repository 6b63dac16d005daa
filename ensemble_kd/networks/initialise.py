"""Initial weights."""

from __future__ import annotations

from torch import nn


def initialise(network: nn.Module) -> None:
    """Draw the convolutions from N(0, 2 / fan_out); BatchNorm starts as the identity.

    Source: He et al., Delving Deep into Rectifiers (arXiv 1502.01852), section 2.2, backward case,
    as the published training codes of the CIFAR networks use it. Linear layers keep PyTorch's
    default.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def small_classifier(classifier: nn.Linear) -> None:
    """Draw a classifier from N(0, 0.01^2), with bias zero, as VGG and MobileNetV2 do."""
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)
