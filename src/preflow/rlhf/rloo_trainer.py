"""TRL's RLOOTrainer on token ids: our own prompts in, rewards of a reward model out."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl.trainer.rloo_config import RLOOConfig
from trl.trainer.rloo_trainer import RLOOTrainer

from preflow.config import Recipe
from preflow.config.training import DpoSettings
from preflow.errors import NonFiniteLossError
from preflow.models.adapters import inner_model
from preflow.models.loading import LanguageModel, without_dropout
from preflow.models.precision import Precision
from preflow.observer import Observer
from preflow.training.arguments import apply_precision, preserve_trainable_weights, training_arguments
from preflow.training.callbacks import StageCallback
from preflow.training.numerical_checks import NumericalChecks

STAGE = "rloo"
#: Prompt and response to a reward, for several at once.
RewardOf = Callable[[Sequence[tuple[Sequence[int], Sequence[int]]]], Iterable[float]]


@dataclass(frozen=True, slots=True)
class RlooTask:
    """What a policy answers, and what its answers are worth.

    Attributes:
        prompts: Token ids of each prompt, the generation prompt included.
        end_ids: At which an answer ends.
        reward_of: Of answers; called in training with those that were just sampled.
        tokenizer: The policy's.
    """

    prompts: Sequence[list[int]]
    end_ids: Sequence[int]
    reward_of: RewardOf
    tokenizer: PreTrainedTokenizerBase


class TokenRlooTrainer(NumericalChecks, RLOOTrainer):
    """TRL's trainer whose prompts are token ids already, named in its rows by their numbers.

    Broken numbers stop it, as they stop the other trainers. No row is named as their cause, for answers are sampled;
    and logits are looked at, too, since weights may be finite and what they give not, from which nothing can be drawn.

    TRL calls ``kl`` what is a mean per token; it is logged as ``kl_per_token`` here, where a KL is one per response.
    """

    prompt_ids: Sequence[list[int]] = ()
    #: Of demonstrations and pairs the check of the last step takes nats per token; here the logits are looked at.
    judged_elsewhere = True

    def watch(self, stage: str, sources: Sequence[str]) -> None:
        """Look at logits besides, wherever the policy gives some: in a step, a sample, or a held-out measurement."""
        super().watch(stage, sources)
        inner_model(self.model).get_output_embeddings().register_forward_hook(self._check_logits)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """TRL's loss, looked at."""
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        if not bool(torch.isfinite(loss)):
            raise self._broken("loss", float(loss.detach()), ())
        return loss

    def _check_logits(self, head: torch.nn.Module, given: Any, logits: torch.Tensor) -> None:
        """Stop on logits, shape ``(B, T, V)``, that are no numbers at the last place, from which a token is drawn."""
        if not bool(torch.isfinite(logits[:, -1]).all()):
            raise NonFiniteLossError(
                f"{self.stage}: the policy's logits are NaN or infinite after step {self.state.global_step}, whose "
                f"loss and gradient were finite: the step was too large. Lower rloo.learning_rate "
                f"({self.args.learning_rate:g})"
            )

    def _broken(self, what: str, value: float, rows: Sequence[int]) -> NonFiniteLossError:
        return NonFiniteLossError(
            f"{self.stage}: the {what} is {value} at step {self.state.global_step + 1}, expected a number; the weights "
            f"are unchanged. Lower rloo.learning_rate ({self.args.learning_rate:g}) or dpo.max_grad_norm"
        )

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [list(self.prompt_ids[int(number)]) for number in prompts], None, {}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL's, without wall times."""
        for metrics in self._metrics.values():
            metrics.pop("step_time", None)
            if "kl" in metrics:
                metrics["kl_per_token"] = metrics.pop("kl")
        super().log(logs, start_time)


def _number(reward: float) -> float:
    """A reward, where it is a number: TRL takes an answer without one out of the step, and says nothing."""
    if not math.isfinite(reward):
        raise NonFiniteLossError(
            f"{STAGE}: the reward of an answer is {reward}, expected a number: the reward model is broken. Train it "
            "again with a lower reward_model.learning_rate"
        )
    return reward


def make_rloo_trainer(
    recipe: Recipe,
    settings: DpoSettings,
    model: LanguageModel,
    task: RlooTask,
    precision: Precision,
    out: Path,
    observer: Observer,
) -> TokenRlooTrainer:
    """TRL's trainer over a policy, which is its reference too.

    Args:
        recipe: Its seed and the section ``rloo:``.
        settings: Of the training, as ``RlooSettings.applied_to`` gives them.
        model: The policy at step 0. TRL copies its adapter, or loads full weights again from where they came from.
        task: Prompts and rewards.
        precision: Where and in which dtype.
        out: The stage's partial folder.
        observer: Receives progress and metrics.
    """
    rloo = recipe.rloo
    arguments = training_arguments(recipe, settings, precision, out)
    del arguments["max_length"]
    config = RLOOConfig(
        **arguments,
        beta=rloo.beta,
        num_generations=rloo.num_generations,
        max_completion_length=rloo.max_completion_length,
        temperature=rloo.temperature,
        disable_dropout=settings.disable_dropout,
    )
    apply_precision(config, precision)
    inner_model(model).generation_config.eos_token_id = sorted(task.end_ids)

    def reward(prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float | None]:
        rows = [(task.prompts[int(number)], ids) for number, ids in zip(prompts, completion_ids, strict=True)]
        return [_number(float(value)) for value in task.reward_of(rows)]

    with preserve_trainable_weights(model):
        trainer = TokenRlooTrainer(
            model=model,
            reward_funcs=reward,
            args=config,
            train_dataset=Dataset.from_dict({"prompt": [str(number) for number in range(len(task.prompts))]}),
            processing_class=task.tokenizer,
            callbacks=[StageCallback(STAGE, observer)],
        )
    trainer.prompt_ids = task.prompts
    trainer.watch(STAGE, ())
    if settings.disable_dropout:
        without_dropout(trainer.model)
    return trainer
