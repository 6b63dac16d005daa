"""Weights of networks for texts, as they begin."""

from __future__ import annotations

import pytest
import torch

from ensemble_kd.networks import Bert


def test_initial_weights_are_those_of_bert() -> None:
    torch.manual_seed(0)
    network = Bert(500, [64], 2, layers=2, width=128, heads=4, inner=256)
    for path, parameter in network.named_parameters():
        if path.endswith("LayerNorm.weight"):
            assert (parameter == 1).all()
        elif path.endswith("bias"):
            assert (parameter == 0).all()
        else:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.12), path
