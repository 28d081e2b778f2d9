"""A judge that is a local reward model: a sequence classifier with one logit, which scores each answer alone.

It compares scores, so that the order of the answers changes nothing. Two traps are closed: where the model's pad token
is not the tokenizer's, a batch reads the score at the wrong token without a warning, so the model is given the
tokenizer's; and before the first score, some rows are scored alone and in a batch, and must agree. One that Preflow
trained sees the tokens that it was trained on: the end of an answer is the last of them.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import PositiveInt
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from preflow.config.base import Rendering
from preflow.config.evaluation.judge import JudgeSettings
from preflow.data.rows import Message
from preflow.data.tokens.chat_template import Renderer
from preflow.errors import JudgeError
from preflow.fingerprints.files import file_digest, json_digest
from preflow.judges.verdict import Comparison, Outcome, Verdict

_PROOF_ROWS = 8
#: Largest difference of a score alone and in a batch, in logits.
_TOLERANCE = 1e-3
#: Beside a reward model that Preflow trained: how conversations became its tokens (``TrainedRendering``).
RENDERING = "rendering.json"


class TrainedRendering(Rendering):
    """How conversations became the tokens of a reward model, and how many at most."""

    max_seq_length: PositiveInt | None = None
    """None in folders that were written before it was kept."""


class ClassifierJudge:
    """Scores prompt and answer under the model's own chat template; the higher score wins."""

    def __init__(self, settings: JudgeSettings, section: str = "evaluation.judge") -> None:
        """Load the model in float32 from a folder with safetensors.

        Args:
            settings: The judge.
            section: Where the recipe describes it, which errors name.

        Raises:
            JudgeError: The folder holds no such model, or its ``rendering.json`` cannot be read.
        """
        folder = Path(settings.model)
        weights = sorted(folder.glob("*.safetensors"))
        if not weights:
            raise JudgeError(
                f"{section}.model is {settings.model}: expected a folder with a sequence classifier in safetensors"
            )
        self._tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        self._model: Any = AutoModelForSequenceClassification.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, dtype=torch.float32
        ).eval()
        if self._model.config.num_labels != 1:
            raise JudgeError(
                f"the classifier {settings.model} has {self._model.config.num_labels} outputs: expected one, the score "
                "of an answer"
            )
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._model.config.pad_token_id = self._tokenizer.pad_token_id
        self._trained = _trained_rendering(folder / RENDERING)
        self._renderer = None if self._trained is None else Renderer(self._tokenizer, self._trained)
        self._batch = settings.batch_size
        self._digest = json_digest([[path.name, file_digest(path)] for path in weights])
        self._proven = False

    @property
    def identity(self) -> dict[str, Any]:
        """The digest of its weights, and its chat template or the settings of its own rendering with its length."""
        template = self._tokenizer.chat_template if self._renderer is None else self._renderer.settings()
        found = {"kind": "classifier", "weights": self._digest, "template": template}
        if self._trained is not None and self._trained.max_seq_length is not None:
            found["max_seq_length"] = self._trained.max_seq_length
        return found

    def verdicts(self, asked: Sequence[Comparison]) -> Iterator[tuple[int, Verdict]]:
        """See ``Judge``.

        Raises:
            JudgeError: The model scores a row differently in a batch than alone.
        """
        texts = list(
            dict.fromkeys(text for one in asked for text in ((one.prompt, one.first), (one.prompt, one.second)))
        )
        scores = dict(zip(texts, self.scores(texts), strict=True))
        for number, one in enumerate(asked):
            first, second = scores[one.prompt, one.first], scores[one.prompt, one.second]
            outcome = Outcome.TIE if first == second else Outcome.FIRST if first > second else Outcome.SECOND
            yield number, Verdict(outcome, f"{first:.4f} against {second:.4f}")

    def scores(self, texts: Sequence[tuple[str, str]]) -> list[float]:
        """The score of each prompt with its answer, N of them, in logits.

        Raises:
            JudgeError: The model scores a row differently in a batch than alone.
        """
        if not self._proven and texts:
            self._prove(texts[:_PROOF_ROWS])
        parts = (texts[begin : begin + self._batch] for begin in range(0, len(texts), self._batch))
        return [score for part in parts for score in self._score(part)]

    def _score(self, texts: Sequence[tuple[str, str]]) -> list[float]:
        """The same of one batch."""
        batch = self._tokenized(texts) if self._renderer is None else self._as_trained(self._renderer, texts)
        with torch.inference_mode():
            return [float(score) for score in self._model(**batch).logits[:, 0]]

    def _tokenized(self, texts: Sequence[tuple[str, str]]) -> Any:
        return self._tokenizer(
            [self._rendered(*text) for text in texts],
            padding=True,
            truncation=True,
            add_special_tokens=False,
            return_tensors="pt",
            padding_side="right",
        )

    def _as_trained(self, renderer: Renderer, texts: Sequence[tuple[str, str]]) -> Any:
        """The tokens that training gave the model for such a prompt and answer, the end token last where it fits."""
        rows, limit = [], self._most_tokens()
        for prompt, answer in texts:
            asked, said = (Message("user", prompt),), (Message("assistant", answer),)
            ids = renderer.prompt_ids(asked)
            rows.append({"input_ids": _within(limit, ids, renderer.response_ids(asked, said, ids))})
        return self._tokenizer.pad(rows, padding=True, return_tensors="pt", padding_side="right")

    def _most_tokens(self) -> int | None:
        """The length of training; where it is unknown, the positions of a model that has embeddings for them."""
        if self._trained is not None and self._trained.max_seq_length is not None:
            return self._trained.max_seq_length
        config = self._model.config.get_text_config()
        if getattr(config, "rope_parameters", None):
            return None
        limit: int | None = getattr(config, "max_position_embeddings", None)
        return limit

    def _rendered(self, prompt: str, answer: str) -> str:
        if not self._tokenizer.chat_template:
            return f"{prompt}\n\n{answer}"
        chat = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        return str(self._tokenizer.apply_chat_template(chat, tokenize=False))

    def _prove(self, texts: Sequence[tuple[str, str]]) -> None:
        together, alone = self._score(texts), [self._score([text])[0] for text in texts]
        worst = max(abs(a - b) for a, b in zip(together, alone, strict=True))
        if worst > _TOLERANCE:
            raise JudgeError(
                f"the classifier scores a row by {worst:.2g} differently in a batch than alone: expected at most "
                f"{_TOLERANCE:g}. Set pad_token_id of its configuration to its tokenizer's"
            )
        self._proven = True


def _trained_rendering(file: Path) -> TrainedRendering | None:
    """The rendering that is stored with a reward model that Preflow trained; None for any other model.

    Raises:
        JudgeError: It cannot be read.
    """
    if not file.is_file():
        return None
    try:
        return TrainedRendering.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except ValueError as error:  # bytes, JSON or settings
        raise JudgeError(
            f"{file} does not say how the reward model's tokens were made: {str(error).splitlines()[0]}. Train the "
            "reward model again, or take the file from an undamaged copy"
        ) from error


def _within(limit: int | None, prompt: list[int], answer: list[int]) -> list[int]:
    """Prompt and answer in at most so many tokens.

    The whole answer with as much of the prompt's end as fits before it, since the score is taken at the answer's end.
    An answer that does not fit alone loses its end, behind the prompt where that is shorter than the limit.
    """
    if limit is None or len(prompt) + len(answer) <= limit:
        return [*prompt, *answer]
    if len(answer) <= limit:
        return [*prompt[len(prompt) + len(answer) - limit :], *answer]
    return [*prompt, *answer][:limit] if len(prompt) < limit else answer[:limit]
