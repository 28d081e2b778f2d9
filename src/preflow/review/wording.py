"""A question as people read it: Markdown that the answers inside it cannot break out of."""

import re
from collections.abc import Sequence

from preflow.data.rows import Message

_SPEAKERS = {"system": "Instructions", "user": "User", "assistant": "Assistant"}
#: The beginning of a line that would be a heading, a rule, an underline of a heading, or HTML up to its end.
_MARKUP = re.compile(r"^( {0,3})(?=#{1,6}(?:\s|$)|=+\s*$|(?:-[ \t]*)+$|(?:\*[ \t]*){3,}$|(?:_[ \t]*){3,}$|<)")
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})(.*)$")
#: Ends a line where the answer ends it; Markdown would go on.
_BREAK = "  "
_EMPTY = "*(an empty answer)*"


def prompt_text(turns: Sequence[Message]) -> str:
    """A prompt as Markdown: a single turn as it is, a conversation with its speakers."""
    if len(turns) == 1:
        return contained(turns[0].content)
    return "\n\n".join(f"**{_SPEAKERS[turn.role]}:**\n\n{contained(turn.content)}" for turn in turns)


def answers_text(first: str, second: str) -> str:
    """Two answers as one Markdown text."""
    parts = [f"### Answer {name}\n\n{contained(text) or _EMPTY}" for name, text in (("A", first), ("B", second))]
    return "\n\n---\n\n".join(parts)


def contained(text: str) -> str:
    """Markdown whose headings, rules and HTML are plain text, whose last code block is closed, and whose lines end."""
    lines: list[str] = []
    fence = ""
    for line in text.strip().splitlines():
        found = _FENCE.match(line)
        if not fence:
            fence = found[1] if found and not (found[1][0] == "`" and "`" in found[2]) else ""
            lines.append(line if fence or not line.strip() else _MARKUP.sub(r"\1\\", line.rstrip()) + _BREAK)
        else:
            lines.append(line)
            if found and found[1].startswith(fence) and not found[2].strip():
                fence = ""
    return "\n".join([*lines, fence] if fence else lines).rstrip(" ")
