"""``provider: unsloth`` beside versions that it does not take."""

import pytest

from preflow.config import Recipe
from preflow.config.checks import unsloth
from preflow.config.checks.unsloth import require_unsloth
from preflow.errors import MissingDependencyError

RECIPE = Recipe(strategy="sft", model_name="m", provider="unsloth")
REQUIRES = [
    "transformers!=5.0.0,<=5.20.0,>=4.51.3",
    "trl<=1.15.0,>=0.18.2",
    'trl<0.1; extra == "old"',
    "xformers; sys_platform == 'linux'",
]


def environment(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    monkeypatch.setattr(unsloth, "_version", versions.get)
    monkeypatch.setattr(unsloth, "requires", lambda name: REQUIRES)


def test_the_refusal_names_what_unsloth_wants_and_what_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, transformers="5.23.0", trl="1.16.0")
    with pytest.raises(MissingDependencyError) as error:
        require_unsloth(RECIPE)
    said = error.value.message
    assert "unsloth 2026.10.9 wants transformers <=5.17.0 and trl <=1.15.0" in said
    assert "here is transformers 5.23.0 and trl 1.16.0" in said
    assert "pip install" not in said, "it would replace both"


def test_an_installed_unsloth_is_held_to_its_own_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Extras do not count; a bound that is met is not named."""
    environment(monkeypatch, unsloth="2026.11.1", transformers="5.19.0", trl="1.16.0")
    with pytest.raises(MissingDependencyError, match=r"unsloth 2026\.11\.1 wants trl <=1\.15\.0,>=0\.18\.2, and here"):
        require_unsloth(RECIPE)
    environment(monkeypatch, unsloth="2026.11.1", transformers="5.19.0", trl="1.15.0")
    require_unsloth(RECIPE)


def test_where_the_versions_fit_it_is_to_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, transformers="5.17.0", trl="1.15.0")
    with pytest.raises(MissingDependencyError, match=r"pip install unsloth==2026\.10\.9"):
        require_unsloth(RECIPE)


def test_other_providers_need_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch)
    require_unsloth(RECIPE.model_copy(update={"provider": "huggingface"}))
