"""What the stages of reinforcement learning from preference pairs are asked to do."""

from typing import Any, get_args

from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.config.base import Frozen, numbers
from preflow.config.rlhf import AS_IN_DPO
from preflow.data.validated import Split, rows_file
from preflow.models.resolve import ModelRef

#: Settings of ``dpo:`` that hold for RLOO too, beside those of ``AS_IN_DPO``: when it is measured and stopped.
_WATCHED = ("kl_limit", "eval_steps", "eval_pairs", "proof_sample", "init_lora_weights")
#: Of these settings of ``dpo:`` none counts where all weights are trained.
_ADAPTER = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "init_lora_weights")


class RewardModelSpec(Frozen):
    """Train a reward model on the training pairs, and test it on held-out ones."""

    recipe: Recipe
    base: ModelRef
    data: Artifact
    sft: Artifact | None = None
    """The model that it starts from; none where that is the named one."""

    def inputs(self) -> dict[str, Any]:
        """Digests of what goes in: of the data, the pairs alone."""
        pairs = self.data.digests_of(*(rows_file("preferences", split) for split in get_args(Split)))
        return {"base": self.base.digest, "data": pairs, "sft": self.sft and self.sft.digest}

    def options(self) -> dict[str, Any]:
        """The settings that can change the weights or the test."""
        recipe, dpo = self.recipe, self.recipe.dpo
        shared = ("tuning", "seed", "trust_remote_code")
        left_out = _ADAPTER if recipe.tuning == "full" else ()
        as_in_dpo = {} if dpo is None else {name: getattr(dpo, name) for name in AS_IN_DPO if name not in left_out}
        reward_model = {name: value for name, value in numbers(recipe.reward_model).items() if name != "start"}
        return {
            "reward_model": reward_model,
            "dpo": as_in_dpo,
            **{name: getattr(recipe, name) for name in shared},
            "rendering": numbers(recipe.rendering),
            **{name: getattr(recipe.evaluation, name) for name in ("confidence", "bootstrap_samples")},
        }


class RlooSpec(Frozen):
    """Train the SFT model by RLOO on rewards of its own answers, against its own stored log-probs."""

    recipe: Recipe
    base: ModelRef
    data: Artifact
    reference: Artifact
    reward_model: Artifact
    sft: Artifact | None = None

    def inputs(self) -> dict[str, Any]:
        """Digests of what goes in: of the data, the pairs, whose prompts are answered."""
        pairs = self.data.digests_of(*(rows_file("preferences", split) for split in get_args(Split)))
        made = {name: getattr(self, name).digest for name in ("reference", "reward_model")}
        return {"base": self.base.digest, "data": pairs, "sft": self.sft and self.sft.digest, **made}

    def options(self) -> dict[str, Any]:
        """The settings that can change the weights or what is measured of them."""
        recipe, dpo = self.recipe, self.recipe.dpo
        shared = ("tuning", "use_4bit", "seed", "provider", "trust_remote_code")
        left_out = _ADAPTER if recipe.tuning == "full" else ()
        names = [name for name in (*AS_IN_DPO, *_WATCHED, "beta") if name not in left_out]
        return {
            "rloo": numbers(recipe.rloo),
            "dpo": {} if dpo is None else {name: getattr(dpo, name) for name in names},
            **{name: getattr(recipe, name) for name in shared},
            "rendering": numbers(recipe.rendering),
            **{name: getattr(recipe.evaluation, name) for name in ("confidence", "bootstrap_samples")},
        }
