"""Names of columns and of the keys of a turn, as public data sets write them.

Names are compared in lower case with ``_`` for blanks and hyphens (``Rejected-Response`` is ``rejected_response``).
"""

from collections.abc import Iterable

#: Columns that hold a conversation.
CONVERSATIONS = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat", "contents")
#: Columns that hold what is asked, and what is answered; a solution counts before the answer that it ends with.
PROMPTS = ("prompt", "question", "query", "instruction", "input", "inputs", "problem", "user_prompt", "user_input")
ANSWERS = ("completion", "response", "solution", "answer", "output", "outputs", "target", "targets")
#: Columns of Alpaca's kind that add to the instruction.
ADDITIONS = ("input", "context")
#: Columns that hold the system turn, and earlier turns.
SYSTEMS = ("system", "system_prompt", "system_message", "system_instruction", "systeminstruction")
HISTORY = "history"
#: Stanford's SHP: the two answers to the post in ``history``; ``labels`` is 1 where the first is preferred, else 0.
SHP_ANSWERS = ("human_ref_a", "human_ref_b")
#: Columns of the preferred and the other answer.
PREFERENCES = (
    ("chosen", "rejected"),
    ("chosen_response", "rejected_response"),
    ("chosen", "rejected_response"),
    ("response", "rejected_response"),
    ("response_chosen", "response_rejected"),
    ("chosen_answer", "rejected_answer"),
    ("answer_chosen", "answer_rejected"),
    ("chosen_output", "rejected_output"),
    ("chosen_completion", "rejected_completion"),
    ("chosen_messages", "rejected_messages"),
    ("chosen_conversation", "rejected_conversation"),
    ("preferred_output", "non_preferred_output"),
    ("preferred_response", "non_preferred_response"),
    ("preferred", "dispreferred"),
    ("preferred", "non_preferred"),
    ("preferred", "rejected"),
    ("accepted", "rejected"),
    ("winner_response", "loser_response"),
    ("win", "lose"),
    ("better", "worse"),
    ("response_j", "response_k"),
)
#: The other answer beside a conversation that ends with the preferred one (ms-swift).
REJECTED_ALONE = ("rejected_response", "rejected_messages")
#: Verdicts on a single answer (KTO).
VERDICTS = ("label", "kto_tag", "kto_label", "is_desirable", "desirable", "thumbs_up", "chosen", "rejected")
#: Columns that say whether a sampled answer came to its end.
FINISHED = ("finished", "is_finished", "completed")
TRUNCATED = ("truncated", "is_truncated")
FINISH_REASONS = ("finish_reason", "stop_reason")
#: The same columns of one answer of a pair, by answer: ``chosen_finished``, ``finish_reason_rejected``.
FINISHED_SIDES = {
    side: {
        spelled: name for name in (*FINISHED, *TRUNCATED, *FINISH_REASONS)
        for spelled in (f"{side}_{name}", f"{name}_{side}")
    }
    for side in ("chosen", "rejected")
}  # fmt: skip
#: Columns and turn keys that offer or call tools, and such that hold pictures, films or sound.
TOOLS = ("tools", "functions", "function_call", "tool_calls", "tool_call", "function", "available_tools")
MEDIA = (
    "images", "image", "image_url", "image_path", "videos", "video", "video_url", "audios", "audio", "audio_url",
)  # fmt: skip
#: Columns and turn keys with the thoughts before an answer.
REASONING = ("reasoning_content", "thinking", "reasoning")
#: Turn keys: the role, what it says, and whether it is learnt.
ROLE_KEYS = ("role", "from", "speaker", "author")
CONTENT_KEYS = ("content", "value", "text", "parts")
TRAINED_KEYS = (
    "weight", "train", "training", "trainable", "train_on_turn", "learn", "loss", "loss_weight", "loss_scale",
    *("label", "is_desirable", "desirable", "is_correct", "accepted"),  # a bad answer is context, a good one ordinary
)  # fmt: skip
MASKED_KEYS = ("masked", "mask", "ignore")
#: Columns that say the same of the whole row.
ROW_TRAINED = (
    *("weight", "train", "trainable", "loss_weight", "sample_weight"),
    *("is_correct", "accepted", "is_accepted"),  # a wrong answer is no example, a right one an ordinary one
)
ROW_MASKED = ("masked",)
#: Columns of a list of answers, and the scores (higher is better) and ranks (1 is best) beside them or in its items.
CANDIDATES = ("responses", "completions", "answers", "candidates", "outputs", "generations", "replies")
SCORES = ("overall_score", "scores", "score", "ratings", "rating", "rewards", "reward")
RANKS = ("ranks", "rank")
_SCORE_WORDS = ("score", "rating", "reward", "avg_rating", "overall_score", "grade")
#: Columns of the better and the worse answer's score, and of how much better the chosen answer is.
SCORE_PAIRS = tuple(
    names
    for word in _SCORE_WORDS
    for names in ((f"{word}_chosen", f"{word}_rejected"), (f"chosen_{word}", f"rejected_{word}"))
)
MARGINS = ("margin", "score_margin", "reward_margin", "score_diff")
#: Columns that name the better of two answers.
WINNERS = (
    "winner", "preference", "preferred", "choice", "better", "better_response_id", "label", "labels", "chosen",
)  # fmt: skip

ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt", "chatbot", "ai"), "assistant"),
}
TOOL_ROLES = ("tool", "function", "function_call", "tool_call", "observation", "ipython", "tool_response")

#: Every column that may say what a row means, or how one of its texts is to be read.
KNOWN = frozenset(
    name
    for names in (
        CONVERSATIONS, PROMPTS, ANSWERS, ADDITIONS, SYSTEMS, (HISTORY,), *PREFERENCES, REJECTED_ALONE, VERDICTS,
        FINISHED, TRUNCATED, FINISH_REASONS, *FINISHED_SIDES.values(), TOOLS, MEDIA, REASONING,
        ROW_TRAINED, ROW_MASKED, CANDIDATES, SCORES, RANKS,
        WINNERS, MARGINS, *SCORE_PAIRS, ("joined_from_verdicts", "source"),
    )
    for name in names
)  # fmt: skip
#: Columns that only rows of data have, never a recipe.
ROW_COLUMNS = frozenset((*CONVERSATIONS, *PROMPTS, *ANSWERS, "chosen", "rejected", "text"))


def normal(name: str) -> str:
    """A column's name or a turn's key as it is compared."""
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def other_names(name: str, *, mapped: bool) -> frozenset[str]:
    """Columns of a file that are not read where a recipe says what stands for one of ours.

    Args:
        name: Ours.
        mapped: Whether a column of the file stands for it; else the file's own column of this name is not read.
    """
    if not mapped:
        return frozenset({name})
    better, worse = ({names[side] for names in PREFERENCES} for side in (0, 1))
    meant: dict[str, Iterable[str]] = {
        "messages": (*CONVERSATIONS, *PROMPTS),
        "prompt": (*CONVERSATIONS, *PROMPTS),
        "instruction": {*CONVERSATIONS, *PROMPTS} - {*ADDITIONS},
        "completion": {*CONVERSATIONS, *ANSWERS, *better, *worse},
        "output": {*CONVERSATIONS, *ANSWERS, *better, *worse},
        "system": SYSTEMS,
        "label": {*VERDICTS} - {"chosen", "rejected"},
        "chosen": {*better, *ANSWERS},
        "rejected": {*worse, *REJECTED_ALONE},
    }
    return frozenset({name, *meant.get(name, ())})
