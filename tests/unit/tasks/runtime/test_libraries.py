"""Which libraries' versions count beside those that a stage always uses: what its recipe and its model ask for."""

import json
from pathlib import Path
from typing import Any

import pytest

from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.models.resolve import ModelRef
from preflow.specs import DpoSpec, LengthsSpec, SftSpec, ValidateSpec
from tasks.runtime.libraries import LIBRARIES, library_versions

DATA = Artifact(path="/data", digest="d", bytes=1)


def chosen(stage: str = "sft", model: Path = Path("/no/model"), *, launches: bool = False, **changes: Any) -> set[str]:
    """Libraries that count beside the stage's own; a section's settings are given as ``sft={...}``."""
    sections = {name: {"dataset": "a"} | changes.pop(name, {}) for name in ("sft", "dpo")}
    recipe = Recipe.model_validate({"model_name": "tiny", **changes, **sections})
    given: dict[str, Any] = {
        "recipe": recipe,
        "base": ModelRef(name="tiny", path=str(model), digest="m"),
        "data": DATA,
    }
    kinds: dict[str, Any] = {"lengths": LengthsSpec, "sft": SftSpec, "dpo": DpoSpec}
    spec = kinds[stage](**given, **({"reference": DATA} if stage == "dpo" else {}))
    return set(library_versions(stage, spec, launches=launches)) - set(LIBRARIES[stage]) - {"python"}


@pytest.mark.parametrize("stage", ["lengths", "sft", "dpo"])
def test_a_plain_recipe_adds_nothing(stage: str) -> None:
    assert chosen(stage) == set()


@pytest.mark.parametrize(
    ("optimizer", "package"),
    [
        ("galore_adamw", "galore-torch"),
        ("paged_adamw_8bit", "bitsandbytes"),
        ("adamw_torch_4bit", "torchao"),
        ("stable_adamw", "torch-optimi"),
        ("schedule_free_adamw", "schedulefree"),
    ],
)
def test_an_optimizers_package_counts_in_the_stage_that_has_it(optimizer: str, package: str) -> None:
    assert chosen("sft", sft={"optim": optimizer}) == {package}
    assert chosen("dpo", sft={"optim": optimizer}) == set()
    assert chosen("dpo", dpo={"optim": optimizer}) == {package}
    assert chosen("lengths", sft={"optim": optimizer}) == set()


def test_what_loads_the_model_counts_in_every_training() -> None:
    for stage in ("sft", "dpo"):
        assert chosen(stage, use_4bit=True) == {"bitsandbytes"}
        assert chosen(stage, provider="unsloth") == {"unsloth"}
        assert chosen(stage, launches=True) == {"deepspeed"}


@pytest.mark.parametrize(
    ("method", "packages"),
    [
        ("gptq", {"gptqmodel"}),
        ("awq", {"gptqmodel"}),
        ("torchao", {"torchao"}),
        ("bitsandbytes", {"bitsandbytes"}),
        ("another", {"bitsandbytes", "gptqmodel", "torchao"}),
        (None, set()),
    ],
)
def test_quantized_weights_name_what_computes_with_them(tmp_path: Path, method: str | None, packages: set[str]) -> None:
    config = {"quantization_config": {"quant_method": method}} if method else {"quantization_config": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert chosen("sft", tmp_path) == packages
    assert chosen("lengths", tmp_path) == set(), "it loads no weights"


def test_what_looks_for_personal_data_counts_where_it_is_looked_for() -> None:
    def names(**settings: Any) -> set[str]:
        return set(library_versions("validate", ValidateSpec.model_validate({"settings": settings}), launches=False))

    asked, not_asked = names(personal_data=True), names(personal_data=False)
    assert asked - not_asked == {"detect-secrets", "phonenumbers"}
    assert not not_asked - asked


def test_an_absent_library_is_none_and_python_counts_by_its_minor_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.version_info", (3, 12, 7, "final", 0))
    versions = library_versions("validate", ValidateSpec(), launches=True)
    assert versions["python"] == "3.12"
    monkeypatch.setattr("tasks.runtime.libraries.LIBRARIES", {"validate": ("no-such-library",)})
    assert library_versions("validate", ValidateSpec(), launches=False)["no-such-library"] is None
