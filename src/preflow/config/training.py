"""Settings of the two training stages, in the names of the field (TRL, transformers, PEFT)."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from preflow.config.base import COSMETIC, Frozen, one_or_many
from preflow.config.losses import LOSSES, LossType
from preflow.config.validation import Datasets, require_formats
from preflow.config.values import adapter_targets, rate_or_auto
from preflow.formats import DEMONSTRATION_FORMATS, PREFERENCE_FORMATS, VERDICT_FORMATS

#: One loss of TRL's, or several.
Losses = Annotated[
    tuple[LossType, ...],
    Field(min_length=1),
    BeforeValidator(one_or_many, json_schema_input_type=LossType | tuple[LossType, ...]),
]
#: A peak learning rate, or ``auto``: chosen by a range test.
Rate = Annotated[Annotated[float, Field(gt=0)] | Literal["auto"], BeforeValidator(rate_or_auto)]
#: Which answers of a conversation are trained on.
TrainOn = Literal["all", "last"]


class TrainingSettings(Frozen):
    """Settings of both training stages."""

    dataset: Datasets | None = Field(default=None, json_schema_extra=COSMETIC)
    """Data files (JSONL, JSON, Parquet, CSV), folders of them, or hub data sets (``owner/name``, ``owner/name:split``,
    ``owner/name:config:split``). One or a list; each a path or a mapping ``{path, split, format, columns, rows,
    revision}``."""
    eval_dataset: Datasets | None = Field(default=None, json_schema_extra=COSMETIC)
    """Held-out data, named as ``dataset`` is. Without it, ``eval_split`` of ``dataset`` is held out by prompt."""
    eval_split: float = Field(default=0.1, ge=0.0, lt=1.0, json_schema_extra=COSMETIC)
    """Share of prompts held out, chosen by a hash of the first user turn. Not used where ``eval_dataset`` is given."""
    validation_split: float = Field(default=0.0, ge=0.0, lt=1.0, json_schema_extra=COSMETIC)
    """Share of prompts of ``dataset`` held out for choices (early stopping, the kept checkpoint, rates), by the same
    hash. The held-out data of ``eval_dataset`` or ``eval_split`` are then the test alone: what is reported and decided
    on. 0: choices are made on the test rows, and the summary warns where one was."""
    num_train_epochs: float = Field(default=1.0, gt=0)
    """Passes over the training rows."""
    max_steps: int = Field(default=-1, ge=-1)
    """Optimizer steps; -1 means as many as ``num_train_epochs`` gives."""
    per_device_train_batch_size: int = Field(default=4, ge=1)
    """Rows (pairs, in DPO) per micro-batch on each device."""
    gradient_accumulation_steps: int = Field(default=2, ge=1)
    """Micro-batches per optimizer step."""
    learning_rate: Rate = 2e-4
    """Peak learning rate of AdamW."""
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    """Schedule of the learning rate after warm-up."""
    warmup_ratio: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of the optimizer steps over which the learning rate rises from zero."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's decoupled weight decay."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    optim: str = "adamw_torch"
    """Optimizer, by transformers' name (``adamw_torch``, ``paged_adamw_8bit``, ...)."""
    auto_find_batch_size: bool = False
    """On OOM, halve ``per_device_train_batch_size`` and double ``gradient_accumulation_steps`` (or halve
    ``max_tokens_per_batch`` where it is given, from the tokens of the micro-batch that failed): the effective batch
    stays the same. As in TRL, every micro-batch of a DPO step has the same weight, also a smaller one at the end of an
    epoch."""
    batching: Literal["random", "length"] = "random"
    """Which rows share a micro-batch: ``random`` ones, or rows of similar ``length`` (for models whose rows must be
    padded, and to give all ranks equal work). Both are reshuffled every epoch, from the seed."""
    max_tokens_per_batch: int | None = Field(default=None, ge=1)
    """Token budget: most tokens of a micro-batch on each device, padding included; a row that exceeds it is a
    micro-batch of its own. The effective batch stays ``per_device_train_batch_size`` times
    ``gradient_accumulation_steps`` (times the number of ranks) and its loss the same mean; only the split into
    micro-batches changes: many short rows, or few long ones. Losses that compare pairs (``aot``, ``aot_unpaired``)
    compare those of one micro-batch; ``sft``, a mean over tokens, is refused. Not with DeepSpeed."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: slower, much less memory, same results."""
    cpu_kernels: Literal["auto", "off"] = "auto"
    """Preflow's own layers and allocator settings for training on a CPU in float32: faster, and the same results up to
    rounding. ``auto`` uses them with the versions of torch that they are tested with; ``off`` trains with the plain
    modules of torch, transformers and PEFT. Try ``off`` first where training on a CPU gives unexpected results."""
    max_seq_length: int = Field(default=1024, ge=8)
    """Most tokens of prompt and response together. Longer rows lose their oldest turns, each as a whole."""
    overlong_response: Literal["drop", "cut"] = "drop"
    """What happens to a response that does not fit with its last user turn: the row is quarantined, or the response's
    end is cut. Either way it is counted."""
    lora_r: int = Field(default=16, ge=1)
    """Rank of the LoRA adapter (Hu et al. 2021, arXiv:2106.09685)."""
    lora_alpha: float | None = Field(default=None, gt=0)
    """LoRA scale numerator; the update is scaled by alpha / r. Twice the rank where not given."""
    init_lora_weights: Literal[True, "gaussian", "zero_a"] = True
    """How a fresh adapter starts, in PEFT's terms; its product is zero each time, so that training starts from the
    model itself. ``true``: A uniform, B zero; ``gaussian``: A normal, B zero; ``zero_a``: A zero, B random (PEFT's
    ``false`` with A set to zero), for which gradients are larger at the start. An adapter that a model brings keeps its
    own values."""
    lora_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout before the adapter in SFT. DPO disables it unless ``dpo.disable_dropout`` is false."""
    lora_target_modules: Annotated[str | tuple[str, ...], BeforeValidator(adapter_targets)] = "all-linear"
    """Modules that get an adapter, by PEFT's names: ``all-linear``, a list of names (``q_proj`` is every module whose
    name ends so), or a regular expression for whole names. Each must be in the model."""
    logging_steps: int = Field(default=1, ge=1, json_schema_extra=COSMETIC)
    """Optimizer steps between two points of the training curves."""
    save_steps: int = Field(default=25, ge=1, json_schema_extra=COSMETIC)
    """Optimizer steps between two checkpoints, from which an interrupted run resumes."""

    @property
    def rate(self) -> float:
        """The peak learning rate as a number.

        Raises:
            ValueError: It is ``auto``, and the range test has not been run.
        """
        if self.learning_rate == "auto":
            raise ValueError("learning_rate is 'auto': the stage tune chooses it before training begins")
        return self.learning_rate

    @model_validator(mode="before")
    @classmethod
    def _alpha_is_twice_the_rank(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("lora_alpha") is None:
            rank = data.get("lora_r", cls.model_fields["lora_r"].default)
            if isinstance(rank, str | int | float) and str(rank).strip().replace(".0", "").isdigit():
                return {**data, "lora_alpha": 2 * int(float(rank))}
        return data

    @model_validator(mode="after")
    def _splits_leave_rows(self) -> Self:
        test = 0.0 if self.eval_dataset else self.eval_split
        if test + self.validation_split >= 1.0:
            raise ValueError(
                f"eval_split {test:g} and validation_split {self.validation_split:g} leave nothing to train on: "
                "expected a sum below 1"
            )
        return self

    @model_validator(mode="after")
    def _can_be_trained(self) -> Self:
        if self.max_steps == 0:
            raise ValueError("max_steps is 0: expected a number of steps, or -1 for as many as num_train_epochs gives")
        if _names_the_head(self.lora_target_modules):
            raise ValueError(
                "lora_target_modules has 'lm_head': TRL computes log-probs from the head's own weights, so an adapter "
                "on it would never train; leave it out"
            )
        return self


def _names_the_head(targets: str | Sequence[str]) -> bool:
    """As PEFT reads them: a text is a pattern of whole names, a list has names' ends."""
    if not isinstance(targets, str):
        return "lm_head" in targets
    try:
        return re.fullmatch(targets, "lm_head") is not None
    except re.error as error:
        raise ValueError(f"lora_target_modules is {targets!r}, which is no regular expression: {error}") from error


