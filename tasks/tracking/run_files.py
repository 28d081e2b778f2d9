"""Small files of MLflow runs, found where the home folder lies now: MLflow keeps absolute places of its files."""

import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from preflow.environment import preflow_home
from tasks.tracking.client import client
from tasks.tracking.moved_store import ARTIFACTS


def local_folder(run: Any) -> Path | None:
    """The folder of a run's files on this machine, also where a home folder was moved; None behind a server."""
    parts = urlsplit(str(run.info.artifact_uri))
    if parts.scheme not in ("", "file"):
        return None
    written, here = Path(unquote(parts.path)), preflow_home().joinpath(*ARTIFACTS)
    moved = here / run.info.run_id / "artifacts"
    return moved if not written.is_dir() and (moved.is_dir() or _was_moved(written.parents[1], here)) else written


def _was_moved(root: Path, here: Path) -> bool:
    """Whether all runs' files were in a home folder that is elsewhere now; a new run has no folder in either."""
    return not root.is_dir() and here.is_dir() and root.parts[-len(ARTIFACTS) :] == ARTIFACTS


def read_text(run: Any, name: str) -> str | None:
    """A small file of a run; none where it is gone."""
    store, folder = client(), local_folder(run)
    if folder is not None:
        file = folder / name
        return file.read_text(encoding="utf-8", errors="surrogateescape") if file.is_file() else None
    if name not in {each.path for each in store.list_artifacts(run.info.run_id)}:
        return None
    return Path(store.download_artifacts(run.info.run_id, name)).read_text(encoding="utf-8", errors="surrogateescape")


def write_text(run: Any, name: str, text: str) -> None:
    """Write a small file of a run, where its others are."""
    folder = local_folder(run)
    if folder is None:
        client().log_text(run.info.run_id, text, name)
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")


def keep_file(run: Any, file: Path, below: str) -> None:
    """Copy a file to those of a run, into a folder among them."""
    folder = local_folder(run)
    if folder is None:
        client().log_artifact(run.info.run_id, str(file), below)
        return
    (folder / below).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, folder / below / file.name)
