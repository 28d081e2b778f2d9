"""Every setting of a run: one recipe file, frozen, with unknown keys refused.

A recipe is YAML or JSON. Settings that belong to a stage may be in its section (``sft:``, ``dpo:``) or, given
once for all stages that have them, at the top level; a section's own value wins. A file without sections, as other
tools write it (``strategy: dpo`` with ``beta`` and the rest at the top level), is therefore a recipe as it is.

``python -m preflow.config`` prints the JSON schema for editors. This module imports no torch.
"""

from collections.abc import Mapping
from datetime import date
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, Field, model_validator

from preflow.config.base import COSMETIC, Frozen, Rendering, SystemTurn, Template, numbers
from preflow.config.evaluation.measures import EvaluationSettings
from preflow.config.evaluation.promotion import PromotionSettings
from preflow.config.launch import Launch
from preflow.config.on_policy.augment import AugmentSettings
from preflow.config.rlhf import RewardModelSettings, RlooSettings
from preflow.config.training import DpoSettings, SftSettings, TrainingSettings
from preflow.config.validation import ReadingSettings, ValidationSettings
from preflow.fingerprints.files import json_digest

Strategy = Literal["two-stage", "sft", "dpo"]
TrainingStage = Literal["sft", "dpo"]
_ADAPTER_FIELDS = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "init_lora_weights")
#: Settings of the stage ``tune`` among those of DPO: they decide its learning rate, whose value counts, and no more.
RANGE_TEST = ("range_test_rates", "range_test_steps", "range_test_pairs", "range_test_kl")
_NOT_SHARED = ("learning_rate", "dataset", "eval_dataset")


class Recipe(Frozen):
    """One run. See the module's docstring for how shared settings and sections combine."""

    name: str = Field(default="preflow", pattern=r"^[\w][\w.\- ]*$", json_schema_extra=COSMETIC)
    """The MLflow experiment; the file's own name where not given."""
    description: str = Field(default="", json_schema_extra=COSMETIC)
    """Free text about the run."""
    strategy: Strategy = "two-stage"
    """``two-stage`` (SFT, then DPO against it), ``sft`` alone, or ``dpo`` alone (the named model is the reference)."""
    task: Literal["text-generation"] = "text-generation"
    """The model's task."""
    provider: Literal["huggingface", "unsloth"] = "huggingface"
    """The library that loads the model."""
    model_name: str | None = None
    """A folder, a packaged model's name (``SmolLM2-135M-Instruct``), or a hub model."""
    model_revision: str | None = None
    """Commit or tag of a hub model."""
    trust_remote_code: bool = False
    """Run code that comes with the model. Off unless you trust its author."""
    tuning: Literal["lora", "full"] = "lora"
    """Train an adapter, or all weights."""
    use_4bit: bool = False
    """Load the base weights in 4-bit NF4 (QLoRA, Dettmers et al. 2023, arXiv:2305.14314)."""
    bf16: bool | Literal["auto"] = "auto"
    """Compute in bfloat16; ``auto`` does so on a GPU that supports it."""
    template: Template = "chat"
    """Render rows through the model's chat template, or concatenate prompt and response as they are."""
    chat_template: str | None = None
    """Chat template in place of the tokenizer's: the name of a known family (``chatml``, ``llama3``, ``tulu``, ...), a
    file (``mine.jinja``), or Jinja text. For models that have none, as base models, or an unfit one. Exported models
    carry it."""
    template_date: date | None = None
    """Date (``2025-01-31``) that a chat template writes where it asks for today's, so that a run does not depend on the
    day; 2024-07-26 where not given. Where given, templates get it as ``date_string`` too."""
    system_turn: SystemTurn = "auto"
    """``auto`` leaves system turns to the chat template, and puts them before the first user turn where the template
    refuses or leaves them out; ``user`` always puts them there; ``drop`` removes them."""
    launch: Launch = Launch()
    """Distributed runs."""
    slot: str | None = Field(default=None, min_length=1, json_schema_extra=COSMETIC)
    """Slot of the Prefect server (a global concurrency limit, made by ``preflow operate slot``) that the run holds once
    its data are validated, so that runs with the same slot do not use one GPU at once."""
    seed: int = Field(default=42, ge=0)
    """Seed of weights, order and sampling."""
    sft: SftSettings | None = None
    """The SFT stage."""
    dpo: DpoSettings | None = None
    """The DPO stage."""
    reading: ReadingSettings = ReadingSettings()
    """How the rows of data files are read."""
    validation: ValidationSettings = ValidationSettings()
    """Data validation."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """The evaluation."""
    augment: AugmentSettings = Field(default=AugmentSettings(), json_schema_extra=COSMETIC)
    """New pairs from the model itself (``preflow augment``, ``preflow iterate``)."""
    reward_model: RewardModelSettings = Field(default=RewardModelSettings(), json_schema_extra=COSMETIC)
    """A reward model of the pairs (``preflow reward-model``)."""
    rloo: RlooSettings = Field(default=RlooSettings(), json_schema_extra=COSMETIC)
    """RLOO on rewards of the reward model (``preflow rlhf``)."""
    promotion: PromotionSettings = PromotionSettings()
    """The promotion of the finished model to champion."""

    stages: ClassVar[dict[str, tuple[str, ...]]] = {"two-stage": ("sft", "dpo"), "sft": ("sft",), "dpo": ("dpo",)}

    @model_validator(mode="before")
    @classmethod
    def _shared_settings_go_to_their_sections(cls, data: Any) -> Any:
        return into_sections(data) if isinstance(data, Mapping) else data

    @model_validator(mode="after")
    def _settings_agree(self) -> Self:
        if self.template == "none" and self.chat_template is not None:
            raise ValueError(
                "chat_template is given but template is 'none', which uses no chat template: leave one of them out"
            )
        if self.dpo is not None and self.dpo.learning_rate == "auto" and self.launch.distributed:
            raise ValueError(
                "dpo.learning_rate is 'auto' but launch starts several processes: the range test runs in one. Run "
                "preflow tune on one device, and give the rate that it chooses"
            )
        if self.promotion.asks_judge and self.evaluation.judge is None:
            raise ValueError(
                "promotion.primary or promotion.guards names a win rate, but there is no evaluation.judge that would "
                "measure it: describe a judge, or use preference_accuracy"
            )
        if self.use_4bit and self.tuning == "full":
            raise ValueError(
                "use_4bit is true but tuning is 'full': 4-bit weights cannot be trained; use tuning: lora (QLoRA) "
                "or use_4bit: false"
            )
        if self.sft is not None and self.dpo is not None and self.tuning == "lora":
            for name in _ADAPTER_FIELDS:
                first, second = getattr(self.sft, name), getattr(self.dpo, name)
                if first != second:
                    raise ValueError(
                        f"dpo.{name} is {second} but sft.{name} is {first}: DPO continues to train the SFT adapter, "
                        f"so there is one adapter; give {name} once, at the top level"
                    )
        return self

    @property
    def training_sections(self) -> list[tuple[TrainingStage, TrainingSettings]]:
        """Name and settings of each training stage that the recipe runs, in order; at least one."""
        both: list[tuple[TrainingStage, TrainingSettings | None]] = [("sft", self.sft), ("dpo", self.dpo)]
        return [(stage, section) for stage, section in both if section is not None]

    @property
    def registered_model(self) -> str:
        """The name under which the recipe's models are registered."""
        return self.promotion.model_name or self.name

    @property
    def rendering(self) -> Rendering:
        """How the recipe renders conversations."""
        return Rendering(**{name: getattr(self, name) for name in Rendering.model_fields})

    def settings_digest(self) -> str:
        """SHA-256 of the resolved recipe."""
        return json_digest(self.model_dump(mode="json"))

    def identity_settings(self, stage: TrainingStage) -> dict[str, Any]:
        """The settings that can change the numbers of one training stage, as JSON.

        ``bf16`` is not among them: what it comes to on a machine is a part of the identity of its own, so that ``auto``
        and the value that it stands for there share what is equal.
        """
        section = self.sft if stage == "sft" else self.dpo
        shared = ("tuning", "use_4bit", "seed", "provider", "trust_remote_code")
        values = numbers(section) if section is not None else {}
        values = {name: value for name, value in values.items() if name not in RANGE_TEST}
        if self.tuning == "full":  # no adapter, so its settings can change nothing
            values = {name: value for name, value in values.items() if name not in _ADAPTER_FIELDS}
        return {
            "shared": {name: getattr(self, name) for name in shared},
            "rendering": numbers(self.rendering),
            "launch": self.launch.identity_settings(),
            stage: values or None,
        }


