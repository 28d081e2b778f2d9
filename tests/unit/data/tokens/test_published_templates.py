"""Templates of published models: the prompt of inference, one end token per answer, and a mask of the answers alone.

What is expected is written here by hand, part by part, as the models' pages show their formats; what is learnt is
between ``«`` and ``»``. Nothing of it comes from a template.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from transformers.utils import chat_template_utils

from preflow.chat_templates.families import FAMILIES
from preflow.data.rows import Demonstration, Message, Source, to_json
from preflow.data.tokens.chat_template import Renderer
from preflow.data.tokens.tokenize import tokenize_demonstrations
from tests.unit.data.tokens.tokenizers import make_tokenizer

HERE = Path(__file__).parent / "templates"
SYSTEM = "Be kind."
TURNS = ("Hi.", "Hello.", "And you?", "Fine.")
CHATML = ("<|im_start|>", "<|im_end|>")
LLAMA = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
GEMMA = ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")
COHERE = (
    "<BOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|SYSTEM_TOKEN|>", "<|USER_TOKEN|>",
    "<|CHATBOT_TOKEN|>",
)  # fmt: skip
GRANITE = ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>")
LLAMA_SYSTEM = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
    "Today Date: 26 Jul 2024\n\n{s}<|eot_id|>"
)
SMOLLM3 = (
    "<|im_start|>system\n## Metadata\n\nKnowledge Cutoff Date: June 2025\nToday Date: 26 July 2024\n"
    "Reasoning Mode: /think\n\n## Custom Instructions\n\n{s}\n\n<|im_end|>\n"
)
PHI_4 = (
    "You are Phi, a language model trained by Microsoft to help users. Your role as an assistant involves thoroughly "
    "exploring questions through a systematic thinking process before providing the final precise and accurate "
    "solutions. "
)


@dataclass(frozen=True)
class Model:
    """A published format: the parts of which its conversations consist.

    Attributes:
        template: Its file: of TRL, of the folder beside this test, or of a family of Preflow's.
        tokens: Its special tokens.
        bos: Its BOS; none where its tokenizer has none.
        eos: Its EOS.
        begin: What is before the first turn where there is no system turn.
        system: What is before it where there is one, of the text ``{s}``.
        user: A user turn of the text ``{u}`` and the header of the answer.
        answer: An answer of the text ``{a}``.
        after: What is between an answer and the next user turn.
        first: The first user turn where there is a system turn that it holds.
    """

    template: str
    tokens: Sequence[str]
    bos: str | None
    eos: str
    begin: str
    system: str
    user: str
    answer: str
    after: str = ""
    first: str | None = None

    def expected(self, system: str | None, turns: Sequence[str]) -> str:
        """A conversation, its learnt parts marked."""
        start, user = (self.begin, self.user) if system is None else (self.system.replace("{s}", system), self.user)
        parts = []
        for place in range(0, len(turns), 2):
            form = self.first.replace("{s}", system) if self.first and system and place == 0 else user
            parts.append(form.replace("{u}", turns[place]) + self.answer.replace("{a}", turns[place + 1]))
        return start + self.after.join(parts)


def trl(name: str) -> str:
    spec = find_spec("trl")
    assert spec is not None, "TRL is not installed"
    return (Path(str(spec.origin)).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def text_of(name: str) -> str:
    place, _, file = name.partition(":")
    if place == "trl":
        return trl(file)
    return FAMILIES[file].text() if place == "own" else (HERE / f"{file}.jinja").read_text(encoding="utf-8")


IM = ("<|im_start|>user\n{u}<|im_end|>\n<|im_start|>assistant\n", "«{a}<|im_end|>»", "\n")
HEADERS = (
    "<|start_header_id|>user<|end_header_id|>\n\n{u}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "«{a}<|eot_id|>»",
)
GEMMA_USER = "<start_of_turn>user\n{u}<end_of_turn>\n<start_of_turn>model\n"
GEMMA_FIRST = "<start_of_turn>user\n{s}\n\n{u}<end_of_turn>\n<start_of_turn>model\n"
PHI_3 = ("<|user|>\n{u}<|end|>\n<|assistant|>\n", "«{a}<|end|>»", "\n")
OF_ROLE = ("<|start_of_role|>user<|end_of_role|>{u}<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>",)
SYSTEM_IM = "<|im_start|>system\n{s}<|im_end|>\n"
MODELS = {
    "chatml": Model("own:chatml", CHATML, None, "<|im_end|>", "", SYSTEM_IM, *IM),
    "qwen2.5": Model(
        "trl:qwen2_5", CHATML, None, "<|im_end|>",
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n",
        SYSTEM_IM, *IM,
    ),
    "qwen3-instruct": Model("trl:qwen3_instruct_2507", CHATML, None, "<|im_end|>", "", SYSTEM_IM, *IM),
    "smollm2": Model(
        "file:smollm2", CHATML, "<|im_start|>", "<|im_end|>",
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n",
        SYSTEM_IM, *IM,
    ),
    "smollm3": Model(
        "file:smollm3", CHATML, None, "<|im_end|>",
        SMOLLM3.replace("{s}", "You are a helpful AI assistant named SmolLM, trained by Hugging Face."), SMOLLM3, *IM,
    ),
    "llama3": Model(
        "trl:llama3", LLAMA, "<|begin_of_text|>", "<|eot_id|>", "<|begin_of_text|>",
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n{s}<|eot_id|>", *HEADERS,
    ),
    "llama3.1": Model(
        "trl:llama3_1", LLAMA, "<|begin_of_text|>", "<|eot_id|>", LLAMA_SYSTEM.replace("{s}", ""), LLAMA_SYSTEM,
        *HEADERS,
    ),
    "llama3.2": Model(
        "trl:llama3_2", LLAMA, "<|begin_of_text|>", "<|eot_id|>", LLAMA_SYSTEM.replace("{s}", ""), LLAMA_SYSTEM,
        *HEADERS,
    ),
    "gemma2": Model(
        "trl:gemma", GEMMA, "<bos>", "<eos>", "<bos>", "<bos>", GEMMA_USER, "«{a}<end_of_turn>»", "\n", GEMMA_FIRST
    ),
    "gemma3": Model(
        "trl:gemma3", GEMMA, "<bos>", "<eos>", "<bos>", "<bos>", GEMMA_USER, "«{a}<end_of_turn>»", "\n", GEMMA_FIRST
    ),
    "phi3": Model(
        "trl:phi3", ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"), None, "</s>", "",
        "<|system|>\n{s}<|end|>\n", *PHI_3,
    ),
    "phi4": Model(
        "own:phi4", (*CHATML, "<|im_sep|>"), None, "<|im_end|>", "", "<|im_start|>system<|im_sep|>{s}<|im_end|>",
        "<|im_start|>user<|im_sep|>{u}<|im_end|><|im_start|>assistant<|im_sep|>", "«{a}<|im_end|>»",
    ),
    "mistral": Model(
        "own:mistral", ("[INST]", "[/INST]"), "<s>", "</s>", "<s>", "<s>", "[INST] {u}[/INST]", "« {a}</s>»", "",
        "[INST] {s}\n\n{u}[/INST]",
    ),
    "tulu": Model(
        "own:tulu", (), None, "</s>", "", "<|system|>\n{s}\n", "<|user|>\n{u}\n<|assistant|>\n", "«{a}</s>»", "\n"
    ),
    "olmo2": Model(
        "file:olmo2", ("<|endoftext|>",), "<|endoftext|>", "<|endoftext|>", "<|endoftext|>",
        "<|endoftext|><|system|>\n{s}\n", "<|user|>\n{u}\n<|assistant|>\n", "«{a}<|endoftext|>»", "\n",
    ),
    "command-r": Model(
        "file:command-r", COHERE, "<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>", "<BOS_TOKEN>",
        "<BOS_TOKEN><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{s}<|END_OF_TURN_TOKEN|>",
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{u}<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        "«{a}<|END_OF_TURN_TOKEN|>»",
    ),
    "granite3": Model(
        "file:granite3", GRANITE, "<|end_of_text|>", "<|end_of_text|>",
        "<|start_of_role|>system<|end_of_role|>Knowledge Cutoff Date: April 2024.\nToday's Date: July 26, 2024.\n"
        "You are Granite, developed by IBM. You are a helpful AI assistant.<|end_of_text|>\n",
        "<|start_of_role|>system<|end_of_role|>{s}<|end_of_text|>\n", *OF_ROLE, "«{a}<|end_of_text|>»", "\n",
    ),
}  # fmt: skip


def marked(tokenizer: Any, ids: list[int], mask: list[bool]) -> str:
    """A tokenized conversation as text, each run of learnt tokens between marks."""
    text, inside = "", False
    run: list[int] = []
    for token, learnt in [*zip(ids, mask, strict=True), (None, False)]:
        if learnt != inside or token is None:
            piece = str(tokenizer.decode(run))
            text += f"«{piece}»" if inside else piece
            inside, run = learnt, []
        if token is not None:
            run.append(token)
    return text


def conversation(system: str | None, turns: Sequence[str]) -> tuple[Message, ...]:
    said = [Message("assistant" if place % 2 else "user", text) for place, text in enumerate(turns)]
    return (*([Message("system", system)] if system else []), *said)


def rendered(tokenizer: Any, messages: Sequence[Message]) -> list[str]:
    row = Demonstration(tuple(messages), Source("d", 1))
    rows, _ = tokenize_demonstrations([row], Renderer(tokenizer, "chat"), 10_000, "drop")
    return [marked(tokenizer, one.input_ids, one.response_mask) for one in rows]


@pytest.mark.parametrize("gpt2", [False, True], ids=["merging", "gpt2"])
@pytest.mark.parametrize("turns", [TURNS[:2], TURNS], ids=["one", "many"])
@pytest.mark.parametrize("system", [None, SYSTEM], ids=["plain", "system"])
@pytest.mark.parametrize("name", MODELS)
def test_every_answer_and_its_end_are_learnt_and_nothing_else(
    name: str, system: str | None, turns: Sequence[str], gpt2: bool
) -> None:
    model = MODELS[name]
    tokenizer = make_tokenizer(text_of(model.template), model.eos, model.bos, more=model.tokens, gpt2=gpt2)
    assert rendered(tokenizer, conversation(system, turns)) == [model.expected(system, turns)]


class Today:
    """A clock that fails where it is read."""

    @staticmethod
    def now() -> Any:
        raise AssertionError("a template asked for today's date")


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("gemma2",)])
@pytest.mark.parametrize("system", [None, SYSTEM], ids=["plain", "system"])
def test_the_prompt_is_the_one_of_inference(name: str, system: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """By transformers' own rendering, on 26 July 2024."""
    from datetime import datetime

    class Then(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Then":
            return cls(2024, 7, 26)

    model = MODELS[name]
    tokenizer = make_tokenizer(text_of(model.template), model.eos, model.bos, more=model.tokens)
    messages = conversation(system, TURNS)[:-1]
    found = Renderer(tokenizer, "chat").prompt_ids(messages)
    monkeypatch.setattr(chat_template_utils, "datetime", Then)
    expected = tokenizer.apply_chat_template(
        to_json(messages), tokenize=True, return_dict=False, add_generation_prompt=True
    )
    assert found == expected


@pytest.mark.parametrize("name", ["llama3.2", "smollm3", "granite3"])
def test_no_template_reads_the_clock(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS[name]
    tokenizer = make_tokenizer(text_of(model.template), model.eos, model.bos, more=model.tokens)
    monkeypatch.setattr(chat_template_utils, "datetime", Today)
    assert rendered(tokenizer, conversation(None, TURNS)) == [model.expected(None, TURNS)]
    with pytest.raises(AssertionError, match="today's date"):  # or the test would show nothing
        tokenizer.apply_chat_template(to_json(conversation(None, TURNS)), tokenize=False)


def test_qwen3_trains_each_answer_in_a_row_of_its_own() -> None:
    """Its template writes thoughts before the last answer alone, empty ones where there are none."""
    tokenizer = make_tokenizer(trl("qwen3"), "<|im_end|>", None, more=CHATML)
    start = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi.<|im_end|>\n<|im_start|>assistant\n"
    more = "Hello.<|im_end|>\n<|im_start|>user\nAnd you?<|im_end|>\n<|im_start|>assistant\n"
    system, first, answer, *rest = conversation(SYSTEM, TURNS)
    thinks = Message("assistant", answer.content, reasoning="They greet.")
    assert rendered(tokenizer, (system, first, thinks, *rest)) == [
        start + "«<think>\nThey greet.\n</think>\n\nHello.<|im_end|>»",
        start + more + "«<think>\n\n</think>\n\nFine.<|im_end|>»",
    ]


@pytest.mark.parametrize(
    ("name", "tokens", "inst", "lead"),
    [("mistral-v0.3", ("[INST]", "[/INST]"), "[INST] ", " "), ("mistral-nemo", ("[INST]", "[/INST]"), "[INST]", "")],
)
def test_mistrals_system_text_is_in_the_prompt_of_every_answer(
    name: str, tokens: Sequence[str], inst: str, lead: str
) -> None:
    """Its templates put the text before the last question, and nowhere once the answer is there."""
    tokenizer = make_tokenizer(text_of(f"file:{name}"), "</s>", "<s>", more=tokens)
    assert rendered(tokenizer, conversation(SYSTEM, TURNS)) == [
        f"<s>{inst}Be kind.\n\nHi.[/INST]«{lead}Hello.</s>»",
        f"<s>{inst}Hi.[/INST]{lead}Hello.</s>{inst}Be kind.\n\nAnd you?[/INST]«{lead}Fine.</s>»",
    ]
    assert rendered(tokenizer, conversation(None, TURNS)) == [
        f"<s>{inst}Hi.[/INST]«{lead}Hello.</s>»{inst}And you?[/INST]«{lead}Fine.</s>»"
    ]


def test_deepseek_r1_learns_its_thoughts_behind_the_prompt_that_opens_them() -> None:
    """Its template drops thoughts from every answer, but a prompt ends with ``<think>``."""
    marks = ("<｜User｜>", "<｜Assistant｜>", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>")  # noqa: RUF001
    user, assistant, bos, eos = marks
    tokenizer = make_tokenizer(trl("deepseek_r1_distill"), eos, bos, more=marks)
    system, first, answer, *rest = conversation(SYSTEM, TURNS)
    thinks = Message("assistant", "<think>\nThey greet.\n</think>\n\n" + answer.content)
    assert rendered(tokenizer, (system, first, thinks, *rest)) == [
        f"{bos}Be kind.{user}Hi.{assistant}<think>\n«They greet.\n</think>\n\nHello.{eos}»",
        f"{bos}Be kind.{user}Hi.{assistant}\n\nHello.{eos}{user}And you?{assistant}<think>\n«\n</think>\n\nFine.{eos}»",
    ]


def test_phi_4_reasoning_has_a_system_turn_of_its_own() -> None:
    tokenizer = make_tokenizer(text_of("file:phi-4-reasoning"), "<|im_end|>", None, more=(*CHATML, "<|im_sep|>"))
    (plain,) = rendered(tokenizer, conversation(None, TURNS[:2]))
    assert plain.startswith("<|im_start|>system<|im_sep|>" + PHI_4)
    assert plain.endswith("<|im_start|>user<|im_sep|>Hi.<|im_end|><|im_start|>assistant<|im_sep|>«Hello.<|im_end|>»")
    assert rendered(tokenizer, conversation(SYSTEM, TURNS)) == [MODELS["phi4"].expected(SYSTEM, TURNS)]
