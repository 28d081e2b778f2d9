"""What a model card says of the time after its run: human reviews and decisions, which come when it is written.

They follow a mark, so that they are replaced as a whole and the model card before it stays the same bytes.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from preflow.review.record import HumanReview

#: Ends what the run itself wrote.
_AFTER = "\n<!-- after the run -->\n\n"
#: Characters of a description that every database of MLflow keeps.
LONGEST = 5000


def with_sections(card: str, sections: str) -> str:
    """A model card with these sections in place of those that it had.

    Args:
        card: The model card, with or without such sections.
        sections: As ``later_sections`` gives them.
    """
    own = card.rpartition(_AFTER)[0] or card
    return f"{own}{_AFTER}{sections}" if sections else own


def later_sections(reviews: Sequence[HumanReview], decisions: Sequence[Mapping[str, Any]]) -> str:
    """Human reviews and decisions in Markdown; empty where there are none.

    Args:
        reviews: Those of the run, oldest first.
        decisions: Those on its model as JSON values, oldest first.
    """
    lines: list[str] = []
    if reviews:
        lines += ["## Human review", "", *map(_review, reviews), ""]
    if decisions:
        lines += ["## Decisions", "", *(line for each in decisions for line in _decision(each)), ""]
    return "\n".join(lines)


def _review(review: HumanReview) -> str:
    new, old = review.models
    if review.interval is None:
        return f"- Review {review.review}, {new.name} against {old.name}: no win rate. {review.reason}"
    rate = review.interval
    return (
        f"- Review {review.review}: win rate of {new.name} over {old.name} {rate.value:.4f} [{rate.low:.4f}, "
        f"{rate.high:.4f}] on {len(review.prompt_ids)} prompts{'' if review.counts else '; it does not count: '}"
        f"{review.reason}"
    )


def _decision(decision: Mapping[str, Any]) -> Iterable[str]:
    chosen, champion = decision["chosen"], decision["champion"]
    version = f" version {chosen['version']}" if chosen else ""
    before = f", champion before: version {champion['version']}" if champion else ""
    by = f"; {decision['by']} ({decision['identity']}): {decision['reason']}" if decision["by"] else ""
    yield f"- Decision {decision['number']}, {decision['at'][:10]}:{version} {decision['outcome']}{before}{by}"
    yield from (f"  - {' '.join(str(reason).split())}" for reason in decision["reasons"])


def version_description(card: str) -> str:
    """What a registered version shows: the model card without its front matter, which MLflow would print.

    Of a model card that is too long the middle is left out: its beginning, reviews and the last decisions stay.
    """
    front, mark, rest = card.partition("\n---\n")
    text = (rest if mark and front.startswith("---\n") else card).strip()
    if len(text) <= LONGEST:
        return text
    own, _, later = text.partition(_AFTER)
    cut = "\n\n(The file model_card.md of the run has all of it.)\n\n"
    later = later.strip()[-(LONGEST // 2) :] if later else ""
    if later and not later.startswith("#"):
        later = later.partition("\n")[2]  # from the first whole line on
    return f"{own.strip()[: LONGEST - len(cut) - len(later)]}{cut}{later}".strip()
