"""Judges that come with Preflow: functions that run offline and are called what they are."""

import re

#: Words and phrases of courtesy, lower case.
_COURTESY = re.compile(
    r"\b(?:please|thank(?:s| you)|sorry|apolog(?:y|ies|ise|ize)|of course|certainly|glad|happy to|welcome|kindly)\b"
)


def courtesy(prompt: str, first: str, second: str) -> str:
    """The answer with more words of courtesy for its length wins. It reads nothing else and knows no facts."""
    shares = [len(_COURTESY.findall(text.lower())) / max(1, len(text.split())) for text in (first, second)]
    return "tie" if shares[0] == shares[1] else "first" if shares[0] > shares[1] else "second"
