"""What a version was trained over: the base, and an adapter that its training started from, each by its digest."""

import shutil
from pathlib import Path

import pytest

from preflow.config import Recipe
from preflow.errors import PromotionError
from preflow.models.resolve import ModelRef, model_digest, model_files, resolve_model
from preflow.observer import Silent
from tasks.tracking.registry.bases import loaded_over, trained_over
from tasks.tracking.registry.integrity import Files
from tests.unit.logprobs.stale_models import write_adapter
from tests.unit.support import recipe_for


@pytest.fixture
def started(tmp_path: Path, tiny: ModelRef) -> tuple[Recipe, ModelRef, Files]:
    """A recipe that starts from an adapter, the base that it means, and the files of a version that came of it."""
    shutil.copytree(tiny.path, tmp_path / "base")
    write_adapter(tmp_path / "start", tmp_path / "base", 0)
    recipe = recipe_for(tiny, model_name=str(tmp_path / "start"))
    over = resolve_model(recipe, Silent())
    settings = {"base": over.path, "base_name": over.weights_name, "base_files": model_files(Path(over.path))}
    return recipe, over, Files(folder="", recipe=recipe, settings=settings, trained="")


def test_the_adapter_that_training_started_from_is_part_of_what_it_was_trained_over(
    started: tuple[Recipe, ModelRef, Files], tmp_path: Path, tiny: ModelRef
) -> None:
    recipe, over, files = started
    asked = recipe.model_copy(update={"model_name": tiny.path})
    assert over.digest == f"{tiny.digest}+{model_digest(tmp_path / 'start')}"
    found = trained_over("version 1", files, [recipe, asked], over.digest)
    assert (found.path, found.adapter, found.digest) == (over.path, over.adapter, over.digest)
    assert loaded_over("version 1", files, [recipe, asked]).adapter is None
    (tmp_path / "base").rename(tmp_path / "moved")
    moved = recipe.model_copy(update={"model_name": str(tmp_path / "moved")})
    found = trained_over("version 1", files, [recipe, moved], over.digest)
    assert (found.path, found.adapter) == (str(tmp_path / "moved"), over.adapter)
    weights = tmp_path / "start" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(PromotionError, match="the adapter that training started from has the digest"):
        trained_over("version 1", files, [recipe, moved], over.digest)


def test_an_adapter_that_the_recipe_of_today_starts_from_is_no_part_of_an_earlier_training(
    started: tuple[Recipe, ModelRef, Files], tiny: ModelRef
) -> None:
    recipe, over, files = started
    before = recipe.model_copy(update={"model_name": over.path})
    found = trained_over("version 1", files, [before, recipe], tiny.digest)
    assert (found.path, found.adapter, found.digest) == (over.path, None, tiny.digest)
