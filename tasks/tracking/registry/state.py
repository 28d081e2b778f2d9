"""A registered model as people ask for it: versions, aliases, decisions, and what does not agree."""

from preflow.config.base import Frozen
from tasks.tracking.registry.decisions import MOVING, Decision, Record, followed
from tasks.tracking.registry.moves import one_at_a_time
from tasks.tracking.registry.recovery import recover
from tasks.tracking.registry.versions import CHALLENGER, CHAMPION, PREVIOUS, RegisteredModel, read_model, variants


class State(Frozen):
    """What MLflow has of a registered model."""

    model: RegisteredModel
    decisions: tuple[tuple[Record, Decision], ...]
    """Those that count, oldest first."""
    breaks: tuple[str, ...] = ()
    """Decisions that are missing or were changed, and that no later decision records."""
    problems: tuple[str, ...] = ()
    """Those, or where the champion's alias, the versions and the decisions do not agree, each with its remedy."""
    remarks: tuple[str, ...] = ()
    """Names that are easily taken for others, and breaks that a rollback recorded."""
    recovered: tuple[str, ...] = ()
    """What was finished or undone of interrupted decisions."""

    @property
    def deciding(self) -> Decision | None:
        """The last decision that moved the champion."""
        return next((each for _, each in reversed(self.decisions) if each.outcome in MOVING), None)


def read_state(name: str) -> State:
    """A registered model with its decisions; those that were interrupted are finished or undone first.

    Raises:
        PromotionError: There is no such model.
    """
    read_model(name)  # a name that is not there has no lock either
    with one_at_a_time(name):
        recovered = recover(name)
        model, found = read_model(name), followed(name)
    known = [f"recorded by a rollback: {each}" for each in found.recorded]
    state = State(
        model=model,
        decisions=found.links,
        breaks=found.breaks,
        remarks=(*_remarks(model), *known),
        recovered=tuple(recovered),
    )
    anew = f"or begin anew by preflow rollback {name} --to VERSION --reason TEXT, which records it"
    broken = [f"{each}, {anew}" for each in state.breaks]
    return state.model_copy(update={"problems": tuple(broken or disagreements(state))})


def disagreements(state: State) -> list[str]:
    """Where the champion's alias, the versions and the decisions do not agree, each with its remedy."""
    model, last = state.model, state.deciding
    expected = last.chosen.version if last is not None and last.chosen is not None else None
    now = model.aliases.get(CHAMPION)
    record = f"record it by preflow rollback {model.name} --to {now} --reason TEXT"
    found = []
    if expected is not None and model.version(expected) is None:
        found.append(
            f"version {expected}, the champion since decision {last.number if last else 0}, was deleted, and its alias "
            f"with it: preflow rollback {model.name} --to VERSION --reason TEXT makes another the champion"
        )
    elif now != expected:
        since = f"decision {last.number} says version {expected}" if last is not None else "no decision made one"
        is_now = "is not set" if now is None else f"is version {now}"
        undo = f"restore it by preflow rollback {model.name} --to {expected} --reason TEXT"
        remedy = undo if now is None else record if expected is None else f"{record}, or {undo}"
        found.append(f"the alias {CHAMPION} was moved by hand: it {is_now}, but {since}; {remedy}")
    there = model.version(expected)
    decided = last.chosen.artifact_digest if last is not None and last.chosen is not None else None
    if there is not None and there.artifact_digest != decided:
        by = last.number if last is not None else 0
        found.append(
            f"version {expected} has the digest {there.artifact_digest or 'none'}, but decision {by} says {decided}: "
            "its tag artifact_digest was edited; set it back, or make another version the champion by preflow rollback "
            f"{model.name} --to VERSION --reason TEXT"
        )
    return found


def _remarks(model: RegisteredModel) -> list[str]:
    aliases = [each for each in sorted(model.aliases) if each != each.casefold()]
    return [
        *(
            f"'{each}' is another alias than '{each.casefold()}', and no decision moves it: delete it"
            for each in aliases
            if each.casefold() in (CHAMPION, CHALLENGER, PREVIOUS)
        ),
        *(
            f"'{each}' is another registered model, whose name differs in case alone: give one of them up"
            for each in variants(model.name)
        ),
    ]
