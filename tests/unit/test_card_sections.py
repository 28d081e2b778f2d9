"""What a model card says of the time after its run: replaced as a whole, and kept where a description must be short."""

from typing import Any

from preflow.card_sections import LONGEST, later_sections, version_description, with_sections
from preflow.review.record import HumanReview

CARD = "---\nlibrary_name: peft\n---\n\n# polite\n\nText.\n"


def decision(number: int, **changes: Any) -> dict[str, Any]:
    values = {
        "number": number,
        "at": "2026-11-30T10:00:00+00:00",
        "outcome": "promoted",
        "chosen": {"version": 2},
        "champion": {"version": 1},
        "by": "Ada",
        "identity": "declared",
        "reason": "better",
        "reasons": ["gain +0.65\nof 20", "guard kl: 1, limit 10"],
    }
    return {**values, **changes}


def review(**changes: Any) -> HumanReview:
    models = [{"name": "dpo", "run": "r", "digest": "1"}, {"name": "sft", "run": "r", "digest": "2"}]
    rows = [{"prompt_id": "a", "cluster": "a", "score": 1.0}]
    rate = {"value": 0.75, "low": 0.5, "high": 1.0}
    found = {"review": 1, "against": "sft", "models": models, "rows": rows, "win_rate": rate, "p": 0.5}
    return HumanReview.of({**found, "reason": "", "warnings": [], **changes})


def test_decisions_and_reviews_are_named_with_what_they_rest_on() -> None:
    text = later_sections([review()], [decision(1), decision(2, champion=None, by="", outcome="refused")])
    assert text.splitlines() == [
        "## Human review",
        "",
        "- Review 1: win rate of dpo over sft 0.7500 [0.5000, 1.0000] on 1 prompts",
        "",
        "## Decisions",
        "",
        "- Decision 1, 2026-11-30: version 2 promoted, champion before: version 1; Ada (declared): better",
        "  - gain +0.65 of 20",
        "  - guard kl: 1, limit 10",
        "- Decision 2, 2026-11-30: version 2 refused",
        "  - gain +0.65 of 20",
        "  - guard kl: 1, limit 10",
    ]
    assert "no win rate. too few" in later_sections([review(win_rate=None, reason="too few")], [])


def test_sections_are_replaced_as_a_whole_and_what_is_before_them_stays_the_same_bytes() -> None:
    once = with_sections(CARD, later_sections([], [decision(1)]))
    twice = with_sections(once, later_sections([], [decision(1), decision(2)]))
    assert twice.startswith(CARD)
    assert twice.count("Decision 1,") == 1
    assert "Decision 2," in twice
    assert with_sections(twice, "") == with_sections(CARD, "") == CARD


def test_a_description_that_must_be_short_keeps_its_beginning_and_the_last_decisions() -> None:
    many = [decision(number) for number in range(1, 60)]
    text = version_description(with_sections(CARD + "word " * 2000, later_sections([], many)))
    assert len(text) <= LONGEST
    assert text.startswith("# polite")
    assert "model_card.md of the run has all of it" in text
    assert "Decision 59," in text
    assert "Decision 1," not in text
    assert version_description(CARD) == "# polite\n\nText."
