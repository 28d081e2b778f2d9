"""What is wrong with a recipe, in one line for each problem."""

import difflib
from collections.abc import Iterator

from pydantic import BaseModel, ValidationError

from preflow.config.evaluation import EvaluationSettings
from preflow.config.recipe import Recipe
from preflow.config.training import DpoSettings, SftSettings
from preflow.config.validation import ValidationSettings

_SECTIONS: dict[str, type[BaseModel]] = {
    "sft": SftSettings,
    "dpo": DpoSettings,
    "validation": ValidationSettings,
    "evaluation": EvaluationSettings,
}


def explain(error: ValidationError) -> Iterator[str]:
    """One line for each problem of a recipe, in the words of the recipe; of an unknown setting, the nearest name."""
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            yield _unknown(problem["loc"])
        elif problem["type"] == "value_error":
            text = str(problem["ctx"]["error"])
            yield f"{where}: {text}" if where else text
        else:
            yield f"{where}: {problem['msg']}, got {problem['input']!r}"


#: Short names that people use for settings, where the nearest spelling is another setting's.
_USUAL = {
    "lr": "learning_rate",
    "epochs": "num_train_epochs",
    "batch_size": "per_device_train_batch_size",
    "grad_accum": "gradient_accumulation_steps",
    "max_length": "max_seq_length",
}


def _unknown(location: tuple[int | str, ...]) -> str:
    *parents, last = (str(part) for part in location)
    section: type[BaseModel] = Recipe
    for parent in parents:
        annotation = section.model_fields[parent].annotation
        options = getattr(annotation, "__args__", (annotation,))
        section = next(option for option in options if isinstance(option, type) and issubclass(option, BaseModel))
    names = set(section.model_fields)
    if section is Recipe:
        names |= set(SftSettings.model_fields) | set(DpoSettings.model_fields)
    where = ".".join([*parents, last])
    if section is not Recipe and last in Recipe.model_fields:
        return f"{where}: '{last}' is a setting of the whole recipe, give it at the top level"
    homes = [home for home, settings in _SECTIONS.items() if settings is not section and last in settings.model_fields]
    if homes:
        return f"{where}: '{last}' belongs in {' or '.join(homes)}: give {homes[0]}.{last}"
    if _USUAL.get(last) in names:
        return f"{where}: unknown setting; did you mean '{_USUAL[last]}'?"
    near = difflib.get_close_matches(last, sorted(names), n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"valid names here: {', '.join(sorted(names))}"
    return f"{where}: unknown setting; {hint}"
