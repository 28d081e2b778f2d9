"""A base that was moved is found by its digest, and one of another digest is one clear error before anything runs."""

import shutil
from pathlib import Path

import pytest

import tasks.promotion
from preflow.artifacts import Artifact, build
from preflow.errors import PromotionError
from preflow.models.resolve import ModelRef, resolve_model
from preflow.observer import Silent
from tasks.promotion import compare
from tasks.tracking.registry.decisions import Draft
from tests.fixtures.real_versions import RealVersions, real

__all__ = ["real"]  # a fixture
pytestmark = pytest.mark.slow  # MLflow's import and tables take seconds


@pytest.fixture
def base(real: RealVersions, tmp_path: Path) -> ModelRef:
    """A base of the test's own, which can be moved."""
    shutil.copytree(real.prepared.base.path, tmp_path / "base")
    return resolve_model(real.recipe(model_name=str(tmp_path / "base")), Silent())


@pytest.fixture
def both(real: RealVersions, base: ModelRef) -> RealVersions:
    """A champion and a challenger over it."""
    real.crown(real.dpo(1, base=base))
    real.dpo(2, base=base)
    return real


def changed(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")


def numbers(draft: Draft) -> object:
    return draft.evidence["challengers"]


def test_a_base_that_was_moved_is_found_where_the_recipe_says_and_gives_the_same_numbers(
    both: RealVersions, base: ModelRef, tmp_path: Path
) -> None:
    before = compare.fn(both.recipe(base=base), [])
    Path(base.path).rename(tmp_path / "moved")
    with pytest.raises(PromotionError, match=r"is no folder.*by --set model_name=FOLDER"):
        compare.fn(both.recipe(base=base), [])
    after = compare.fn(both.recipe(model_name=str(tmp_path / "moved")), [])
    assert numbers(after) == numbers(before)


def test_the_champion_may_be_over_another_base_that_is_where_it_was_and_the_challengers_may_have_moved(
    real: RealVersions, base: ModelRef, tmp_path: Path
) -> None:
    """What each is over is known by digests, so a folder that another model has now is passed over."""
    real.crown(real.dpo(1))
    real.dpo(2, base=base)
    before = compare.fn(real.recipe(base=base), [])
    shutil.copytree(base.path, tmp_path / "moved")
    changed(Path(base.path))
    after = compare.fn(real.recipe(model_name=str(tmp_path / "moved")), [])
    assert numbers(after) == numbers(before)


def test_a_base_of_another_digest_is_one_error_with_what_to_do_and_nothing_is_measured(
    both: RealVersions, base: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.promotion, "measure", lambda *given: pytest.fail("a model was run"))
    changed(Path(base.path))
    with pytest.raises(PromotionError) as raised:
        compare.fn(both.recipe(base=base), [])
    said = str(raised.value)
    assert said.startswith(f"the base of version 2 of {both.name} is in no place as it was registered: {base.path}/")
    assert "model.safetensors has the SHA-256" in said
    assert said.count(base.path) == 1, "a place that is named twice is said once"
    assert "Put its files back, or name the folder that has them by --set model_name=FOLDER" in said


def test_the_champions_base_alone_is_named_where_it_is_that_which_is_gone(
    real: RealVersions, base: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(Path(base.path))
    real.crown(real.dpo(1, base=resolve_model(real.recipe(base=base), Silent())))
    real.dpo(2)
    monkeypatch.setattr(tasks.promotion, "measure", lambda *given: pytest.fail("a model was run"))
    shutil.rmtree(base.path)
    with pytest.raises(PromotionError, match=r"the base of version 1 of .* is in no place as it was registered"):
        compare.fn(real.recipe(), [])


def test_the_base_that_full_weights_were_trained_over_is_held_to_the_digest_of_their_run(
    real: RealVersions, base: ModelRef, tmp_path: Path
) -> None:
    """Without a champion it is the reference: the folder of the recipe has another model meanwhile."""

    def write(out: Path) -> None:
        shutil.copytree(real.prepared.base.path, out / "model")

    made: Artifact = build(tmp_path / "full", write)
    recipe = real.recipe(base=base, tuning="full", strategy="sft", dpo=None)
    real.add(recipe, base=base, validate=real.prepared.data, sft=made)
    assert compare.fn(recipe, []).outcome == "inconclusive", "the same weights"
    changed(Path(base.path))
    with pytest.raises(PromotionError, match=rf"has the digest .*, expected {base.digest}\. Put its files back"):
        compare.fn(recipe, [])
