"""Whether a registered version, and the decisions that made it champion, are what they were; nothing is changed."""

import tempfile
from pathlib import Path

from preflow.errors import PromotionError
from preflow.verification.check import Check, together
from tasks.tracking.lineage import is_gone
from tasks.tracking.registry.decisions import Record, chain, records
from tasks.tracking.registry.integrity import fetch
from tasks.tracking.registry.state import State, disagreements
from tasks.tracking.registry.versions import Version, read_model


def version_of(name: str, alias: str) -> Version:
    """The version of a registered model that an alias names.

    Raises:
        PromotionError: There is no such model, or the alias is not set.
    """
    found = read_model(name).aliased(alias)
    if found is None:
        raise PromotionError(f"{name} has no version with the alias {alias}: preflow models {name} shows what it has")
    return found


def verify_version(name: str, version: Version, run: Check, artifact_digest: str | None) -> Check:
    """Check a version's files, that they are those of its run, the run itself, and the decisions.

    Args:
        name: The registered model's name.
        version: The version.
        run: The check of the pipeline run that registered it.
        artifact_digest: Digest of the stage that made the model, as the run records it.
    """
    return together(f"{name}, version {version.number}", _files(name, version, artifact_digest), _decisions(name), run)


def _files(name: str, version: Version, artifact_digest: str | None) -> Check:
    what = f"files of version {version.number}"
    if version.artifact_digest != artifact_digest:
        detail = f"its tag artifact_digest says {version.artifact_digest}, its run {artifact_digest}"
        return Check(what, "changed", detail)
    with tempfile.TemporaryDirectory() as folder:
        try:
            fetch(name, version, Path(folder))
        except PromotionError as error:
            return Check(what, "changed", error.message)
    whole = "" if version.package_digest else "no digest of its recipe, code and settings was recorded at registration"
    return Check(what, "ok", whole)


def _decisions(name: str) -> Check:
    try:
        state = State(model=read_model(name), decisions=tuple(chain(name)))
    except PromotionError as error:
        return Check("decisions", "changed", error.message)
    found, begun = disagreements(state), [each for each in records(name) if each.status == "RUNNING"]
    if begun and found:  # its aliases may be moved and its record not finished: that is no hand's work
        return Check("decisions", "changed", _unfinished(name, begun[-1]))
    if begun:
        return Check("decisions", "ok", _unfinished(name, begun[-1]))
    return Check("decisions", "changed", found[0]) if found else Check("decisions", "ok")


def _unfinished(name: str, record: Record) -> str:
    if is_gone(record.tags):
        return (
            f"decision {record.number} was interrupted: preflow models {name} finishes or undoes it, then verify again"
        )
    return f"decision {record.number} is being taken now: verify again when it is done"
