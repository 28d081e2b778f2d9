"""TRL's RewardTrainer over token ids, stopped by a loss or gradient that is NaN or infinite."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer

from preflow.config import Recipe
from preflow.config.training import DpoSettings
from preflow.data.tokens.tokenize import TokenizedPair
from preflow.models.loading import without_dropout
from preflow.models.precision import Precision
from preflow.observer import Observer
from preflow.training.arguments import apply_precision, preserve_trainable_weights, training_arguments
from preflow.training.callbacks import StageCallback
from preflow.training.numerical_checks import ROW, NumericalChecks

STAGE = "reward_model"


class CheckedRewardTrainer(NumericalChecks, RewardTrainer):
    """TRL's trainer of a model that says no tokens, so that only numbers are checked, and no perplexity."""

    judged_elsewhere = True

    def _nats_at_start(self, model: Any, batch: Any) -> float:
        return math.nan


def make_reward_trainer(
    recipe: Recipe,
    settings: DpoSettings,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[TokenizedPair],
    precision: Precision,
    out: Path,
    observer: Observer,
) -> CheckedRewardTrainer:
    """TRL's trainer over a classifier, with rows that are token ids already: TRL would add no end to a chat.

    Args:
        recipe: Its seed, and the coefficient that centres rewards.
        settings: Of the training, as ``RewardModelSettings.applied_to`` gives them.
        model: The classifier, or PEFT's wrapper around it.
        tokenizer: With the pad token of ``set_pad_apart``, which TRL writes into the classifier's configuration.
        pairs: Training pairs.
        precision: Where and in which dtype.
        out: The stage's partial folder.
        observer: Receives progress and metrics.
    """
    columns = {
        ROW: list(range(len(pairs))),
        "chosen_ids": [[*pair.prompt_ids, *pair.chosen_ids] for pair in pairs],
        "rejected_ids": [[*pair.prompt_ids, *pair.rejected_ids] for pair in pairs],
    }
    config = RewardConfig(
        **training_arguments(recipe, settings, precision, out),
        disable_dropout=settings.disable_dropout,
        center_rewards_coefficient=recipe.reward_model.center_rewards_coefficient,
    )
    apply_precision(config, precision)
    with preserve_trainable_weights(model):
        trainer = CheckedRewardTrainer(
            model=model,
            args=config,
            train_dataset=Dataset.from_dict(columns),
            processing_class=tokenizer,
            callbacks=[StageCallback(STAGE, observer)],
        )
    trainer.watch(STAGE, [str(pair.source) for pair in pairs])
    if settings.disable_dropout:
        without_dropout(trainer.model)
    return trainer
