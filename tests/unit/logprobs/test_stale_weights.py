"""Files of a model change behind the store's back, and no stale reference value is served.

Each way changes something behind the store's back. Afterwards the stored values of every pair must equal a forward of
the plainest kind of the model as it stands now. Where a change concerns no row, nothing may be computed.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest

from preflow.errors import ModelError, UnsafeWeightsError
from preflow.models.loading import load_policy
from tests.unit.logprobs.stale_files import (
    EVERY_ROW,
    NO_ROW,
    base_edited_in_place_with_the_same_size_and_time,
    link_turned_to_another_folder,
    retrained_into_the_same_folder,
    rope_changed,
    tokenizer_replaced,
)
from tests.unit.logprobs.stale_hub import (
    hub_cache_copied,
)
from tests.unit.logprobs.stale_models import GROUPS, StaleModelFixture, change_json, edit, louder

pytestmark = pytest.mark.slow  # each test fills a store with a model's forwards

#: One of each kind of change, whose values are compared with a forward in every run of the tests.
REPRESENTATIVES = (
    retrained_into_the_same_folder,
    base_edited_in_place_with_the_same_size_and_time,
    link_turned_to_another_folder,
    rope_changed,
    hub_cache_copied,
)


@pytest.mark.parametrize("way", EVERY_ROW, ids=lambda way: way.__name__)
def test_other_weights_have_another_identity(
    identity_fixture: StaleModelFixture, way: Callable[[StaleModelFixture], None]
) -> None:
    way(identity_fixture)
    assert identity_fixture.ask() == len(GROUPS)
    assert identity_fixture.ask() == 0


@pytest.mark.parametrize(
    "way",
    [way if way in REPRESENTATIVES else pytest.param(way, marks=pytest.mark.nightly) for way in EVERY_ROW],
    ids=lambda way: way.__name__,
)
def test_no_stale_value(stale_model: StaleModelFixture, way: Callable[[StaleModelFixture], None]) -> None:
    way(stale_model)
    assert stale_model.ask() == len(GROUPS)
    assert stale_model.ask(compare=False) == 0


def test_an_adapter_that_would_be_read_from_a_pickle_is_refused(stale_model: StaleModelFixture) -> None:
    stale_model.weights.rename(stale_model.model / "stray.safetensors")
    (stale_model.model / "adapter_model.bin").write_bytes(b"a pickle")
    with pytest.raises(UnsafeWeightsError, match=r"without adapter_model\.safetensors"):
        stale_model.ask()


def test_an_index_that_names_a_file_elsewhere_is_refused(stale_model: StaleModelFixture) -> None:
    index = stale_model.base / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": "../other.safetensors"}}))
    with pytest.raises(UnsafeWeightsError, match=r"names \.\./other\.safetensors"):
        stale_model.ask()


def test_code_from_another_repository_is_refused(stale_model: StaleModelFixture) -> None:
    stale_model.recipe_changes["trust_remote_code"] = True
    change_json(stale_model.base / "config.json", auto_map={"AutoModelForCausalLM": "owner/code--modeling.Model"})
    with pytest.raises(ModelError, match=r"another repository \(owner/code--modeling\.Model\)"):
        stale_model.ask()


@pytest.mark.parametrize("way", NO_ROW, ids=lambda way: way.__name__)
def test_what_changes_no_weight_keeps_the_identity(
    identity_fixture: StaleModelFixture, way: Callable[[StaleModelFixture], None]
) -> None:
    way(identity_fixture)
    assert identity_fixture.ask() == 0


@pytest.mark.parametrize(
    "way",
    [way if way is tokenizer_replaced else pytest.param(way, marks=pytest.mark.nightly) for way in NO_ROW],
    ids=lambda way: way.__name__,
)
def test_what_changes_no_row_of_tokens_and_no_weight_computes_nothing(
    stale_model: StaleModelFixture, way: Callable[[StaleModelFixture], None]
) -> None:
    """Token ids are in each row's key: a tokenizer counts by the ids that it gives, not by its file."""
    way(stale_model)
    assert stale_model.ask() == 0


def test_weights_that_change_while_they_are_used_are_not_stored(stale_model: StaleModelFixture) -> None:
    from preflow.errors import ModelError
    from preflow.stages import reference

    stale_model.groups = [([8, 8, i], ([9, 9], [7])) for i in range(3)]
    load = load_policy

    def load_and_edit(*arguments: Any, **options: Any) -> Any:
        model = load(*arguments, **options)
        edit(stale_model.weights, louder)
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "load_policy", load_and_edit)
        with pytest.raises(ModelError, match="was changed while"):
            stale_model.ask()
    assert stale_model.ask() == 3
