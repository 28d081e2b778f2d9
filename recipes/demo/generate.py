"""Write the demo data: demonstrations, preference pairs and held-out preference pairs.

    python recipes/demo/generate.py            rewrites the three files, byte for byte the same
    python recipes/demo/generate.py --check    exits 1 if the files differ from what it would write

The subject is customer support. What is said lives in content/ (see its README); this script only
puts it together: for each topic it draws distinct customer messages, and to each a helpful answer
(a concrete step, and what happens then) and an equally long evasive one (a step that leads nowhere,
and an excuse), or, for the demonstrations, a correct answer of uneven tone as a support log would
have it. Chosen and rejected are worded by the same phrases, drawn alike: no opening, word or tone
gives the label away, only what is said helps or does not.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

import yaml
from checks import LENGTH_BAND, RUN, SHINGLE, Row, check_all, normalised, runs, size

HERE = Path(__file__).resolve().parent
SEED = 23
DEMONSTRATIONS_PER_TOPIC = 12  # 612: more than 500 beside the tenth that is held out
PREFERENCES_PER_TOPIC = 10  # 510
HELD_OUT_PER_TOPIC = 10
TRIES = 10_000  # before giving up on a message
FRESH = 0.78  # the largest overlap of two answers, a little under the limit of checks.py
HELD_OUT = "preferences_heldout.jsonl"
SIZES = range(25, 46)  # tokens of an answer
TONES = {"warm": 2, "plain": 3, "brusque": 5}  # shares of the demonstrations
PLAIN_PROMPTS = 0.55  # share of the messages with neither greeting nor ending

SLOTS = {  # slot of a phrase: list of the topic, and its letter in the notes behind a message
    "worry": ("worries", "w"),
    "step": ("steps", "s"),
    "next": ("nexts", "n"),
    "shrug": ("shrugs", "r"),
}

Content = dict[str, list[str]]


@dataclass(frozen=True)
class Message:
    """What a customer writes, the thing it is about, and the topic's entries that fit."""

    prompt: str
    thing: str
    fitting: Content


@dataclass
class Writer:
    """One part of the data (training or held-out): its phrases, its topics, its memory."""

    phrases: Content
    topics: dict[str, Content]
    rng: random.Random
    used: set[str] = field(default_factory=set)
    said: list[set[tuple[str, ...]]] = field(default_factory=list)

    def text(self, phrase: str, **slots: str) -> str:
        """Fill the slots, pick one of each (a|b), capitalise the sentences."""
        filled = Template(Template(phrase).substitute(slots)).safe_substitute(slots)
        picked = re.sub(r"\(([^()]*)\)", lambda m: self.rng.choice(m[1].split("|")), filled)
        picked = re.sub(r"\b([Aa]) (?=[aeio])", r"\1n ", picked)
        return re.sub(r"(^|[.!?] )([a-z])", lambda m: m[1] + m[2].upper(), picked)

    def pick(self, name: str) -> str:
        """A random phrase of one kind."""
        return self.rng.choice(self.phrases[name])

    def messages(self, topic: Content) -> Iterator[Message]:
        """Distinct customer messages about one topic."""
        pairs = list(itertools.product(topic["asks"], topic["things"]))
        self.rng.shuffle(pairs)
        for ask, thing in pairs:
            wording, fitting = annotated(ask, topic)
            prompt = self.dressed(self.text(wording, thing=thing))
            if normalised(prompt) not in self.used:
                self.used.add(normalised(prompt))
                yield Message(prompt, thing, fitting)

    def dressed(self, prompt: str) -> str:
        """The message as it is, or with a greeting before it or an ending behind it."""
        if self.rng.random() < PLAIN_PROMPTS:
            return prompt
        if self.rng.random() < 0.4:
            return f"{self.pick('greetings')} {prompt}"
        return f"{prompt} {self.pick('endings')}"

    def slots(self, message: Message) -> dict[str, str]:
        """One draw of everything there is to say about a message."""
        drawn = {slot: self.rng.choice(message.fitting[slot]) for slot in SLOTS}
        return drawn | {"thing": message.thing}

    def answer(self, message: Message, step: str, clause: str) -> str:
        """Kind words before or behind or both, a step, and mostly a clause: the same phrases for both sides."""
        ack, end = self.pick("acks"), self.pick("closers")
        core = [self.pick("step_frames"), self.pick("clause_frames")]
        parts = self.rng.choice([[ack, *core], [ack, *core, end], [*core, end], [ack, core[0], end]])
        return self.text(" ".join(parts), **self.slots(message) | {"step": step, "clause": clause})

    def helpful(self, message: Message) -> str:
        """A concrete step and what happens then."""
        drawn = self.slots(message)
        return self.answer(message, drawn["step"], drawn["next"])

    def evasive(self, message: Message) -> str:
        """A step that leads nowhere and an excuse."""
        return self.answer(message, self.pick("vague_steps"), self.slots(message)["shrug"])

    def logged(self, message: Message) -> str:
        """A past answer: right, but warm, plain or brusque as it happened to be."""
        (tone,) = self.rng.choices(list(TONES), list(TONES.values()))
        return self.text(self.pick(tone), **self.slots(message))

    def fresh(self, text: str) -> bool:
        """Whether nothing written so far is nearly this text."""
        new = runs(text, SHINGLE)
        return all(len(new & old) <= FRESH * len(new | old) for old in self.said)

    def remember(self, *texts: str) -> None:
        """Note what was written, for `fresh`."""
        self.said.extend(runs(text, SHINGLE) for text in texts)

    def pair(self, message: Message, tilt: int) -> tuple[str, str]:
        """A helpful and an evasive answer; the sign of `tilt` says which is longer."""
        for _ in range(TRIES):
            chosen = self.helpful(message)
            rejected = self.evasive(message)
            gap = size(chosen) - size(rejected)
            fits = 0 < gap * tilt <= LENGTH_BAND / 2 * min(size(chosen), size(rejected))
            in_range = size(chosen) in SIZES and size(rejected) in SIZES
            apart = not runs(chosen, RUN) & runs(rejected, RUN)
            if fits and in_range and apart and self.fresh(chosen) and self.fresh(rejected):
                self.remember(chosen, rejected)
                return chosen, rejected
        raise ValueError(f"no new pair for {message.prompt!r}: write more phrases or topics")

    def demonstration(self, message: Message) -> str:
        """A past answer of the right length that was not given before."""
        for _ in range(TRIES):
            answer = self.logged(message)
            if size(answer) in SIZES and self.fresh(answer):
                self.remember(answer)
                return answer
        raise ValueError(f"no new answer for {message.prompt!r}: write more phrases or topics")


