"""Settings outside what is known to work: each warning says why, and where that is known from."""

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
        found += _learning_rate(recipe.dpo, recipe.tuning)
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
    for setting in ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules"):
        value = getattr(section, setting)
        usual = 2 * section.lora_r if setting == "lora_alpha" else getattr(plain, setting)
        if value != usual:
            yield f"{name}.{setting} is {value} but tuning is 'full': no adapter is trained, so it has no effect"


def _learning_rate(dpo: DpoSettings, tuning: str) -> Iterator[str]:
    rate = dpo.learning_rate
    if tuning == "full" and rate > 1e-6:
        yield (
            f"dpo.learning_rate is {rate:g} with full weights: above 1e-6 the policy tends to leave the reference and "
            f"to lose fluency; 5e-7 is usual ({_DPO_PAPER} used 1e-6, {_ZEPHYR} 5e-7)"
        )
    if tuning == "lora" and rate > 1e-5:
        yield (
            f"dpo.learning_rate is {rate:g} with LoRA: above 1e-5 KL grows fast and chosen responses get less likely "
            f"too; up to about 5e-6 is usual (the alignment handbook's QLoRA recipe uses 5e-6)"
        )
    if tuning == "lora" and rate < 1e-6:
        yield (
            f"dpo.learning_rate is {rate:g} with LoRA: 5e-7 is advice for full weights and hardly moves an adapter; "
            "1e-6 to 1e-5 is usual for LoRA (LoRA wants about 10 times the rate of full weights, arXiv:2405.09673)"
        )


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
