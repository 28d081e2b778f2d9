"""A reward model that Preflow trained never sees more tokens than its training gave it."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2ForSequenceClassification

from preflow.config.base import Rendering, numbers
from preflow.config.evaluation.judge import JudgeSettings
from preflow.data.rows import Message
from preflow.data.tokens.chat_template import Renderer
from preflow.errors import JudgeError
from preflow.judges.classifier import RENDERING, ClassifierJudge
from tests.conftest import make_tokenizer

POSITIONS = 64
PROMPT, ANSWER = "Where is order " * 20, "It is on its way."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A classifier with 64 learned positions and the rendering of its training."""
    tokenizer = make_tokenizer()
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=1, n_positions=POSITIONS, initializer_range=0.3,
        pad_token_id=5, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    config.num_labels = 1
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(5)
    torch.manual_seed(0)
    GPT2ForSequenceClassification(config).save_pretrained(str(tmp_path))
    tokenizer.save_pretrained(str(tmp_path))
    trained_at(tmp_path, 48)
    return tmp_path


def trained_at(folder: Path, length: int | None) -> None:
    kept = numbers(Rendering()) | ({} if length is None else {"max_seq_length": length})
    (folder / RENDERING).write_text(json.dumps(kept), encoding="utf-8")


def judge_of(folder: Path) -> ClassifierJudge:
    return ClassifierJudge(JudgeSettings(kind="classifier", model=str(folder)))


def parts(folder: Path, prompt: str, answer: str) -> tuple[list[int], list[int]]:
    renderer = Renderer(AutoTokenizer.from_pretrained(str(folder)), Rendering())
    asked, said = (Message("user", prompt),), (Message("assistant", answer),)
    ids = renderer.prompt_ids(asked)
    return ids, renderer.response_ids(asked, said, ids)


def reward(folder: Path, ids: list[int]) -> float:
    """One row alone, read by transformers itself."""
    model = GPT2ForSequenceClassification.from_pretrained(str(folder)).eval()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return float(model(input_ids=torch.tensor([ids])).logits[0, 0])


@pytest.mark.parametrize(("kept", "most"), [(48, 48), (None, POSITIONS)])
def test_of_a_long_prompt_its_end_is_kept_before_the_whole_answer(folder: Path, kept: int | None, most: int) -> None:
    trained_at(folder, kept)
    prompt, answer = parts(folder, PROMPT, ANSWER)
    assert len(prompt) > POSITIONS
    expected = reward(folder, (prompt + answer)[-most:])
    assert judge_of(folder).scores([(PROMPT, ANSWER), ("Hi", "Yes.")])[0] == pytest.approx(expected, abs=1e-5)


def test_an_answer_that_does_not_fit_loses_its_end(folder: Path) -> None:
    """Behind the prompt where that is shorter than the limit, else by itself."""
    long = ANSWER * 10
    for prompt in ("Hi", PROMPT):
        asked, answer = parts(folder, prompt, long)
        assert len(answer) > POSITIONS
        expected = reward(folder, (asked + answer if prompt == "Hi" else answer)[:48])
        assert judge_of(folder).scores([(prompt, long)])[0] == pytest.approx(expected, abs=1e-5)


def test_what_fits_is_not_cut(folder: Path) -> None:
    prompt, answer = parts(folder, "Hi", "Yes.")
    expected = reward(folder, prompt + answer)
    assert judge_of(folder).scores([("Hi", "Yes.")])[0] == pytest.approx(expected, abs=1e-5)


def test_another_length_is_another_judge(folder: Path) -> None:
    before = judge_of(folder).identity
    trained_at(folder, 32)
    assert judge_of(folder).identity != before
    trained_at(folder, None)
    assert set(judge_of(folder).identity) == {"kind", "weights", "template"}, "kept verdicts stay found"


@pytest.mark.parametrize("damaged", [b'{"templ', b"\xff\xfe\x00", b"[]", b'{"max_seq_length": 0}', b'{"other": 1}'])
def test_a_damaged_rendering_is_named(folder: Path, damaged: bytes) -> None:
    (folder / RENDERING).write_bytes(damaged)
    with pytest.raises(JudgeError, match=rf"{RENDERING} does not say .* Train the reward model again"):
        judge_of(folder)
