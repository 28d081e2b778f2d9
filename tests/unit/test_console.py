"""What is printed is text: a terminal obeys none of it."""

import io

from rich.table import Table

from preflow.console import TextConsole


def test_escape_sequences_are_shown_in_lines_titles_and_cells() -> None:
    out = io.StringIO()
    console = TextConsole(file=out, width=100, force_terminal=True)
    table = Table(title="a\x1b]0;PWNED\x07")
    table.add_column("head\x9b31m")
    table.add_row("cell\x1b[31m\u202e")
    console.print("line\x1b[2J", markup=False, style="red")
    console.print(table)
    text = out.getvalue()
    for shown in ("line\\x1b[2J", "a\\x1b]0;PWNED", "head\\x9b", "cell\\x1b"):
        assert shown in text
    assert "\x1b[31mline" in text  # its own colours
    for obeyed in ("\x1b[2J", "\x1b]0", "\x07", "\x9b", "\u202e"):
        assert obeyed not in text
