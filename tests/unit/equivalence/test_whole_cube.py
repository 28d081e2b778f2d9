"""Nightly: every loss on every architecture, with an adapter and without, against TRL's own trainer.

``make test`` proves the factors of this cube (test_architectures.py, test_losses.py); here all of it stands.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preflow.models.packed.support import PACKED
from tests.unit.equivalence.comparison import DRAWN, LOSS_TYPES, assert_same_step, moved_trainers, set_loss
from tests.unit.models.architectures import EDGES, Pair, batches, rows_of

pytestmark = pytest.mark.nightly


@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("architecture", PACKED)
def test_every_loss_of_every_architecture_equals_trls(architecture: str, lora: bool) -> None:
    trainers = moved_trainers(architecture, lora)
    for loss_type in LOSS_TYPES:
        set_loss(trainers, loss_type)
        assert_same_step(trainers, rows_of(EDGES, 3))


@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("architecture", PACKED)
@settings(max_examples=15, **DRAWN)
@given(rows=batches, loss_type=st.sampled_from(LOSS_TYPES))
def test_any_loss_of_any_architecture_equals_trls(
    architecture: str, lora: bool, rows: list[Pair], loss_type: str
) -> None:
    trainers = moved_trainers(architecture, lora)
    set_loss(trainers, loss_type)
    assert_same_step(trainers, rows)
