"""Settings outside what is known to work: each warning says why, and where that is known from."""

import re
from collections.abc import Iterator

from preflow.config.recipe import Recipe
from preflow.config.training import DpoSettings, TrainingSettings

_DPO_PAPER = "Rafailov et al. 2023, arXiv:2305.18290, appendix B"
_ZEPHYR = "Tunstall et al. 2023, arXiv:2310.16944, section 4"


def advice(recipe: Recipe) -> list[str]:
    """Warnings about a resolved recipe's hyperparameters; a run is possible all the same."""
    found: list[str] = []
    for stage, section in recipe.training_sections:
        found += _schedule(stage, section)
        if recipe.tuning == "full":
            found += _unused_adapter(stage, section)
    if recipe.dpo is not None:
        found += _learning_rate(recipe, recipe.dpo)
        found += _preferences(recipe.dpo)
    return found


def _schedule(name: str, section: TrainingSettings) -> Iterator[str]:
    warms = section.warmup_ratio > 0 and section.lr_scheduler_type != "constant"
    if not warms:
        yield (
            f"{name} has no warm-up (warmup_ratio {section.warmup_ratio:g}, lr_scheduler_type "
            f"{section.lr_scheduler_type}): Adam's first steps are at the full rate, before its second moments mean "
            "anything; 0.03 to 0.1 is usual (why: Liu et al. 2019, arXiv:1908.03265, section 3)"
        )


def _unused_adapter(name: str, section: TrainingSettings) -> Iterator[str]:
    plain = type(section)()
    for setting in ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "init_lora_weights"):
        value = getattr(section, setting)
        usual = 2 * section.lora_r if setting == "lora_alpha" else getattr(plain, setting)
        if value != usual:
            yield f"{name}.{setting} is {value} but tuning is 'full': no adapter is trained, so it has no effect"


def _learning_rate(recipe: Recipe, dpo: DpoSettings) -> Iterator[str]:
    """Rates far from those at which models of the same size have learnt; silent between what is known to be right."""
    rate, parameters = dpo.learning_rate, parameters_named(str(recipe.model_name))
    if rate == "auto":
        return
    lora = recipe.tuning == "lora"
    kind = "LoRA" if lora else "full weights"
    if parameters is None:
        size = "a model whose name has no size"
    else:
        size = "a model below a billion parameters" if parameters < _LARGE else "a model of billions of parameters"
    low, high = usual_rates(recipe)
    small = rate > high if parameters is None else parameters < _LARGE
    why = _RATES[recipe.tuning, small][2]
    if rate > high:
        yield (
            f"dpo.learning_rate is {rate:g} with {kind} and {size}: above {high:g} KL grows fast and chosen responses "
            f"get less likely too ({why}); learning_rate: auto measures what fits"
        )
    if rate < low:
        yield (
            f"dpo.learning_rate is {rate:g} with {kind} and {size}: it hardly moves {'an adapter' if lora else 'them'} "
            f"({why}); learning_rate: auto measures what fits"
        )


#: Parameters from which a model counts as large.
_LARGE = 1e9
_MEASURED = (
    "SmolLM2-135M, rank 16, 138 steps of human pairs: KL 0.05 at 2e-5, 1.15 at 1e-4, 3.99 nats at 2e-4, where accuracy "
    "was no higher"
)
_CITED_LORA = (
    "the alignment handbook's QLoRA recipe for 7B uses 5e-6; of nine rates for 8B and rank 64, those below 4e-6 left "
    "margins below zero, marin-community/marin issue 4556"
)
#: By tuning, and whether the model is small: the lowest and highest rate that need no advice, and why.
_RATES = {
    ("lora", True): (1e-5, 2e-4, _MEASURED),
    ("lora", False): (4e-6, 2e-5, _CITED_LORA),
    ("full", True): (5e-7, 1e-5, f"{_DPO_PAPER} used 1e-6 at 2.8B, and smaller models want more"),
    ("full", False): (1e-7, 1e-6, f"{_DPO_PAPER} used 1e-6, {_ZEPHYR} 5e-7"),
}


def usual_rates(recipe: Recipe) -> tuple[float, float]:
    """The lowest and highest learning rate of DPO that need no advice; of any size where the model's is unknown."""
    parameters = parameters_named(str(recipe.model_name))
    sizes = (True, False) if parameters is None else (parameters < _LARGE,)
    known = [_RATES[recipe.tuning, small] for small in sizes]
    return min(low for low, _, _ in known), max(high for _, high, _ in known)


def parameters_named(model: str) -> float | None:
    """The number of parameters in a model's name (``Llama-3.1-8B``, ``opt-350m``, a folder so named), if it has one."""
    name = model.rstrip("/").rpartition("/")[2].upper()
    sizes = re.findall(r"(?<![A-Z0-9.])(\d+(?:\.\d+)?)([MB])(?![A-Z0-9])", name)
    return max((float(number) * {"M": 1e6, "B": 1e9}[unit] for number, unit in sizes), default=None)


def _preferences(dpo: DpoSettings) -> Iterator[str]:
    if not 0.1 <= dpo.beta <= 2:
        yield (
            f"dpo.beta is {dpo.beta:g}, outside 0.1 to 2: lower hardly holds the policy near the reference, higher "
            f"hardly lets it learn ({_DPO_PAPER} used 0.1 and 0.5)"
        )
    unused = (
        ("f_alpha_divergence_coef", dpo.f_divergence_type == "alpha_divergence", "f_divergence_type: alpha_divergence"),
        ("discopop_tau", "discopop" in dpo.loss_type, "loss_type: discopop"),
    )
    for name, used, needed in unused:
        if not used and getattr(dpo, name) != DpoSettings.model_fields[name].default:
            yield f"dpo.{name} is {getattr(dpo, name):g} but has no effect without {needed}"
    if dpo.num_train_epochs > 4:
        yield (
            f"dpo.num_train_epochs is {dpo.num_train_epochs:g}: beyond about 4 passes DPO memorises the pairs; "
            f"1 to 3 is usual ({_ZEPHYR} saw overfitting after the first)"
        )
