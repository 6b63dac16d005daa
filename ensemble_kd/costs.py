"""What a predictor costs: memory, arithmetic and time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from ensemble_kd.export import count_parameters
from ensemble_kd.latency import Latency, latency
from ensemble_kd.predict import networks_of, resting_on
from ensemble_kd.teachers import Foreign, Numbered


class Cost(NamedTuple):
    """What one predictor costs; None where nobody knows.

    Attributes:
        parameters: how many numbers it has learned; of a mixture, of all members together.
        bytes: of its parameters and buffers, as they are in memory.
        multiply_adds: of matrix products and convolutions, for one sample.
        milliseconds_per_1000: for 1,000 samples in batches.
        latency: milliseconds for a single sample.
    """

    parameters: int | None
    bytes: int | None
    multiply_adds: int | None
    milliseconds_per_1000: float | None
    latency: Latency | None


def cost(predictor: nn.Module, inputs: Any) -> Cost:
    """Count and measure a predictor, on the processor, in eval and inference mode.

    Of a network that runs in another library only the time is known; of recorded answers nothing.

    Args:
        predictor: any.
        inputs: of a batch.
    """
    # Those of a frozen teacher are not among its parameters.
    networks = nn.ModuleList(networks_of(predictor))
    foreign = any(isinstance(part, Foreign) for part in networks.modules())
    if any(isinstance(part, Numbered) for part in networks.modules()):
        return Cost(None, None, None, None, None)
    one = pytree.tree_map(_first, inputs)
    return Cost(
        None if foreign else count_parameters(networks),
        None if foreign else size(networks),
        None if foreign else multiply_adds(predictor, one),
        1e3 * latency(predictor, inputs).p50 / len(_some_tensor(inputs)),
        latency(predictor, one, repeats=200),
    )


def size(network: nn.Module) -> int:
    """Bytes of all parameters and buffers, each counted once."""
    tensors = {id(each): each for each in (*network.parameters(), *network.buffers())}
    return sum(each.nbytes for each in tensors.values())


def multiply_adds(network: nn.Module, inputs: Any) -> int:
    """Multiplications, each with its addition, of matrix products, convolutions and attention.

    As torch counts them, whose floating point operations are two of each; what works value by
    value, such as activations and normalisation, does not count.

    Args:
        network: any of PyTorch.
        inputs: of one sample, or of as many as are to be counted together.
    """
    # Fused recurrent layers hide their products, and torch's own table does not know them.
    counter = FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.mkldnn_rnn_layer: _recurrent}
    )
    with resting_on(networks_of(network), "cpu"), torch.no_grad(), _attention_in_steps(), counter:
        network(inputs)
    return int(counter.get_total_flops()) // 2


@contextmanager
def _attention_in_steps() -> Iterator[None]:
    """Attention as the products that it consists of: fused, it is in no table either."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _recurrent(
    inputs: Sequence[int],
    input_weight: Sequence[int],
    hidden_weight: Sequence[int],
    *rest: Any,
    out_shape: Any = None,
    **options: Any,
) -> int:
    """Operations of a fused recurrent layer, from shapes (l, b, d), (gates, d) and (gates, h)."""
    steps, batch, _ = inputs
    return 2 * steps * batch * (math.prod(input_weight) + math.prod(hidden_weight))


def _first(part: Any) -> Any:
    return part[:1] if isinstance(part, Tensor) else part


def _some_tensor(inputs: Any) -> Tensor:
    return next(part for part in pytree.tree_leaves(inputs) if isinstance(part, Tensor))
