"""``preflow explain ERROR``: what an error means, its usual causes, and what to do.

The entries are those of ``troubleshooting.md`` beside this file, which the documentation shows as a page.
"""

import difflib
import re
from pathlib import Path
from typing import Annotated

import typer

from flows.running.terminal import clear_errors
from preflow.errors import ConfigError

#: One entry for each class of error, under a heading of its name.
PAGE = Path(__file__).with_name("troubleshooting.md")


def main(error: Annotated[str, typer.Argument(help="An error's name, as ConfigError.")]) -> None:
    """Print the entry of an error: what it means, its usual causes, what to do."""
    with clear_errors():
        name, text = entry(error)
    from rich.markdown import Markdown

    from preflow.console import TextConsole

    TextConsole().print(Markdown(f"## {name}\n{text}"))


def entry(error: str) -> tuple[str, str]:
    """An error's name and its entry, in Markdown.

    Args:
        error: Its name in any case, or the whole printed error.

    Raises:
        ConfigError: No error has this name.
    """
    _, *parts = re.split(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    entries = dict(zip(parts[::2], parts[1::2], strict=True))
    names = {name.lower(): name for name in entries}
    asked = error.partition(":")[0].strip().lower()
    if asked not in names:
        near = difflib.get_close_matches(asked, names, n=3) or names
        raise ConfigError(f"no error is called {error}: expected {', '.join(names[each] for each in near)}")
    return names[asked], entries[names[asked]].strip()
