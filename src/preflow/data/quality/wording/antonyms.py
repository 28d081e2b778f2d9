"""Pairs of words of which one excludes the other, however near their meanings are: a table made by hand.

Vectors of words put *rise* beside *fall* and *Monday* beside *Tuesday*, since both occur in the same sentences. Two
answers of which one has a word of one side and the other a word of another side are no paraphrases. The table is
``antonyms.txt``.
"""

from preflow.data.quality.wording.synonyms import ENDINGS, MEANING, table_lines, with_endings


def _table() -> dict[str, tuple[tuple[int, int], ...]]:
    """Each word to its groups, and its side in each."""
    found: dict[str, set[tuple[int, int]]] = {}
    for group, (part_of_speech, line) in enumerate(table_lines("antonyms.txt")):
        for side, words in enumerate(line.split("|")):
            for word in words.split():
                for form in with_endings(word, ENDINGS[part_of_speech]):
                    found.setdefault(MEANING.get(form, form), set()).add((group, side))
    return {word: tuple(sorted(places)) for word, places in found.items()}


_PLACES = _table()
#: Prefixes that turn a word into its opposite: *legal*, *illegal*.
_NEGATING_PREFIXES = ("un", "in", "im", "il", "ir", "dis", "non", "mis")


def exclude_each_other(left: set[str], right: set[str]) -> bool:
    """Whether a word of the one set and a word of the other are on different parts of a group.

    Args:
        left: Words of one text alone, each replaced by the word of its meaning (``synonyms.MEANING``).
        right: Words of the other text alone.
    """
    for words, others in ((left, right), (right, left)):
        if any(f"{prefix}{word}" in others for word in words for prefix in _NEGATING_PREFIXES):
            return True
        if any(word.endswith("ful") and f"{word[:-3]}less" in others for word in words):
            return True
    ours, theirs = ({place for word in words for place in _PLACES.get(word, ())} for words in (left, right))
    groups = {group for group, _ in ours} & {group for group, _ in theirs}
    # A text that has words of several parts of a group is about both.
    return any(
        {side for of, side in ours if of == group}.isdisjoint(side for of, side in theirs if of == group)
        for group in groups
    )
