"""Texts of turns: tokens of chat templates in them, and transcripts of several turns.

Every expression here takes time linear in the text's length.
"""

import re

from preflow.data.row_formats.cells import is_written_null
from preflow.data.row_formats.problems import RowProblem
from preflow.redaction import quoted

#: Tokens that end a turn or a text in public templates.
END_TOKENS = (
    "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>", "<|end|>", "<|eom_id|>", "<end_of_turn>",
    "<|END_OF_TURN_TOKEN|>", "<|return|>", "<|eot|>", "<|eom|>", "<|end_of_turn|>", "<|endofturn|>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>", "<eos>", "</s>",
)  # fmt: skip
#: Tokens with a special meaning; ``<s>`` may also be HTML, see ``_is_html``.
_CONTROL = re.compile(
    r"<\|[A-Za-z][A-Za-z_0-9]{0,40}\|>|<\uff5c[^<>\uff5c\n]{1,40}\uff5c>|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>|</?s>|<[be]os>"
)
_STRIKE = ("<s>", "</s>")
#: What a text with one of these needs to be read with care; every pattern here holds one of them.
_MARKS = ("<|", "<\uff5c", "_of_turn>", "INST]", "SYS>>", "<s>", "</s>", "os>", "Human:", "Assistant:", "ASSISTANT:")
#: Headings of turns in transcripts: the user's, the assistant's, and where they are.
_TRANSCRIPTS = (
    ("Human", re.compile(r"(?:\A|\n\n)(Human|Assistant):")),
    ("### Human", re.compile(r"(### ?(?:Human|Assistant)):")),
    ("USER", re.compile(r"(?:\A|\s)(USER|ASSISTANT):")),
    ("User", re.compile(r"(?:\A|\n)(User|Assistant):")),
)
#: What begins the user's next turn in an answer.
_NEXT = ("\n\nHuman:", "### Human:", "###Human:")


def needs_care(text: str) -> bool:
    """Whether a text may hold anything that this module, or a list in a cell, is about."""
    if len(text) < 24 and is_written_null(text):
        return True
    head = text[:200].lstrip()
    return head.startswith(("[", "{", "array(")) or any(mark in text for mark in _MARKS)


def clean(text: str, where: str, changed: set[str]) -> str:
    """A turn's text without an end token at its end.

    Args:
        text: As the file holds it.
        where: The turn, for messages.
        changed: Gets ``end_token_removed`` where one was removed.

    Raises:
        RowProblem: The text is a written null, or holds tokens of a template elsewhere.
    """
    if is_written_null(text):
        raise RowProblem("written_null", f"{where} is the text {text.strip()}, which stands for no value")
    if not any(mark in text for mark in _MARKS):
        return text
    bare = _without_end(text)
    if bare is not text:
        changed.add("end_token_removed")
    html = [token for token in _STRIKE if _is_html(token, bare)]
    found = next((match for match in _CONTROL.finditer(bare) if match[0] not in html), None)
    if found is not None:
        raise RowProblem(
            "control_tokens",
            f"{where} holds the template's token {quoted(found[0])} at character {found.start() + 1}; expected the "
            "text of one turn",
        )
    return bare


def _without_end(text: str) -> str:
    """The text without the end tokens at its end; the very same text where there are none."""
    end, keeps_html = len(text), _is_html("</s>", text)
    while True:
        stop = end
        while stop and text[stop - 1].isspace():
            stop -= 1
        token = next((token for token in END_TOKENS if text.endswith(token, 0, stop)), None)
        if token is None or (token == "</s>" and keeps_html):
            return text if end == len(text) else text[:end]
        end = stop - len(token)


def _is_html(token: str, text: str) -> bool:
    """Whether ``<s>`` strikes text out: opened before it is closed, as often as it is closed."""
    if token not in _STRIKE:
        return False
    opened, closed = text.count("<s>"), text.count("</s>")
    around = text.startswith("<s>") and text.rstrip().endswith("</s>")
    return opened == closed > 0 and text.find("<s>") < text.find("</s>") and not around


def parse_transcript(text: str) -> list[tuple[str, str]] | None:
    """The turns of a transcript; none where the text is none.

    A transcript begins with the user's heading and has the assistant's at least once. An empty last turn of the
    assistant, which asks for an answer, is left out.

    Returns:
        Role and text of each turn; texts are stripped.
    """
    start = text.lstrip()
    for user, headings in _TRANSCRIPTS:
        if not start.startswith((f"{user}:", f"{user.replace(' ', '')}:")):
            continue
        found = list(headings.finditer(start))
        if len(found) < 2 or (user == "User" and start[found[-1].end() :].strip()):
            continue
        ends = [*(match.start() for match in found[1:]), len(start)]
        turns = [
            ("user" if match[1].replace(" ", "") == user.replace(" ", "") else "assistant", start[match.end() : end])
            for match, end in zip(found, ends, strict=True)
        ]
        if all(role == "user" for role, _ in turns):
            continue
        stripped = [(role, said.strip()) for role, said in turns]
        return stripped[:-1] if stripped[-1] == ("assistant", "") else stripped
    return None


def refuse_transcript(text: str, where: str, *, answer: bool) -> None:
    """Refuse a turn that holds others in a form that cannot be parted.

    Raises:
        RowProblem: An answer goes on with the user's next turn, or a prompt after other text asks for an answer.
    """
    if any(mark in text for mark in _NEXT) if answer else text.rstrip().endswith("\n\nAssistant:"):
        raise RowProblem("control_tokens", f"{where} holds headings of turns (Human:, Assistant:); expected one turn")
