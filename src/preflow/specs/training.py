"""What the stages that train, and the reference that DPO trains against, are asked to do."""

from typing import Any, get_args

from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.config.base import Frozen, numbers
from preflow.config.recipe import RANGE_TEST
from preflow.data.validated import Split, rows_file
from preflow.models.resolve import ModelRef


class SftSpec(Frozen):
    """Fine-tune the base model on the training demonstrations."""

    recipe: Recipe
    base: ModelRef
    data: Artifact

    def inputs(self) -> dict[str, Any]:
        """Digests of what goes in: of the data, the training demonstrations alone."""
        return {"base": self.base.digest, "data": self.data.digests_of(rows_file("demonstrations", "train"))}

    def options(self) -> dict[str, Any]:
        """The settings that can change the weights."""
        return self.recipe.identity_settings("sft")


class PairsSpec(Frozen):
    """What a stage needs that works on all pairs with the model of SFT."""

    recipe: Recipe
    base: ModelRef
    data: Artifact
    sft: Artifact | None = None
    """The SFT model; none where the named model itself takes its place."""

    def inputs(self) -> dict[str, Any]:
        """Digests of what goes in: of the data, the pairs alone."""
        pairs = self.data.digests_of(*(rows_file("preferences", split) for split in get_args(Split)))
        return {"base": self.base.digest, "data": pairs, "sft": self.sft and self.sft.digest}


class ReferenceSpec(PairsSpec):
    """Log-probs of every pair, training and held out, under the reference model."""

    def options(self) -> dict[str, Any]:
        """The settings that can change a log-prob: precision, template and truncation; nothing of the optimizer."""
        dpo = self.recipe.dpo
        names = ("tuning", "use_4bit", "provider", "trust_remote_code")
        shared = {name: getattr(self.recipe, name) for name in names}
        cut = {} if dpo is None else {"max_seq_length": dpo.max_seq_length, "overlong_response": dpo.overlong_response}
        return {**shared, "rendering": numbers(self.recipe.rendering), **cut}


class _AgainstReference(Frozen):
    """What a stage needs that trains on pairs against the stored log-probs of their reference."""

    recipe: Recipe
    base: ModelRef
    data: Artifact
    reference: Artifact
    sft: Artifact | None = None


class TuneSpec(_AgainstReference):
    """Choose the learning rate of DPO by a short range test on some of the training pairs."""

    def inputs(self) -> dict[str, Any]:
        """Digests of what goes in: of the reference, the pairs that no report is about."""
        return {
            "base": self.base.digest,
            "reference": self.reference.digests_of("train.parquet", "validation.parquet"),
            "sft": self.sft and self.sft.digest,
        }

    def options(self) -> dict[str, Any]:
        """The settings of DPO that can change the choice, whatever its own learning rate is, and those of the test."""
        dpo = self.recipe.dpo
        test = {} if dpo is None else {name: getattr(dpo, name) for name in RANGE_TEST}
        settings = self.recipe.identity_settings("dpo")
        return {**settings, "dpo": {**(settings["dpo"] or {}), "learning_rate": None}, "range_test": test}


class DpoSpec(_AgainstReference):
    """Align the SFT model on the training pairs against its own stored log-probs."""

    def inputs(self) -> dict[str, Any]:
        """Digests of what goes in; the pairs' tokens come with the reference."""
        return {
            "base": self.base.digest,
            "reference": self.reference.digest,
            "sft": self.sft and self.sft.digest,
        }

    def options(self) -> dict[str, Any]:
        """The settings that can change the weights."""
        return self.recipe.identity_settings("dpo")
