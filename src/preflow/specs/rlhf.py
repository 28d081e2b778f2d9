"""What the stages of reinforcement learning from preference pairs are asked to do."""

from typing import Any

from preflow.artifacts import Artifact
from preflow.config.base import numbers
from preflow.config.rlhf import AS_IN_DPO
from preflow.specs.training import PairsSpec

#: Settings of ``dpo:`` that hold for RLOO too, beside those of ``AS_IN_DPO``: when it is measured and stopped.
_WATCHED = ("kl_limit", "eval_steps", "eval_pairs", "proof_sample", "init_lora_weights")
#: Of these settings of ``dpo:`` none counts where all weights are trained.
_ADAPTER = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "init_lora_weights")


class RewardModelSpec(PairsSpec):
    """Train a reward model on the training pairs, and test it on held-out ones."""

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


class RlooSpec(PairsSpec):
    """Train the SFT model by RLOO on rewards of its own answers, against its own stored log-probs."""

    reference: Artifact
    reward_model: Artifact

    def inputs(self) -> dict[str, Any]:
        """Digests of what goes in: of the data, the pairs, whose prompts are answered."""
        made = {name: getattr(self, name).digest for name in ("reference", "reward_model")}
        return {**super().inputs(), **made}

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
