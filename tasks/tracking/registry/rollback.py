"""Making an earlier version the champion again: no evidence is asked for, a reason and whole files are."""

from preflow.errors import PromotionError
from tasks.tracking.client import NOT_THERE, client
from tasks.tracking.registry.decisions import Decision, Draft, Place
from tasks.tracking.registry.moves import take
from tasks.tracking.registry.signature import signed
from tasks.tracking.registry.state import State, read_state
from tasks.tracking.registry.versions import CHAMPION, PREVIOUS, Version


def roll_back(name: str, to: int | None, by: str, reason: str) -> tuple[Decision, str | None]:
    """Make a version the champion, after its files were held to their digests.

    Args:
        name: The registered model's name.
        to: The version; that of the alias ``previous`` where not given.
        by: Who decides.
        reason: Why.

    Returns:
        The decision, and sentences on what could not be checked or renewed, where there is such.

    Raises:
        PromotionError: There is no such version, it is what the decisions call champion already, or it was changed.
        ChampionChangedError: Another decision came first.
    """
    state = read_state(name)
    target = _target(state, to)
    said: list[str] = []
    now = state.model.aliased(CHAMPION)
    draft = Draft(
        model=name,
        outcome="rolled_back",
        champion=None if now is None else _place(now),
        chosen=_place(target),
        reasons=(f"version {target.number} becomes the champion: {reason}",),
    )
    decision = take(signed(draft, by, reason), _experiment(state, target), said.append)
    return decision, "\n".join(said) or None


def _experiment(state: State, target: Version) -> str:
    """The experiment of a version's run; that of the last decision where the run is gone."""
    from mlflow.exceptions import MlflowException

    store, last = client(), [record.run_id for record, _ in state.decisions[-1:]]
    for run_id in (target.run_id, *last):
        try:
            return str(store.get_run(run_id).info.experiment_id)
        except MlflowException as error:
            if error.error_code not in NOT_THERE:
                raise
    raise PromotionError(
        f"version {target.number} of {state.model.name} has no run in MLflow any more ({target.run_id or 'none'}), so "
        "its files are gone: name another by --to VERSION"
    )


def _place(version: Version) -> Place:
    return Place(version=version.number, artifact_digest=version.artifact_digest, run_id=version.run_id)


def _target(state: State, to: int | None) -> Version:
    model = state.model
    asked = model.aliases.get(PREVIOUS) if to is None else to
    if asked is None:
        raise PromotionError(f"{model.name} has no version before the champion: name one by --to VERSION")
    found = model.version(asked)
    if found is None:
        there = ", ".join(str(each.number) for each in model.versions) or "none"
        raise PromotionError(f"{model.name} has no version {asked}: it was deleted, or never was; there are {there}")
    last = state.deciding
    known = last is not None and last.chosen is not None and last.chosen.version == asked
    if model.aliases.get(CHAMPION) == asked and known and not state.breaks:
        raise PromotionError(f"version {asked} of {model.name} is the champion already")
    return found
