"""Settings of the reward model: the section ``reward_model:`` of a recipe, in TRL's names."""

from typing import Any, Literal

from pydantic import Field, model_validator

from preflow.config.base import Frozen
from preflow.config.training import DpoSettings

#: Settings of the section ``dpo:`` by which a reward model is trained too: which tokens it sees, how steps are made.
AS_IN_DPO = (
    *("max_seq_length", "overlong_response", "weight_decay", "max_grad_norm", "optim"),
    *("gradient_checkpointing", "disable_dropout", "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules"),
)


class RewardModelSettings(Frozen):
    """A reward model (Ouyang et al. 2022, arXiv:2203.02155, section 3.5), trained with TRL's RewardTrainer.

    It learns from the pairs of the section ``dpo:``, whose other settings (``max_seq_length``, ``lora_r``, ``optim``,
    ...) hold for it too, so that both methods see the same tokens.
    """

    start: Literal["sft", "base"] | None = None
    """The model that it starts from, with a new head of one output: the fine-tuned one or the named one. Where not
    given, the fine-tuned one if the strategy has SFT."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Peak learning rate, of head and weights."""
    num_train_epochs: float = Field(default=1.0, gt=0)
    """Passes over the training pairs."""
    max_steps: int = Field(default=-1, ge=-1)
    """Optimizer steps; -1 means as many as ``num_train_epochs`` gives."""
    per_device_train_batch_size: int = Field(default=4, ge=1)
    """Pairs per micro-batch."""
    gradient_accumulation_steps: int = Field(default=2, ge=1)
    """Micro-batches per optimizer step."""
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    """Schedule of the learning rate after warm-up."""
    warmup_ratio: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of the optimizer steps over which the learning rate rises from zero."""
    center_rewards_coefficient: float | None = Field(default=None, ge=0)
    """Weight of a second loss, the squared sum of both rewards of a pair, that keeps rewards near zero (Eisenstein et
    al. 2023, arXiv:2312.09244); 0.01 is usual, none leaves it out."""

    @model_validator(mode="after")
    def _trains(self) -> "RewardModelSettings":
        if self.max_steps == 0:
            raise ValueError("max_steps is 0: expected a number of steps, or -1 for as many as num_train_epochs gives")
        return self

    def applied_to(self, pairs: DpoSettings) -> DpoSettings:
        """The settings of a training as the section ``dpo:`` has them, with those of this one in their place."""
        shared = type(pairs).model_fields.keys() & type(self).model_fields.keys()
        changes: dict[str, Any] = {name: getattr(self, name) for name in shared}
        return pairs.model_copy(update={**changes, "max_tokens_per_batch": None, "batching": "random"})


class RlooSettings(Frozen):
    """REINFORCE with a leave-one-out baseline (Ahmadian et al. 2024, arXiv:2402.14740), by TRL's RLOOTrainer.

    What holds for any training on the pairs (``max_seq_length``, ``optim``, ``kl_limit``, ``eval_steps``, ...) is as in
    the section ``dpo:``.
    """

    beta: float = Field(default=0.05, gt=0)
    """Weight of the KL from the reference, which is taken from each reward: the sum of log-ratios of an answer."""
    num_generations: int = Field(default=4, ge=2)
    """Answers that are sampled to each prompt; the mean reward of the others is the baseline of each."""
    max_completion_length: int = Field(default=256, ge=1)
    """Longest answer in tokens; prompts that leave less room within ``dpo.max_seq_length`` are left out and counted."""
    temperature: float = Field(default=1.0, gt=0)
    """What logits are divided by before a token is drawn."""
    missing_eos_penalty: float = Field(default=1.0, ge=0)
    """Taken from the reward of an answer that has not ended by ``max_completion_length``."""
    learning_rate: float = Field(default=1e-6, gt=0)
    """Peak learning rate. Adapters and small models need ten times as much and more."""
    num_train_epochs: float = Field(default=1.0, gt=0)
    """Passes over the prompts of the training pairs."""
    max_steps: int = Field(default=-1, ge=-1)
    """Optimizer steps; -1 means as many as ``num_train_epochs`` gives."""
    per_device_train_batch_size: int = Field(default=4, ge=1)
    """Answers per micro-batch."""
    gradient_accumulation_steps: int = Field(default=2, ge=1)
    """Micro-batches per optimizer step; with the one before, the answers of a step: a multiple of
    ``num_generations``."""
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    """Schedule of the learning rate after warm-up."""
    warmup_ratio: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of the optimizer steps over which the learning rate rises from zero."""
    eval_prompts: int = Field(default=32, ge=2)
    """Held-out prompts, most, to which an answer is sampled at each held-out evaluation, from the same random numbers
    each time."""

    @model_validator(mode="after")
    def _agree(self) -> "RlooSettings":
        if self.max_steps == 0:
            raise ValueError("max_steps is 0: expected a number of steps, or -1 for as many as num_train_epochs gives")
        answers = self.per_device_train_batch_size * self.gradient_accumulation_steps
        if answers % self.num_generations:
            raise ValueError(
                f"a step has {answers} answers (per_device_train_batch_size times gradient_accumulation_steps), "
                f"which is no multiple of num_generations {self.num_generations}: every prompt needs all its answers"
            )
        return self

    def applied_to(self, pairs: DpoSettings) -> DpoSettings:
        """The settings of a training as the section ``dpo:`` has them, with those of this one in their place."""
        shared = (type(pairs).model_fields.keys() & type(self).model_fields.keys()) - {"beta"}
        changes: dict[str, Any] = {name: getattr(self, name) for name in shared}
        return pairs.model_copy(update={**changes, "max_tokens_per_batch": None, "batching": "random"})
