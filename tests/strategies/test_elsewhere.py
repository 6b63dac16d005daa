"""How replicas elsewhere are reached, and what is written down about them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ensemble_kd.errors import UserError
from ensemble_kd.strategies.elsewhere import medium
from ensemble_kd.strategies.exchange import Copy, Ledger, Received, architecture
from ensemble_kd.strategies.shared_folder import SharedFolder


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((None, 1, 0.0), r"strategy.replica: expected 0 without strategy.across=FOLDER, got 1"),
        (("ranks", 1, 0.0), r"strategy.replica: expected 0 without strategy.across=FOLDER, got 1"),
        (("/swap", 2, 0.0), r"strategy.replica: expected 0 \(the student\) to 1, .* got 2"),
        (("/swap", -1, 0.0), r"strategy.replica: .* got -1"),
        (("/swap", 0, -1.0), r"strategy.patience: expected seconds >= 0, got -1.0"),
        (("/swap", 0, math.nan), r"strategy.patience: expected seconds >= 0, got nan"),
        (("swap", 0, 0.0), r"strategy.across: expected null, ranks or an absolute path .* 'swap'"),
        (("rank", 0, 0.0), r"strategy.across: expected null, ranks or an absolute path .* 'rank'"),
        (("", 0, 0.0), r"strategy.across: expected null, ranks or an absolute path .* ''"),
        (("ranks", 0, 0.0), r"strategy.across: expected one process for each of the 2 replicas"),
    ],
)
def test_what_cannot_be_is_one_line(arguments: Any, words: str) -> None:
    across, replica, patience = arguments
    with pytest.raises(UserError, match=words):
        medium(across, replica, patience, 2)


def test_a_folder_or_nothing(tmp_path: Path) -> None:
    assert medium(None, 0, 600.0, 2) is None
    found = medium(str(tmp_path / "a" / "b"), 1, 3.0, 3)
    assert isinstance(found, SharedFolder)
    assert (found.own(), found.others, found.patience) == (1, [0, 2], 3.0)
    assert not (tmp_path / "a").exists()


def test_ages_and_bytes_are_written_down() -> None:
    """Against lists that are kept by hand."""
    ledger, own = Ledger(3), 1
    came = [{}, {0: 2}, {0: 12, 2: 2}, {}, {2: 30}]
    held: dict[int, int] = {}
    ages: dict[int, list[int]] = {0: [], 2: []}
    for number, new in enumerate(came):
        step = 2 + 5 * number
        assert ledger.complete(own) == (len(held) == 2)
        ledger.note(step, Received([Copy(k, n, {}) for k, n in new.items()], 7, 3), own)
        held |= new
        for replica, of in held.items():
            ages[replica].append(step - of)
    ledger.paid(Received([], 9, 0))
    restored = Ledger(3)
    restored.load_state_dict(ledger.state_dict())
    assert restored.told(own) == {
        "replica": 1,
        "exchanges": 5,
        "sent_bytes": 44,
        "received_bytes": 15,
        "copies": {
            f"replica {k}": {
                "last_step": held[k],
                "exchanges": len(of),
                "mean_age": sum(of) / len(of),
                "largest_age": max(of),
            }
            for k, of in ages.items()
        },
    }
    assert restored.held() == [12, -1, 30]


def test_an_architecture_is_names_shapes_and_types() -> None:
    alike = [architecture(nn.Linear(2, 3).state_dict()) for _ in range(2)]
    others = [
        nn.Linear(3, 2).state_dict(),
        nn.Linear(2, 3).double().state_dict(),
        nn.Linear(2, 3, bias=False).state_dict(),
        {"weight": torch.zeros(3, 2), "other": torch.zeros(3)},
    ]
    assert len({*alike, *map(architecture, others)}) == 5
