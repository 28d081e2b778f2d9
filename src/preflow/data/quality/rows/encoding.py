"""Text that is not what was written: characters that no reader sees as meant, and text read in a wrong encoding."""

import re

#: Control characters but tab and line ends, overrides of the writing direction, U+FFFD, and code points that are no
#: characters or mean something in one font alone.
_CONTROL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202d\u202e\ue000-\uf8ff\ufdd0-\ufdef\ufffd-\uffff\U000f0000-\U0010ffff"
    + "".join(chr(plane + 0xFFFE) + chr(plane + 0xFFFF) for plane in range(0x10000, 0xF0000, 0x10000))
    + "]"
)
#: UTF-8 that was read as Windows-1252, Latin-1 or Windows-1251 shows as a lead byte's letter and a trail byte's sign;
#: as Mac Roman or an IBM code page, as a lead byte's sign and anything but ASCII.
_SIGNS = re.compile(
    "[\u00c2-\u00f4\u0420\u0421\u0413\u0432][\u0080-\u00bf\u20ac\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039"
    "\u0152\u017d\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\u017e\u0178\u0400-\u040f\u0450-\u045f\u0490\u0491]"
    "|[\u00ac\u221a\u0192\u2248\u201a\u2206\u252c\u251c\u2500\u253c\u0393\u00d4][^\x00-\x7f]"
)
#: As GBK, Big5, Shift JIS or KOI8-R it shows as strangers inside a Latin word, or as what dashes and quotes become.
_STRANGE = (
    "[\u0430-\u044f\u0410-\u042f\u0401\u0451\u2500-\u25a0\u4e00-\u9fff\uff61-\uff9f\u0393\u00c2-\u00ff\u00a0-\u00bf]"
)
_IN_WORD = re.compile(f"[A-Za-z]({_STRANGE}{{1,6}})|({_STRANGE}{{1,6}})[A-Za-z]")
_BEFORE_IN_WORD = re.compile("[\u0410-\u044f\u2500-\u25a0\u4e00-\u9fff\uff61-\uff9f]")
_QUOTES = re.compile("(?:[\u9225\u7ab6]|\u0393\u00c7|\u00d4\u00c7|\u0411\u2500)[^\x00-\x7f]?")
_CODECS = ("gbk", "big5", "shift_jis", "cp437", "cp850", "koi8_r")
#: Different strangers that are removed one by one wherever they stand; others are removed inside words alone.
_REMOVED = 64
#: Share of a text's letters that are Latin where those of other scripts are strangers.
_LATIN = 0.8


def has_control(text: str) -> bool:
    """Whether the text holds characters that no reader sees as meant (tab and line ends apart)."""
    return (not text.isprintable() and _CONTROL.search(text) is not None) or "\ufffd" in text


def has_mojibake(text: str) -> bool:
    """Whether the text was once read in a wrong encoding; ftfy decides where a quick look finds a sign of it.

    ftfy 6.3 does not know the encodings of East Asia nor all IBM code pages: those are tried here.
    """
    if text.isascii():
        return False
    if _SIGNS.search(text) is not None:
        import ftfy

        if ftfy.fix_encoding(text) != text or _read_in_another(text):
            return True
    return _BEFORE_IN_WORD.search(text) is not None and _read_in_another(text)


def _read_in_another(text: str) -> bool:
    """Whether a Latin text holds strangers that are the bytes of accented letters, dashes or quotes."""
    strangers = [run for match in _IN_WORD.finditer(text) if _is_latin(run := match[1] or match[2])]
    strangers += _QUOTES.findall(text)
    if not strangers:
        return False
    runs = list(dict.fromkeys(strangers))
    for run in runs[:_REMOVED]:
        text = text.replace(run, "")
    if rest := frozenset(runs[_REMOVED:]):  # each would cost another look at the whole text
        text = _IN_WORD.sub(lambda match: "" if (match[1] or match[2]) in rest else match[0], text)
    letters = [char for char in text if char.isalpha()]
    return sum(char < "\u0250" for char in letters) >= _LATIN * len(letters)


def _is_latin(run: str) -> bool:
    """Whether the bytes of a run in some encoding are accented Latin letters or signs in UTF-8."""
    return any(_decodes(run, codec) for codec in _CODECS)


def _decodes(run: str, codec: str) -> bool:
    try:
        found = run.encode(codec).decode("utf-8")
    except UnicodeError:
        return False
    return all("\u00a0" <= char < "\u0180" or "\u2010" <= char <= "\u2044" for char in found)
