"""What a policy's own answers are worth: rewards of sampled token ids, those without an end penalised."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModelForSequenceClassification

from preflow.models.loading import LanguageModel
from preflow.models.precision import Precision
from preflow.rlhf.rewards import Rewards, rewards
from preflow.sampling.decode import Decoding, Wanted, sample_answers


class AnswerRewards:
    """A reward model over prompts and answers as token ids.

    Attributes:
        ends: Token ids at which an answer ends.
        penalty: Taken from the reward of an answer that does not.
    """

    def __init__(self, folder: Path, ends: Sequence[int], penalty: float, batch: int, precision: Precision) -> None:
        """Read a reward model that ``preflow.stages.rlhf.reward_model`` wrote."""
        self.ends, self.penalty = frozenset(ends), penalty
        self._batch, self._precision = batch, precision
        model: Any = AutoModelForSequenceClassification.from_pretrained(
            str(folder), use_safetensors=True, dtype=precision.weights, local_files_only=True
        )
        self._model = model.to(precision.device).eval().requires_grad_(False)

    def __call__(self, answered: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Rewards:
        """The reward of each prompt with its answer, in logits less the penalty, shape ``(N,)``."""
        rows = [[*prompt, *answer] for prompt, answer in answered]
        found = rewards(self._model, rows, self._model.config.pad_token_id, self._batch, self._precision)
        return found - self.penalty * np.array([not self.finished(answer) for _, answer in answered])

    def finished(self, answer: Sequence[int]) -> bool:
        """Whether an answer came to its end."""
        return answer[-1] in self.ends


@dataclass(frozen=True, slots=True)
class Sampled:
    """One answer to each of some held-out prompts.

    Attributes:
        rewards: Shape ``(N,)``, the penalty taken off.
        tokens: Mean length of an answer.
        finished: Share of the answers that came to their end.
    """

    rewards: Rewards
    tokens: float
    finished: float

    def measures(self) -> dict[str, float]:
        """By name, for a log."""
        return {"reward": float(self.rewards.mean()), "answer_tokens": self.tokens, "finished": self.finished}


def sample_rewards(
    policy: LanguageModel,
    prompts: Sequence[Sequence[int]],
    reward_of: AnswerRewards,
    decoding: Decoding,
    batch: int,
    precision: Precision,
) -> Sampled:
    """Let a policy answer each prompt once, each from random numbers of its own, and score the answers.

    The policy is left in the mode it was in.
    """
    training = policy.training
    policy.eval()
    answers: list[list[int]] = [[] for _ in prompts]
    wanted = [Wanted(prompt, (0,)) for prompt in prompts]
    for found in sample_answers(policy, wanted, decoding, precision, batch, lambda text: None):
        for place, (answer,) in found:
            answers[place] = answer
    policy.train(training)
    scored = reward_of(list(zip(prompts, answers, strict=True)))
    finished = [reward_of.finished(answer) for answer in answers]
    return Sampled(scored, float(np.mean([len(answer) for answer in answers])), float(np.mean(finished)))
