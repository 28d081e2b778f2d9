"""A small table of English words that say the same in nearly every short answer, and words that add nothing.

Written by hand for ``no_clear_winner``. A word belongs here only where putting one for the other changes no fact:
colours, names, numbers and degrees do not. Each group is one meaning; its forms are
made alike (``bigger``/``larger``).
"""

import re

_ADJECTIVES = """
beautiful pretty lovely gorgeous|big large|quick fast rapid speedy|glad happy joyful|smart clever intelligent bright
small little|difficult tough challenging|easy simple effortless|great excellent wonderful fantastic superb terrific
tasty delicious yummy|scary frightening|sad unhappy|angry mad furious|tired exhausted weary|rich wealthy|ill sick
strange odd weird peculiar|famous renowned|calm peaceful tranquil|funny humorous amusing|loyal faithful
important significant crucial|correct right accurate|wrong incorrect|silent quiet|huge enormous gigantic
tiny minuscule|interesting fascinating|boring dull tedious|brave courageous|polite courteous|enough sufficient
kind nice friendly|helpful useful|clean spotless|bad poor|awful terrible dreadful horrible|elegant graceful|entire whole
"""
_NOUNS = """
car automobile|movie film|kid child|shop store|home house|doctor physician|picture image|street road|error mistake
job task|student pupil|lawyer attorney|pal friend|gift present|trip journey|buyer customer|ocean sea|stone rock
sofa couch|infant baby|rubbish garbage trash|aid help assistance|method way|issue problem|reply answer response
"""
_VERBS = """
begin start commence|help aid assist|buy purchase|end finish conclude|look appear seem|like enjoy love|require need
speak talk|shut close|choose select pick|improve better boost|repair fix|allow permit let|keep retain|ask inquire
occur happen|get obtain receive|try attempt|say state|show display|build construct|use employ utilize|jump leap
reply respond
"""
_OTHER = """
children kids|bought purchased|began started commenced|spoke talked|said stated|got obtained received
chose selected picked|built constructed|shut closed|kept retained|hi hello hey|sure certainly|can may
somebody someone|everybody everyone|nobody none|often frequently|maybe perhaps|nearly almost|also too|called known
thanks thank|ok okay|anyone anybody
many numerous|quickly fast rapidly|about around approximately roughly|since because|however but
mum mom mother|dad father|till until|towards toward|amid among
"""
#: Words that an answer may have or lack and still say the same.
FILLERS = frozenset(
    (  # noqa: SIM905
        "a an the our very really quite so just also too rather indeed truly simply it its this that well then "
        "actually your of"
    ).split()
)
_FRAME = FILLERS | frozenset(
    (  # noqa: SIM905
        "is are be was answer result solution sum total value number equals equal = makes make gives give get you we i "
        "of price cost costs time clock o therefore thus hence final there have has think comes to in"
    ).split()
)
NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        (  # noqa: SIM905
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
            "seventeen eighteen nineteen twenty"
        ).split()
    )
} | {
    word: f"{ten}0"
    for ten, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)  # noqa: SIM905
}
#: ``big``, ``stop``: their last letter is doubled before an ending that begins with a vowel.
_SHORT_VOWEL = re.compile("[^aeiou]*[aeiou][^aeiouwxy]")


def _ending(word: str, ending: str) -> str:
    """A word with an ending, as English mostly writes it."""
    if ending in {"er", "est", "ed", "ly", "s"} and len(word) > 2 and word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + {"er": "ier", "est": "iest", "ed": "ied", "ly": "ily", "s": "ies"}[ending]
    if ending in {"er", "est", "ed", "ing"} and word.endswith("e"):
        return word[:-1] + ending
    if ending in {"er", "est", "ed", "ing"} and _SHORT_VOWEL.fullmatch(word):
        return word + word[-1] + ending
    if ending == "s" and word.endswith(("s", "sh", "ch", "x")):
        return word + "es"
    return word + ending


def with_endings(word: str, endings: tuple[str, ...]) -> list[str]:
    """The forms of a word."""
    return [_ending(word, ending) for ending in endings]


def _table() -> dict[str, str]:
    """Each word to the first of its meaning."""
    found: dict[str, str] = {}
    forms = (
        (_ADJECTIVES, ("", "er", "est", "ly")),
        (_NOUNS, ("", "s")),
        (_VERBS, ("", "s", "ed", "ing")),
        (_OTHER, ("",)),
    )
    for lines, endings in forms:
        for line in lines.replace("\n", "|").split("|"):
            words = line.split()
            for ending in endings if words else ():
                first = _ending(words[0], ending)
                for word in words:
                    found.setdefault(_ending(word, ending), found.get(first, first))
    return found


MEANING = _table()
#: Words around the number that an answer is about.
FRAME = frozenset(MEANING.get(word, word) for word in _FRAME)
