"""What all settings are made of: frozen models whose unknown keys are refused and whose docstrings are their manual."""

from collections.abc import Mapping
from datetime import date
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, JsonValue, model_validator

#: Marks a field that cannot change a stage's numbers, so that changing it keeps every cached stage.
COSMETIC: dict[str, JsonValue] = {"cosmetic": True}


def one_or_many(value: Any) -> Any:
    """A single string, where a list is expected, becomes a list of one."""
    return (value,) if isinstance(value, str) else value


#: How a conversation becomes text: by the tokenizer's chat template, or by concatenating its turns.
Template = Literal["chat", "none"]
#: What happens to a system turn before the chat template sees it.
SystemTurn = Literal["auto", "user", "drop"]
Names = Annotated[tuple[str, ...], BeforeValidator(one_or_many, json_schema_input_type=str | tuple[str, ...])]


class Frozen(BaseModel):
    """Base of all settings: immutable, unknown keys refused, docstrings become the schema's descriptions."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        coerce_numbers_to_str=True,  # `name: 2024` is a name
    )

    @model_validator(mode="before")
    @classmethod
    def _truth_is_no_number(cls, data: Any) -> Any:
        for name, field in cls.model_fields.items() if isinstance(data, Mapping) else ():
            if isinstance(data.get(name), bool) and _is_number(field.annotation):
                raise ValueError(f"{name} is {str(data[name]).lower()}: expected a number")
        return data


def _is_number(annotation: Any) -> bool:
    """Whether a setting is a number, or none, or a word in place of one."""
    kinds = {get_args(kind)[0] if get_origin(kind) is Annotated else kind for kind in get_args(annotation)}
    words = {kind for kind in kinds if get_origin(kind) is Literal}
    return annotation in (int, float) or (
        not kinds.isdisjoint({int, float}) and kinds - words <= {int, float, NoneType}
    )


class Rendering(Frozen):
    """How conversations become text: the settings of a recipe that decide it, in one value."""

    template: Template = "chat"
    chat_template: str | None = None
    """Jinja text in place of the tokenizer's chat template."""
    template_date: date | None = None
    system_turn: SystemTurn = "auto"


def numbers(settings: BaseModel) -> dict[str, Any]:
    """The settings that can change a result, as JSON: everything but the fields marked cosmetic."""
    fields = type(settings).model_fields
    cosmetic = {name for name, field in fields.items() if field.json_schema_extra == COSMETIC}
    return settings.model_dump(mode="json", exclude=cosmetic)
