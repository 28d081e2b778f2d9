"""What is saved beside an adapter's weights."""

import json
from pathlib import Path

from preflow.models.adapters import save_model
from preflow.models.loading import load_tokenizer
from tests.fixtures.prepared_run import Run
from tests.unit.dpo.start_models import going_on


def test_an_adapter_names_its_base_as_the_recipe_does(prepared: Run, tmp_path: Path) -> None:
    """A path of this machine would mean nothing elsewhere, and would give the same weights another digest."""
    base = prepared.base.model_copy(update={"name": "owner/name"})
    save_model(going_on(prepared), load_tokenizer(prepared.base, prepared.recipe), base, [1], tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "owner/name"
    assert str(prepared.base.path) not in json.dumps(config)
