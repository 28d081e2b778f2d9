"""Forms in which defects come: what people and tools do to a text, none of which the checks were written against."""

import random
from collections.abc import Callable
from typing import Any

Row = dict[str, Any]


def _turn(role: str, content: str) -> Row:
    return {"role": role, "content": content}


def repeated(rng: random.Random, row: Row, other: Row) -> Row:
    """A row whose one answer repeats what was asked last; ``other`` gives turns that stand before."""
    asked = row["prompt"]
    few = " ".join(asked.rstrip(".!?").split()[:3])
    bare = asked.rstrip(".!?")
    said: list[Callable[[], str]] = [
        lambda: asked,
        lambda: asked.upper(),
        lambda: f"{asked} {row['chosen']}",
        lambda: f"{bare} {row['chosen']}",
        lambda: f"{asked.replace(' ', '  ')}\n\n{row['chosen']}",
        lambda: f'You asked: "{asked}" {row["chosen"]}',
        lambda: f"{other['prompt']} \u00ab{bare}\u00bb {row['chosen']}",
        lambda: f"> {asked}\n\n{row['chosen']}",
        lambda: f"**{asked}**\n{row['chosen']}",
        lambda: f"Q: {asked.lower()}\nA: {row['chosen']}",
        lambda: f"\u200b{asked.replace(' ', chr(0xA0))} {row['chosen']}",
        lambda: asked.replace(" ", ", ", 3),
    ]
    side = rng.choice(["chosen", "rejected"])
    if rng.random() < 0.1:
        return {**row, "prompt": few + rng.choice(["", "?", "."]), side: few + rng.choice(["", "?", "!"])}
    spoilt = {**row, side: rng.choice(said)()}
    before: list[list[Row]] = [
        [],
        [_turn("system", other["chosen"])],
        [_turn("user", other["prompt"]), _turn("assistant", other["chosen"])],
        [_turn("system", "Be kind."), _turn("user", other["prompt"]), _turn("assistant", other["rejected"])],
    ]
    form = rng.randrange(6)
    if form < len(before):
        return {**spoilt, "prompt": [*before[form], _turn("user", asked)]}
    return {**spoilt, "system": other["chosen"]} if form == 4 else spoilt
