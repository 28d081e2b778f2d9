"""Prompts that differ by a slip of the hand are one; prompts of one template that differ in a word are not."""

import pytest

from preflow.data.quality.sets.similarity import prompt_similarity, text_similarity
from preflow.data.quality.wording.typos import unwrap

TEMPLATE = "Please write a short but complete explanation of the topic of {}, with examples where they help."


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("photosynthesis", "photosyntesis"),
        ("photosynthesis", "hpotosynthesis"),
        ("photosynthesis", "photosinthesis"),
        ("photo synthesis", "photosynthesis"),
        ("cats", "cat"),
        ("colour", "color"),
        ("centre", "center"),
        ("a cat", "A  CAT!"),
    ],
)
def test_slips_leave_a_prompt_what_it_is(left: str, right: str) -> None:
    assert prompt_similarity(TEMPLATE.format(left), TEMPLATE.format(right)) >= 0.97
    assert prompt_similarity(TEMPLATE.format(right), TEMPLATE.format(left)) >= 0.97


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("gravity", "entropy"),
        ("Iran", "Iraq"),
        ("cats", "rats"),
        ("Austria", "Australia"),
        ("legal work", "illegal work"),
        ("what is possible", "what is impossible"),
        ("vitamin C", "vitamin D"),
        ("12 cats", "13 cats"),
        ("war", "war and peace"),
        ("leaves before rain", "leaves after rain"),
    ],
)
def test_another_word_makes_another_prompt(left: str, right: str) -> None:
    assert prompt_similarity(TEMPLATE.format(left), TEMPLATE.format(right)) == 0


def test_a_letter_lost_at_the_beginning_of_a_word_counts_as_one() -> None:
    """Among sorted words the word moves; in the order they were written it stays."""
    text = "zebra apple mango lemon berry grape melon peach plums dates olive"
    assert text_similarity(text, text[1:]) == pytest.approx(1 - 1 / (2 * len(text) - 1))


@pytest.mark.parametrize(
    "text",
    [
        "Question: {}\nAnswer:",
        "Q: {} A:",
        "Problem 3: {}\n\nSolution:",
        "Human: {}\n\nAssistant:",
        "Please solve this problem: {}",
        "Answer the following math question: {}",
        "{} Let's think step by step.",
        "Below is an instruction that describes a task.\n\n### Instruction: {}",
        "{}",
    ],
)
def test_labels_around_a_question_are_taken_off(text: str) -> None:
    assert unwrap(text.format("How far: is it?")) == "How far: is it?"


@pytest.mark.parametrize("text", ["Recipe: cake", "Question:", "Name each step", "To do: answer: now"])
def test_a_prompt_without_labels_stays(text: str) -> None:
    assert unwrap(text) == text


@pytest.mark.parametrize("end", ["y:", "step", "answer", "y: z"])
def test_any_number_of_blanks_is_read_at_once(end: str) -> None:
    """With a search that begins anew at every blank, 20,000 of them would take days."""
    text = "question" + " " * 20_000 + end
    assert unwrap(text) == text
    assert unwrap("How far is it?" + " " * 20_000 + "The final\n\n answer **:") == "How far is it?"


def test_a_word_of_any_length_is_compared_at_once() -> None:
    long = "a" * 300_000
    assert prompt_similarity(f"{long} b", f"{long} c") == 0
    assert prompt_similarity(f"{long}b c d", f"{long} c d") > 0.99


def test_texts_that_differ_in_more_words_than_a_hand_slips_are_not_alike() -> None:
    many = [f"word{letter}{number}" for number in "abcdefghij" for letter in "klmnopqrstuvw"]
    assert prompt_similarity(" ".join(many), " ".join(f"{word}s" for word in many)) == 0
