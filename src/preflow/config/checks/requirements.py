"""What a recipe needs to run: its required settings, optional packages, a known optimizer."""

import difflib
import importlib.util
import re

from preflow.config.checks.launch import require_launchable
from preflow.config.checks.unsloth import require_unsloth
from preflow.config.recipe import Recipe
from preflow.environment import remote_code_allowed
from preflow.errors import ConfigError, MissingDependencyError

#: Optimizers that need nothing but torch, so that transformers' whole list need not be loaded to know them.
_PLAIN_OPTIMIZERS = frozenset({"adamw_torch", "adamw_torch_fused", "sgd", "adagrad", "rmsprop", "adafactor"})
#: Patterns of optimizers' names and the package that each imports; the first that matches counts.
_OPTIMIZER_PACKAGES = {
    "^galore_": "galore_torch",
    "^apollo_": "apollo_torch",
    "^(ada)?lomo$": "lomo_optim",
    "^grokadamw$": "grokadamw",
    "^schedule_free_": "schedulefree",
    "^stable_adamw$": "optimi",
    "^adamw_torch_[48]bit$": "torchao",
    "^adamw_torch_xla$": "torch_xla",
    "^adamw_torch_npu_fused$": "torch_npu",
    "^adamw_anyprecision$": "torchdistx",
    "8bit|paged|_bnb|^lion|ademamix": "bitsandbytes",
}

#: What ``validation.personal_data`` imports, by the names under which it is installed.
_PERSONAL_DATA = {"detect_secrets": "detect-secrets", "phonenumbers": "phonenumbers"}
#: Packages that are installed under another name than they are imported by.
_DISTRIBUTIONS = {"optimi": "torch-optimi"}


def require_own_code_allowed(recipe: Recipe) -> None:
    """Check that a recipe that runs a model's own code may do so here.

    Raises:
        ConfigError: It may not.
    """
    if recipe.trust_remote_code and not remote_code_allowed():
        raise ConfigError(
            "trust_remote_code is true, but this machine runs no code that comes with a model. Remove it, or let who "
            "runs the worker set PREFLOW_ALLOW_REMOTE_CODE=1 in its environment"
        )


def require_runnable(recipe: Recipe) -> None:
    """Check that the recipe names all that a run needs.

    Raises:
        ConfigError: ``model_name`` or a stage's ``dataset`` is missing; names every one. Or ``launch.config`` is no
            file, or says what the recipe cannot run under. Or a model's own code would run and may not.
    """
    missing = [] if recipe.model_name else ["model_name"]
    for stage, section in recipe.training_sections:
        if not section.dataset:
            missing.append("dataset" if recipe.strategy == stage else f"{stage}.dataset")
    if missing:
        raise ConfigError(
            f"recipe '{recipe.name}' cannot run: missing {', '.join(missing)}. Add "
            f"{'it' if len(missing) == 1 else 'them'} to the file or give --set {missing[0]}=..."
        )
    require_own_code_allowed(recipe)
    require_launchable(recipe)
    require_packages(recipe)
    require_harness(recipe)
    for stage, section in recipe.training_sections:
        _require_optimizer(f"{stage}.optim", section.optim)


def _require_optimizer(setting: str, name: str) -> None:
    if name in _PLAIN_OPTIMIZERS:
        return
    from transformers.training_args import OptimizerNames

    known = sorted(option.value for option in OptimizerNames)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(known)}"
        raise ConfigError(f"{setting} is '{name}', which is no optimizer of transformers: {hint}")


def optional_packages(recipe: Recipe) -> list[tuple[str, str, str]]:
    """Optional packages that a recipe needs: each one's module, the setting, and a setting that needs none."""
    needed = [("unsloth", "provider: unsloth", "provider: huggingface")] if recipe.provider == "unsloth" else []
    if recipe.use_4bit:
        needed.append(("bitsandbytes", "use_4bit: true", "use_4bit: false"))
    for stage, section in recipe.training_sections:
        patterns = _OPTIMIZER_PACKAGES.items()
        package = next((package for pattern, package in patterns if re.search(pattern, section.optim)), None)
        if package is not None:
            needed.append((package, f"{stage}.optim: {section.optim}", f"{stage}.optim: adamw_torch"))
    return needed


def distribution(package: str) -> str:
    """The name under which an optional package is installed."""
    return _DISTRIBUTIONS.get(package, package.replace("_", "-"))


def require_packages(recipe: Recipe) -> None:
    """Check that the optional packages that the recipe asks for are installed.

    Raises:
        MissingDependencyError: ``provider: unsloth`` without unsloth, or beside versions that it does not take;
            ``use_4bit``, or an 8-bit or paged optimizer, without bitsandbytes; another optimizer without its package.
    """
    require_unsloth(recipe)
    for package, setting, instead in optional_packages(recipe):
        if importlib.util.find_spec(package) is None:
            name = distribution(package)
            raise MissingDependencyError(
                f"recipe '{recipe.name}' has {setting}, but the package {name} is not installed: pip install "
                f"{name}, or use {instead}"
            )


def require_harness(recipe: Recipe) -> None:
    """Check that benchmarks, where the recipe asks for some, can be done.

    Raises:
        MissingDependencyError: lm-evaluation-harness is not installed.
    """
    if recipe.evaluation.benchmarks is not None and importlib.util.find_spec("lm_eval") is None:
        raise MissingDependencyError(
            f"recipe '{recipe.name}' has evaluation.benchmarks, but lm-evaluation-harness is not installed: pip "
            "install 'preflow[bench]', or leave the section out"
        )


def require_validation_packages(recipe: Recipe) -> None:
    """Check that data validation has the optional packages that the recipe asks for.

    Raises:
        MissingDependencyError: ``validation.personal_data`` without the extra ``personal``.
    """
    if not recipe.validation.personal_data:
        return
    missing = [name for package, name in _PERSONAL_DATA.items() if importlib.util.find_spec(package) is None]
    if missing:
        raise MissingDependencyError(
            f"validation.personal_data is true, but {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not "
            "installed: pip install 'preflow[personal]', or set it false"
        )