class SftSettings(TrainingSettings):
    """Supervised fine-tuning on SFT examples (demonstrations); only response tokens have a loss."""

    train_on: TrainOn = "all"
    """Answers of a conversation that have a loss: ``all``, or the ``last`` alone. Where the chat template rewrites
    earlier turns, a conversation becomes one row per answer by itself."""

    @model_validator(mode="after")
    def _rate_is_given(self) -> Self:
        if self.learning_rate == "auto":
            raise ValueError(
                "sft.learning_rate is 'auto', which chooses by the KL from a reference and by margins of pairs, and "
                "SFT has neither: give a number (2e-4 for an adapter, 2e-5 for full weights)"
            )
        return self

    @model_validator(mode="after")
    def _formats_are_of_demonstrations(self) -> Self:
        for name in ("dataset", "eval_dataset"):
            require_formats(name, getattr(self, name) or (), (*DEMONSTRATION_FORMATS, *VERDICT_FORMATS))
        return self


class DpoSettings(TrainingSettings):
    """Direct Preference Optimization (Rafailov et al. 2023, arXiv:2305.18290)."""

    learning_rate: Rate = 5e-6
    """Peak learning rate; 5e-6 with LoRA and 5e-7 with ``tuning: full`` where not given, which suit models of billions
    of parameters. ``auto`` chooses it by a range test on some of the training pairs (stage ``tune``): small models need
    ten times as much and more."""
    range_test_rates: tuple[Annotated[float, Field(gt=0)], ...] | None = Field(default=None, min_length=1)
    """Learning rates that the range test tries; 5e-6 to 2e-4 with LoRA and 1e-7 to 5e-6 with ``tuning: full`` where not
    given. It begins with the lowest and ends at the first that would exceed ``range_test_kl``."""
    range_test_steps: int = Field(default=20, ge=2)
    """Optimizer steps of the range test at each learning rate, on the same pairs."""
    range_test_pairs: int = Field(default=64, ge=2)
    """Validation pairs on which the range test measures margins and KL; without ``validation_split``, training pairs
    that it keeps aside, at most a fifth of all."""
    range_test_kl: float = Field(default=2.0, gt=0)
    """Most KL from the reference, in nats per response, that the whole training may be expected to reach at the rate
    that the range test chooses."""
    beta: float = Field(default=0.1, gt=0)
    """Strength of the KL penalty; a higher value keeps the policy closer to the reference (equation 7)."""
    loss_type: Losses = ("sigmoid",)
    """TRL's loss by name, or several whose weighted sum is used."""
    loss_weights: tuple[float, ...] | None = None
    """Weights of several losses; all 1 where not given."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=0.5)
    """Assumed share of flipped labels; used by ``robust``, ``exo_pair``, ``aot`` and ``aot_unpaired`` only."""
    f_divergence_type: Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"] = "reverse_kl"
    """Divergence behind the implicit reward (Wang et al. 2023, arXiv:2309.16240)."""
    f_alpha_divergence_coef: float = 0.5
    """Alpha of ``alpha_divergence``."""
    discopop_tau: float = Field(default=0.05, gt=0)
    """Temperature of ``discopop``."""
    ld_alpha: float | None = Field(default=None, ge=0.0, le=1.0)
    """Weight of the tokens beyond the shorter response (LD-DPO, arXiv:2409.06411); none means a plain sum."""
    use_weighting: bool = False
    """Weight pairs as in WPO (arXiv:2406.11827). Not with losses that have no value per pair (``aot``,
    ``aot_unpaired``, ``sft``), nor with ``hinge``, whose values TRL 1.16 changes in place before their gradient is
    taken."""
    disable_dropout: bool = True
    """Disable all dropout, so that the policy's log-probs in training are those of the finished model."""
    eval_steps: int = Field(default=20, ge=0)
    """Optimizer steps between two held-out evaluations (KL, reward accuracy); 0 evaluates at the end alone."""
    eval_pairs: int = Field(default=16, ge=0)
    """Pairs per held-out evaluation, spread evenly; 0 switches it off."""
    kl_limit: float = Field(default=10.0, gt=0)
    """Limit of KL early stopping: KL from the reference along held-out chosen responses, in nats per response, above
    which training stops and returns to the best weights within the limit. It can change the weights.
    ``evaluation.kl_limit`` is another limit: it warns about the finished model and changes nothing."""
    early_stop_patience: int = Field(default=10, ge=0)
    """Stop after this many consecutive held-out evaluations in which the reward margin did not exceed the best one by
    more than its standard error, and return to the best weights; 0 trains to the end."""
    proof_sample: int = Field(default=8, ge=1)
    """Pairs whose stored log-probs the start-up checks compare with those of an independent forward pass."""

    @property
    def eval_batch_size(self) -> int:
        """Held-out pairs per forward; 1 under a token budget, where ``per_device_train_batch_size`` may not fit."""
        return self.per_device_train_batch_size if self.max_tokens_per_batch is None else 1

    @model_validator(mode="after")
    def _formats_are_of_pairs(self) -> Self:
        for name in ("dataset", "eval_dataset"):
            require_formats(name, getattr(self, name) or (), (*PREFERENCE_FORMATS, *VERDICT_FORMATS))
        return self

    @model_validator(mode="after")
    def _losses_agree(self) -> Self:
        if self.loss_weights is not None and len(self.loss_weights) != len(self.loss_type):
            raise ValueError(
                f"loss_weights has {len(self.loss_weights)} values but loss_type has {len(self.loss_type)}: "
                "give one weight per loss"
            )
        if "exo_pair" in self.loss_type and self.label_smoothing == 0:
            raise ValueError(
                "loss_type is 'exo_pair' but label_smoothing is 0.0: EXO needs a value above 0 (1e-3 in "
                "arXiv:2402.00856)"
            )
        losses = {name: LOSSES[name] for name in self.loss_type}
        if self.label_smoothing > 0 and not any(loss.smoothing for loss in losses.values()):
            raise ValueError(
                f"label_smoothing is {self.label_smoothing} but loss_type {', '.join(self.loss_type)} ignores it: "
                "conservative DPO is loss_type: robust"
            )
        unweighted = {name: loss.unweighted for name, loss in losses.items() if loss.unweighted is not None}
        if self.use_weighting and unweighted:
            name, why = next(iter(unweighted.items()))
            raise ValueError(f"use_weighting is true but loss_type has {name}, {why}: set use_weighting: false")
        compared = sorted(name for name, loss in losses.items() if not loss.per_pair)
        if self.auto_find_batch_size and compared:
            raise ValueError(
                f"auto_find_batch_size is true but loss_type has {', '.join(compared)}, whose value depends on which "
                "rows share a forward. Give a per_device_train_batch_size that fits (preflow plan RECIPE "
                "suggests one)"
            )
        if self.max_tokens_per_batch is not None and any(loss.token_mean for loss in losses.values()):
            raise ValueError(
                f"max_tokens_per_batch is {self.max_tokens_per_batch} but loss_type has sft, a mean over the tokens of "
                "a forward, which depends on how a step is split: give per_device_train_batch_size and "
                "gradient_accumulation_steps instead"
            )
        others = sorted(name for name, loss in losses.items() if not loss.divergences)
        if self.f_divergence_type != "reverse_kl" and others:
            defined = ", ".join(sorted(name for name, loss in LOSSES.items() if loss.divergences))
            raise ValueError(
                f"f_divergence_type is '{self.f_divergence_type}' but loss_type has {', '.join(others)}, which TRL "
                f"defines for reverse_kl alone; others go with {defined}"
            )
        return self
