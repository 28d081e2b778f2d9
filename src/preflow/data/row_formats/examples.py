"""An example of every way in which public files write rows, by what it is called there; all of a kind say the same.

The documents show this list and the tests read it. It decides nothing.
"""

from dataclasses import dataclass
from typing import Any

_ASK, _SAY = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
_NO = {"role": "assistant", "content": "What?"}
_HUMAN, _GPT = {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}
_SCRIPT = "\n\nHuman: Hi\n\nAssistant:"


@dataclass(frozen=True, slots=True)
class Example:
    """A row as a public file writes it.

    Attributes:
        called: How the way of writing is known.
        form: The format that recognises it.
        row: The row.
        given: The format that the recipe must give; none where the columns say enough.
    """

    called: str
    form: str
    row: dict[str, Any]
    given: str | None = None


def _two(chosen: Any, rejected: Any, **beside: Any) -> dict[str, Any]:
    return {**beside, "chosen": chosen, "rejected": rejected}


#: Rows that become the question "Hi" with the answer "Hello".
DEMONSTRATION_EXAMPLES = (
    Example("Alpaca", "alpaca", {"instruction": "Hi", "input": "", "output": "Hello"}),
    Example("Alpaca, input alone", "alpaca", {"instruction": "", "input": "Hi", "output": "Hello"}),
    Example("LLaMA-Factory's Alpaca", "alpaca", {
        "instruction": "Hi", "input": "", "output": "Hello", "system": "", "history": []
    }),
    Example("prompt and completion", "prompt and answer", {"prompt": "Hi", "completion": "Hello"}),
    Example("prompt and response", "prompt and answer", {"prompt": "Hi", "response": "Hello"}),
    Example("question and answer", "prompt and answer", {"question": "Hi", "answer": "Hello"}),
    Example("query and response", "prompt and answer", {"query": "Hi", "response": "Hello"}),
    Example("TRL's conversational prompt and completion", "prompt and answer",
            {"prompt": [_ASK], "completion": [_SAY]}),
    Example("transcript in a text", "text", {"text": "### Human: Hi### Assistant: Hello"}, given="text"),
    Example("ShareGPT", "conversation", {"conversations": [_HUMAN, _GPT]}),
    Example("ShareGPT, conversation", "conversation",
            {"conversation": [_HUMAN, {"from": "chatgpt", "value": "Hello"}]}),
    Example("ShareGPT, padded with nulls", "conversation", {
        "conversations": [{**_HUMAN, "role": None, "content": None}, {**_GPT, "role": None, "content": None}, None]
    }),
    Example("OpenAI chat", "conversation", {"messages": [_ASK, _SAY]}),
    Example("OpenAI chat, content as parts", "conversation", {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, _SAY]
    }),
    Example("chat with other roles", "conversation", {
        "messages": [{"role": "Human", "content": "Hi"}, {"role": "bot", "content": "Hello"}]
    }),
    Example("chat with Gemini's roles", "conversation", {
        "messages": [{"role": "User", "content": "Hi"}, {"role": "model", "content": "Hello"}]
    }),
    Example("Gemini's contents", "conversation", {
        "contents": [{"role": "user", "parts": [{"text": "Hi"}]}, {"role": "model", "parts": [{"text": "Hello"}]}]
    }),
    Example("chat as JSON in a cell", "conversation", {
        "messages": '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]'
    }),
)  # fmt: skip
#: Rows that become the prompt "Hi" with the answers "Hello" (chosen) and "What?" (rejected).
PREFERENCE_EXAMPLES = (
    Example("prompt, chosen and rejected", "chosen and rejected", _two("Hello", "What?", prompt="Hi")),
    Example("question as the prompt", "chosen and rejected", _two("Hello", "What?", question="Hi")),
    Example("input as the prompt", "chosen and rejected", _two("Hello", "What?", input="Hi")),
    Example("Alpaca's instruction as the prompt", "chosen and rejected",
            _two("Hello", "What?", instruction="Hi", input="")),
    Example("TRL's conversational pairs", "chosen and rejected", _two([_SAY], [_NO], prompt=[_ASK])),
    Example("TRL's pairs with implicit prompt", "chosen and rejected", _two([_ASK, _SAY], [_ASK, _NO])),
    Example("messages beside answers", "chosen and rejected", _two(_SAY, _NO, messages=[_ASK])),
    Example("LLaMA-Factory's ShareGPT pairs", "chosen and rejected",
            _two(_GPT, {"from": "gpt", "value": "What?"}, conversations=[_HUMAN])),
    Example("UltraFeedback-binarized", "chosen and rejected",
            _two([_ASK, _SAY], [_ASK, _NO], prompt="Hi", messages=[_ASK, _SAY], score_chosen=8.0, score_rejected=3.0)),
    Example("hh-rlhf", "chosen and rejected", _two(f"{_SCRIPT} Hello", f"{_SCRIPT} What?")),
    Example("hh-rlhf with a prompt", "chosen and rejected", _two(" Hello", " What?", prompt=_SCRIPT)),
    Example("ms-swift 2", "chosen and rejected", {"query": "Hi", "response": "Hello", "rejected_response": "What?"}),
    Example("ms-swift", "rejected response", {"messages": [_ASK, _SAY], "rejected_response": "What?"}),
    Example("ms-swift's rejected messages", "rejected response",
            {"messages": [_ASK, _SAY], "rejected_messages": [_ASK, _NO]}),
    Example("OpenAI, Together and Azure", "preferred output",
            {"input": {"messages": [_ASK]}, "preferred_output": [_SAY], "non_preferred_output": [_NO]}),
    Example("arena", "two answers and a winner", {
        "prompt": "Hi", "model_a": "x", "response_a": "What?", "model_b": "y", "response_b": "Hello",
        "winner": "model_b"
    }),
    Example("arena as whole conversations", "two answers and a winner",
            {"conversation_a": [_ASK, _SAY], "conversation_b": [_ASK, _NO], "winner": "model_a"}),
    Example("arena by columns of the winner", "two answers and a winner", {
        "prompt": "Hi", "response_a": "Hello", "response_b": "What?",
        "winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0
    }),
    Example("two answers with scores", "two answers and a winner",
            {"question": "Hi", "answer_0": "What?", "score_0": -0.5, "answer_1": "Hello", "score_1": 0.5}),
    Example("Stanford's SHP", "two answers and a winner",
            {"history": "Hi", "human_ref_A": "What?", "human_ref_B": "Hello", "labels": 0, "score_A": 2, "score_B": 9}),
    Example("ranking by scores", "ranking", {"prompt": "Hi", "responses": ["What?", "Hello"], "scores": [1, 5]}),
    Example("UltraFeedback's completions", "ranking", {
        "instruction": "Hi",
        "completions": [{"response": "What?", "overall_score": 3.0}, {"response": "Hello", "overall_score": 8.5}],
    }),
    Example("Alpaca with answers, the best first", "ranking", {"instruction": "Hi", "output": ["Hello", "What?"]}),
)  # fmt: skip
#: Two rows of one prompt that become such a pair together.
VERDICT_EXAMPLES = (
    Example("KTO, a good answer", "answer with a verdict", {"prompt": "Hi", "completion": "Hello", "label": True}),
    Example("KTO, a bad answer", "answer with a verdict", {"prompt": "Hi", "completion": "What?", "label": False}),
)
