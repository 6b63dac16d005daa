"""One pass over a split: what each predictor says of each sample."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType

import torch
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor, nn

from ensemble_kd.errors import UserError
from ensemble_kd.predictions import Predictions
from ensemble_kd.teachers import Frozen, Kept, Mixture, asked
from ensemble_kd.types import UNLABELLED, Batch


def predict(
    predictors: Mapping[str, nn.Module],
    loader: Iterable[Batch],
    classes: int,
    device: torch.device | str = "cpu",
    known: Mapping[str, Kept] = MappingProxyType({}),
    names: Sequence[str] = (),
) -> Predictions:
    """Ask all predictors about all samples.

    Each network runs once per batch, however many mixtures it is a member of. Everything runs in
    eval and inference mode on ``device``; the networks are left as and where they were. Of
    sequences, only the places where there is something to predict are kept.

    Args:
        predictors: networks by name; each takes a batch's inputs and gives logits (*, classes).
        loader: the batches of one split.
        classes: number of classes.
        device: where to compute.
        known: what some of the predictors said of this very split: looked up, not computed.
        names: of the classes, in their order; numbers unless given.

    Returns:
        Logits on the CPU, in float32.

    Raises:
        UserError: a predictor gives NaN or infinite predictions, or another number of classes; or
            the split is empty.
    """
    looked_up = {_network(predictors[name]): kept for name, kept in known.items()}
    networks = dict.fromkeys(part for p in predictors.values() for part in networks_of(p))
    running = [network for network in networks if network not in looked_up]
    index: list[Tensor] = []
    target: list[Tensor] = []
    logits: dict[str, list[Tensor]] = {name: [] for name in predictors}
    with resting_on(running, device), torch.inference_mode():
        for batch in loader:
            here = move_data_to_device(batch, torch.device(device))
            only = torch.zeros_like(here.index)
            said = {
                network: _wide(kept.read(here.index, only).to(device))
                for network, kept in looked_up.items()
            }
            counted = _places(here)
            for name, network in predictors.items():
                own = _logits(network, here, said)
                _check(name, own, classes)
                logits[name].append(own[counted].float().cpu())
            target.append(_known(batch).flatten()[counted.cpu()])
            index.append(_numbers(batch).flatten()[counted.cpu()])
    if not index:
        raise UserError("evaluation: expected at least one batch, got an empty split")
    # Outside of inference mode, so that whoever computes with them may do all that tensors can.
    joined = {name: torch.cat(parts) for name, parts in logits.items()}
    for name, values in joined.items():
        _check_finite(name, values)
    said_names = tuple(names) or tuple(str(number) for number in range(classes))
    return Predictions(said_names, torch.cat(index), torch.cat(target), joined)


def networks_of(predictor: nn.Module) -> list[nn.Module]:
    """The networks that a predictor runs: itself, or the members of a mixture."""
    if isinstance(predictor, Frozen):
        return networks_of(predictor.network)
    if isinstance(predictor, Mixture):
        return [network for member in predictor.members for network in networks_of(member)]
    return [predictor]


@contextmanager
def resting_on(networks: Sequence[nn.Module], device: torch.device | str) -> Iterator[None]:
    """Networks in eval mode on a device; afterwards each of their parts is as and where it was."""
    modes = {part: part.training for network in networks for part in network.modules()}
    homes = [(network, _device(network)) for network in networks]
    try:
        for network in networks:
            network.eval().to(device)
        yield
    finally:
        for part, training in modes.items():
            part.training = training
        for network, home in homes:
            if home is not None:
                network.to(home)


def _logits(predictor: nn.Module, batch: Batch, said: dict[nn.Module, Tensor]) -> Tensor:
    """Logits (n, c) of a predictor, float32 or wider; ``said`` keeps what each network said."""
    network = _network(predictor)
    if network not in said:
        if isinstance(network, Mixture):
            members = [_logits(member, batch, said) for member in network.members]
            said[network] = network.merge(members)
        else:
            said[network] = _wide(asked(network, batch).logits)
    return said[network]


def _wide(logits: Tensor) -> Tensor:
    """(n, c) logits of all places, float32 or wider."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(0, -2)


def _network(predictor: nn.Module) -> nn.Module:
    return predictor.network if isinstance(predictor, Frozen) else predictor


def _places(batch: Batch) -> Tensor:
    """(n,) bool: where there is something to predict, and no padding."""
    if batch.places is None:
        return torch.ones_like(batch.target, dtype=torch.bool).flatten()
    return batch.places.flatten()


def _known(batch: Batch) -> Tensor:
    if batch.mask is None:
        return batch.target
    return batch.target.masked_fill(~batch.mask, UNLABELLED)


def _numbers(batch: Batch) -> Tensor:
    """(*,) int64, the number of the sample to which each target belongs."""
    inner = [1] * (batch.target.ndim - 1)
    return batch.index.view(-1, *inner).expand_as(batch.target)


def _device(network: nn.Module) -> torch.device | None:
    tensor = next(itertools.chain(network.parameters(), network.buffers()), None)
    return None if tensor is None else tensor.device


def _check(name: str, logits: Tensor, classes: int) -> None:
    if logits.shape[-1] != classes:
        raise UserError(
            f"{name}: expected {classes} classes as in the data, got {logits.shape[-1]}"
        )


def _check_finite(name: str, logits: Tensor) -> None:
    """Refuse predictions that are none.

    They are distributions exactly when the sum in the softmax is finite: no NaN, no +inf, and not
    every class ruled out.
    """
    if not logits.logsumexp(-1).isfinite().all():
        raise UserError(
            f"{name}: expected finite logits, got NaN or infinite ones; its training diverged "
            f"(lower optimizer.lr) or its inputs are not finite"
        )
