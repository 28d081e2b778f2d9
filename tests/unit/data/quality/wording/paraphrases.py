"""Answers written twice for one prompt, each by itself: the same in other words, and things that only look so.

The lists of words in ``antonyms`` and ``paraphrase`` were made with one half in view; the
other half was held back.
"""

import json
from pathlib import Path

PAIRS: list[dict[str, str]] = [
    json.loads(line) for line in Path(__file__).with_name("paraphrases.jsonl").read_text(encoding="utf-8").splitlines()
]
SEEN, HELD_BACK = PAIRS[0::2], PAIRS[1::2]
