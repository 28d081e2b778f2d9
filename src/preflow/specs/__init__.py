"""What each stage is asked to do. A specification also says what can change the stage's result (its identity).

The specifications hold paths, digests and settings alone, so they are small JSON values for the orchestrator.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from preflow.observer import Observer
from preflow.specs.benchmarks import BenchmarkSpec
from preflow.specs.data import LengthsSpec, ValidateSpec
from preflow.specs.evaluation import EvaluateSpec, JudgeSpec
from preflow.specs.pairs import JudgeAnswersSpec, PairSpec, SampleSpec
from preflow.specs.rlhf import RewardModelSpec, RlooSpec
from preflow.specs.training import DpoSpec, ReferenceSpec, SftSpec, TuneSpec

__all__ = [
    "STAGES",
    "BenchmarkSpec",
    "DpoSpec",
    "EvaluateSpec",
    "JudgeAnswersSpec",
    "JudgeSpec",
    "LengthsSpec",
    "PairSpec",
    "ReferenceSpec",
    "RewardModelSpec",
    "RlooSpec",
    "SampleSpec",
    "SftSpec",
    "StageInfo",
    "StageSpec",
    "TuneSpec",
    "ValidateSpec",
    "rank_function",
    "stage_function",
]
StageSpec = (
    ValidateSpec
    | LengthsSpec
    | SftSpec
    | ReferenceSpec
    | TuneSpec
    | DpoSpec
    | EvaluateSpec
    | BenchmarkSpec
    | JudgeSpec
    | SampleSpec
    | JudgeAnswersSpec
    | PairSpec
    | RewardModelSpec
    | RlooSpec
)


@dataclass(frozen=True, slots=True)
class StageInfo:
    """Where a stage is implemented, and what others need to know of it.

    Attributes:
        spec: The class of its specification.
        module: The module that computes it; every definition that its function reaches is part of the identity.
        function: The function of that module to call with a specification, an output folder and an observer.
        uses_model: Whether it runs a model, so that device and dtypes are part of the identity.
        rank: The function of ``preflow.stages.ranks`` that each rank of a launch calls, where it can run in several.
        read_later: Whether a command reads its artifact after the run has ended.
        tasks: The module of its task, where that has another name than the stage.
    """

    spec: type[StageSpec]
    module: str
    function: str
    uses_model: bool = True
    rank: str | None = None
    read_later: bool = False
    tasks: str | None = None

    @property
    def launches(self) -> bool:
        """Whether ``launch:`` of the recipe applies."""
        return self.rank is not None


#: The module of the tasks that make new pairs.
_NEW_PAIRS = "tasks.new_pairs"
#: The module of the task that trains a reward model.
_REWARD_MODEL = "tasks.rlhf.reward_model"
#: Every stage by name, in the order in which they run; then those of new pairs (``preflow augment``) and of rewards.
STAGES = {
    "validate": StageInfo(ValidateSpec, "expectations.gate", "run_gate", uses_model=False, read_later=True),
    "lengths": StageInfo(LengthsSpec, "preflow.stages.lengths", "run_lengths", uses_model=False),
    "sft": StageInfo(SftSpec, "preflow.stages.sft", "run_sft", rank="train", read_later=True),
    "reference": StageInfo(ReferenceSpec, "preflow.stages.reference", "run_reference", rank="fill", read_later=True),
    "tune": StageInfo(TuneSpec, "preflow.stages.tune", "run_tune"),
    "dpo": StageInfo(DpoSpec, "preflow.stages.dpo", "run_dpo", rank="train", read_later=True),
    "evaluate": StageInfo(EvaluateSpec, "preflow.stages.evaluation", "run_evaluation"),
    "benchmarks": StageInfo(BenchmarkSpec, "preflow.stages.benchmarks", "run_benchmarks"),
    "judge": StageInfo(JudgeSpec, "preflow.stages.judging", "run_judging", uses_model=False),
    "sample": StageInfo(SampleSpec, "preflow.stages.on_policy.sampling", "run_sampling", tasks=_NEW_PAIRS),
    "judge_answers": StageInfo(
        JudgeAnswersSpec, "preflow.stages.on_policy.judging", "run_judging_answers", uses_model=False, tasks=_NEW_PAIRS
    ),
    "pair": StageInfo(PairSpec, "preflow.stages.on_policy.pairing", "run_pairing", uses_model=False, tasks=_NEW_PAIRS),
    "reward_model": StageInfo(
        RewardModelSpec, "preflow.stages.rlhf.reward_model", "run_reward_model", tasks=_REWARD_MODEL
    ),
    "rloo": StageInfo(RlooSpec, "preflow.stages.rlhf.rloo", "run_rloo", tasks="tasks.rlhf.rloo"),
}


def stage_function(spec: StageSpec) -> Callable[[Any, Path, Observer], None]:
    """The function that computes the stage of a specification."""
    info = next(info for info in STAGES.values() if isinstance(spec, info.spec))
    function: Callable[[Any, Path, Observer], None] = getattr(import_module(info.module), info.function)
    return function


def rank_function(stage: str) -> Callable[[Any, Path, Observer], None]:
    """The function that each rank of a stage's launch calls.

    Raises:
        ValueError: The stage runs in one process alone.
    """
    name = STAGES[stage].rank
    if name is None:
        raise ValueError(f"{stage} runs in one process: {', '.join(s for s in STAGES if STAGES[s].rank)} run in ranks")
    function: Callable[[Any, Path, Observer], None] = getattr(import_module("preflow.stages.ranks"), name)
    return function