def annotated(ask: str, topic: Content) -> tuple[str, Content]:
    """Split "words [s1 s3 n2]": only steps 1 and 3 and the second "next" fit these words."""
    wording, _, notes = ask.partition(" [")
    fitting: Content = {}
    for slot, (name, letter) in SLOTS.items():
        places = re.findall(rf"{letter}(\d)", notes)
        fitting[slot] = [topic[name][int(place) - 1] for place in places] or topic[name]
    return wording, fitting


def load(folder: Path, seed: int) -> Writer:
    """The phrases and topics of one folder of content/."""
    phrases: Content = yaml.safe_load((folder / "phrases.yaml").read_text("utf-8"))
    topics: dict[str, Content] = {}
    for path in sorted(folder.glob("*.yaml")):
        if path.name != "phrases.yaml":
            topics |= yaml.safe_load(path.read_text("utf-8"))
    return Writer(phrases, topics, random.Random(seed))


def write_rows(writer: Writer, demonstrations: int, preferences: int) -> tuple[list[Row], list[Row]]:
    """So many demonstrations and preference pairs for each topic, shuffled."""
    logs: list[Row] = []
    pairs: list[Row] = []
    for topic in writer.topics.values():
        messages = writer.messages(topic)
        for message in itertools.islice(messages, demonstrations):
            logs.append({"prompt": message.prompt, "completion": writer.demonstration(message)})
        for message in itertools.islice(messages, preferences):
            chosen, rejected = writer.pair(message, 1 if len(pairs) % 2 else -1)
            pairs.append({"prompt": message.prompt, "chosen": chosen, "rejected": rejected})
    writer.rng.shuffle(logs)
    writer.rng.shuffle(pairs)
    return logs, pairs


def generate() -> dict[str, list[Row]]:
    """All files by name, checked."""
    training = load(HERE / "content" / "train", SEED)
    logs, pairs = write_rows(training, DEMONSTRATIONS_PER_TOPIC, PREFERENCES_PER_TOPIC)
    held_out = load(HERE / "content" / "heldout", SEED + 1)
    _, unseen = write_rows(held_out, 0, HELD_OUT_PER_TOPIC)
    files = {"demonstrations.jsonl": logs, "preferences.jsonl": pairs, HELD_OUT: unseen}
    check_all(files, HELD_OUT)
    return files


def as_text(rows: list[Row]) -> str:
    """The rows as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def main() -> int:
    """Write the files, or with --check say which differ."""
    parser = argparse.ArgumentParser(description="Write the demo data.")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check: bool = parser.parse_args().check
    stale: list[str] = []
    for name, rows in generate().items():
        path, new = HERE / name, as_text(rows).encode("utf-8")
        if check and not (path.exists() and path.read_bytes() == new):
            stale.append(name)
        if not check:
            path.write_bytes(new)
            print(f"{name}: {len(rows)} rows")
    for name in stale:
        print(f"{name} differs: run python recipes/demo/generate.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
