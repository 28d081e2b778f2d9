"""Answers of a model to held-out prompts, generated once per model and kept in the store for every later use.

A model is named by the digest of its weights, so base and SFT model answer once in a whole series of trials that differ
in settings of DPO alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from preflow.artifacts import build, write_json
from preflow.environment import store_folder
from preflow.evaluation.models import ModelSet
from preflow.fingerprints.code import code_digest
from preflow.fingerprints.files import json_digest

#: The file of an artifact of answers.
ANSWERS = "answers.json"
#: What computes an answer besides the model, whose own code is in its identity.
_CODE = ("preflow.evaluation.generation:sampled", "preflow.evaluation.models:ModelSet")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt to answer.

    Attributes:
        text: Its last user turn, for display.
        ids: P token ids, the generation prompt included.
        id: Content id of all its turns; empty where it is no held-out one.
        cluster: What held-out prompts with the same first user turn share (``splits.cluster_key``).
    """

    text: str
    ids: list[int]
    id: str = ""
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class Decoding:
    """How answers are made.

    Attributes:
        seed: Of the sampling; none for the most probable token each time.
        max_new_tokens: Longest answer.
        batch_size: Prompts answered together, which share the random numbers.
    """

    seed: int | None
    max_new_tokens: int
    batch_size: int

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"seed": self.seed, "max_new_tokens": self.max_new_tokens, "batch_size": self.batch_size}


def kept_answers(
    models: ModelSet,
    name: str,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    answer: Callable[[], Sequence[Sequence[int]]],
) -> list[list[int]]:
    """One model's answers to prompts, from the store where they are there, else generated and stored.

    They are also noted in ``models.answered``, as rows of the table that an evaluation writes.

    Args:
        models: The models of the run.
        name: Which of them answers.
        prompts: What is answered, together: with other prompts beside it a prompt has another answer.
        decoding: How.
        answer: Generates the answers, N lists of token ids.

    Returns:
        N answers of token ids.
    """
    model = models.identity(name)
    asked = {
        "model": model.values,
        "code": code_digest(*_CODE),
        "prompts": [prompt.ids for prompt in prompts],
        "ends": sorted(models.renderer.end_ids),
        "decoding": decoding.to_json(),
    }

    def write(out: Any) -> None:
        given = [list(ids) for ids in answer()]
        model.require_unchanged()
        write_json(out / ANSWERS, given)

    artifact = build(store_folder() / "answers" / json_digest(asked), write)
    answers: list[list[int]] = artifact.load(ANSWERS)
    digest = model.digest()
    models.answered.setdefault(name, []).extend(
        {
            "prompt_id": prompt.id,
            "cluster": prompt.cluster,
            "prompt": prompt.text,
            "text": str(models.tokenizer.decode(ids, skip_special_tokens=True)).strip(),
            "tokens": len(ids),
            "finished": ids[-1] in models.renderer.end_ids,
            "seed": decoding.seed,
            "model": digest,
        }
        for prompt, ids in zip(prompts, answers, strict=True)
    )
    return answers
