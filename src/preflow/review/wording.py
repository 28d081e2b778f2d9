"""A question as people read it: Markdown that the answers inside it cannot break out of."""

import re
from collections.abc import Sequence

from preflow.data.rows import Message

_SPEAKERS = {"system": "Instructions", "user": "User", "assistant": "Assistant"}
#: What a quotation or an item of a list begins with: what follows it is a line of its own.
_ITEM = r"(?:[-+*]|\d{1,9}[.)])(?=[ \t]|$)"
_MARKERS = rf"(?:(?:>|{_ITEM})[ \t]*)"
#: What would be a heading, a rule, an underline of a heading, or HTML up to its end.
_MARKS = r"#{1,6}(?:\s|$)|=+\s*$|(?:-[ \t]*)+$|(?:\*[ \t]*){3,}$|(?:_[ \t]*){3,}$|<"
_MARKUP = re.compile(rf"^( {{0,3}}{_MARKERS}*?)(?={_MARKS})")
_MARKUP_WITHIN = re.compile(rf"^([ \t]*{_MARKERS}*?)(?={_MARKS})")
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})(.*)$")
_FENCE_WITHIN = re.compile(r"^[ \t]*(`{3,}|~{3,})(.*)$")
_FENCE_IN_ITEM = re.compile(rf"^([ \t]*(?:{_ITEM}[ \t]*)+)(`{{3,}}|~{{3,}})(.*)$")
_FENCE_IN_QUOTATION = re.compile(rf"^([ \t]*{_MARKERS}+)(?=`{{3,}}|~{{3,}})")
_NESTED = re.compile(rf"^[ \t]*{_MARKERS}")
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
    """Markdown whose headings, rules and HTML are plain text, whose last code block is closed, and whose lines end.

    Those in quotations and lists count, too. A code block in a list begins at the margin, as else the next line at the
    margin would end it unseen, and what looks like code would be a heading; one in a quotation is plain text.
    """
    lines: list[str] = []
    fence, nested, blank = "", False, True
    for line in text.strip().splitlines():
        if fence:
            found = (_FENCE_WITHIN if nested else _FENCE).match(line)
            ends = found is not None and found[1].startswith(fence) and not found[2].strip()
            lines.append(fence if ends and nested else line)
            fence = "" if ends else fence
            continue
        nested = bool(_NESTED.match(line)) or (nested and (not line.strip() or line[0] in " \t" or not blank))
        blank = not line.strip()
        item = _FENCE_IN_ITEM.match(line)
        found = (_FENCE_WITHIN if nested else _FENCE).match(line) if item is None else None
        opened, information = (item[2], item[3]) if item else (found[1], found[2]) if found else ("", "")
        if opened and not (opened[0] == "`" and "`" in information):
            fence, nested = opened, nested and (item is not None or line[0] in " \t")
            lines += [_plain(item[1], nested=True)] if item else []
            lines.append(f"{opened}{information}" if nested else line)
        else:
            lines.append(_plain(line, nested=nested))
    return "\n".join([*lines, fence] if fence else lines).rstrip(" ")


def _plain(line: str, *, nested: bool) -> str:
    if not line.strip():
        return line
    line = _FENCE_IN_QUOTATION.sub(r"\1\\", line.rstrip(), count=1)
    return (_MARKUP_WITHIN if nested else _MARKUP).sub(r"\1\\", line, count=1) + _BREAK