def into_sections(data: Mapping[str, Any]) -> dict[str, Any]:
    """Move shared training settings from the top level into the sections of the strategy's stages.

    Raises:
        ValueError: A section that the strategy does not run, or a setting that two stages cannot share.
    """
    top = dict(data)
    strategy = top.get("strategy", "two-stage")
    stages = Recipe.stages.get(strategy, ()) if isinstance(strategy, str) else ()
    for stage in ("sft", "dpo"):
        if not isinstance(top.get(stage), Mapping | BaseModel | None):
            # pydantic lists a ValueError among the recipe's problems; a TypeError would escape it
            raise ValueError(f"{stage} is {top[stage]!r}: expected a section, '{stage}: {{name: value}}'")  # noqa: TRY004
    for stage in ("sft", "dpo"):
        if stages and stage not in stages and top.get(stage) is not None:
            raise ValueError(f"strategy is '{strategy}' but there is a section '{stage}': remove it, or use two-stage")
    sections = {stage: dict(top.pop(stage, None) or {}) for stage in stages}
    known = {"sft": SftSettings.model_fields, "dpo": DpoSettings.model_fields}
    for name in [n for n in top if n in known["dpo"]]:
        value = top.pop(name)
        takers = [stage for stage in stages if name in known[stage]]
        if name in _NOT_SHARED and len(takers) > 1:
            raise ValueError(
                f"{name} at the top level is ambiguous in a two-stage recipe: give sft.{name} and dpo.{name}"
            )
        if not takers and stages:
            raise ValueError(f"{name} is {value!r} but strategy '{strategy}' runs no DPO stage that would use it")
        for stage in takers:
            sections[stage].setdefault(name, value)
    _fill_defaults(sections, top.get("tuning", "lora"))
    return {**top, **sections}


def _fill_defaults(sections: dict[str, dict[str, Any]], tuning: str) -> None:
    """Defaults that depend on another setting: one adapter in two stages, DPO's learning rate by tuning."""
    if "sft" in sections and "dpo" in sections:
        for name in _ADAPTER_FIELDS:
            if name in sections["sft"]:
                sections["dpo"].setdefault(name, sections["sft"][name])
    if "dpo" in sections and sections["dpo"].get("learning_rate") is None and tuning == "full":
        sections["dpo"]["learning_rate"] = 5e-7


def recipe_schema() -> dict[str, Any]:
    """The JSON schema of a recipe file, shared top-level settings included, for editors."""
    schema = Recipe.model_json_schema()
    definitions = schema["$defs"]
    for section in ("SftSettings", "DpoSettings"):
        for name, entry in definitions[section]["properties"].items():
            schema["properties"].setdefault(name, {k: v for k, v in entry.items() if k != "default"})
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Preflow recipe"
    return schema
