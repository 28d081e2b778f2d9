"""Text read in a wrong encoding and invisible characters are distinguished from the world's scripts."""

import pytest

from preflow.data.quality.rows.encoding import has_control, has_mojibake
from preflow.data.text import is_blank, normalise, visible

WRITTEN = [
    "the caf\u00e9 is open",
    "a na\u00efve idea",
    "a trip to Z\u00fcrich",
    "cr\u00e8me br\u00fbl\u00e9e",
    "It\u2019s mine",
]
READ_AS = ["cp1252", "mac_roman", "cp437", "cp850", "gbk", "shift_jis", "koi8_r", "latin-1"]


@pytest.mark.parametrize("codec", READ_AS)
@pytest.mark.parametrize("text", WRITTEN)
def test_mojibake_is_seen_whatever_it_was_read_as(text: str, codec: str) -> None:
    assert has_mojibake(text.encode().decode(codec, "ignore"))


@pytest.mark.parametrize(
    "text",
    [
        *WRITTEN,
        "na\u00efve \u201c\u00c9tat\u201d \u00ab\u00c9cole\u00bb \u00d4 Canada",
        "K\u6b4c and T\u6064 today",
        "\u5361\u62c9OK\u5f88\u597d",
        "the \u6771\u4eac tower, JR\u6771\u65e5\u672c",
        "\u251c\u2500\u2500 src\n\u2502   \u2514\u2500\u2500 a.py",
        "\u221a2 \u2248 1.41, \u2206t \u2192 0, \u00ac\u2200x",
        "\u041f\u0440\u0438\u0432\u0435\u0442 world, hello \u043c\u0438\u0440",
        "\u0393(x) and \u03b1-helix, 5\u20ac\u20136\u20ac \u2026",
        "\uff83\uff7d\uff84test",
    ],
)
def test_the_scripts_of_the_world_are_no_mojibake(text: str) -> None:
    assert not has_mojibake(text)


@pytest.mark.parametrize(
    "char", ["\x00", "\x0c", "\x85", "\u202e", "\ufffd", "\ufffe", "\uffff", "\ue000", "\ufdd0", "\U0003ffff"]
)
def test_what_no_reader_sees_as_meant_is_a_control_character(char: str) -> None:
    assert has_control(f"a{char}b")


@pytest.mark.parametrize(
    "char", ["\n", "\t", "\r\n", "\u200f", "\u2067", "\u202b", "\u00e9", "\U0001f44d\U0001f3fd", "\u2028"]
)
def test_what_scripts_need_is_none(char: str) -> None:
    assert not has_control(f"a{char}b")


@pytest.mark.parametrize("char", list("\u3164\u2800\u115f\u1160\uffa0\ufe0f\u200b\u202a\u180e\u061c\u034f"))
def test_what_takes_no_room_is_blank_and_changes_nothing(char: str) -> None:
    assert is_blank(f" {char}{char}\n")
    assert not is_blank(f"{char}a")
    assert normalise(visible(f"{char}one two{char}")) == "one two"
