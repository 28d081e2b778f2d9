"""Whether ``provider: unsloth`` can run in this environment: unsloth bounds the versions of what it patches."""

from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from preflow.config.recipe import Recipe
from preflow.errors import MissingDependencyError

_UNSLOTH = "unsloth"
#: The version whose requirements are named where none is installed.
_KNOWN = ("2026.10.9", {"transformers": SpecifierSet("<=5.17.0"), "trl": SpecifierSet("<=1.15.0")})


def require_unsloth(recipe: Recipe) -> None:
    """Check that unsloth is here, beside versions of transformers and TRL that it takes.

    Raises:
        MissingDependencyError: It is not; names the versions that it wants and those that are here.
    """
    if recipe.provider != "unsloth":
        return
    installed = _version(_UNSLOTH)
    release, wanted = _KNOWN if installed is None else (installed, _bounds())
    here = {name: _version(name) for name in wanted}
    unmet = [name for name, bound in wanted.items() if here[name] is None or not bound.contains(str(here[name]))]
    if unmet:
        wants = " and ".join(f"{name} {wanted[name]}" for name in unmet)
        found = " and ".join(f"{name} {here[name]}" for name in unmet)
        raise MissingDependencyError(
            f"recipe '{recipe.name}' has provider: unsloth, but unsloth {release} wants {wants}, and here is {found}: "
            "installing it here would replace what Preflow is tested with. Use provider: huggingface"
        )
    if installed is None:
        raise MissingDependencyError(
            f"recipe '{recipe.name}' has provider: unsloth, but the package unsloth is not installed: pip install "
            f"unsloth=={release}, or use provider: huggingface"
        )


def _bounds() -> dict[str, SpecifierSet]:
    """What the installed unsloth says of transformers and TRL, its extras left aside."""
    given = [Requirement(text) for text in requires(_UNSLOTH) or ()]
    plain = [each for each in given if each.marker is None or each.marker.evaluate({"extra": ""})]
    return {each.name: each.specifier for each in plain if each.name in _KNOWN[1]}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
