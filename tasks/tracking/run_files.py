"""Small files of MLflow runs, found where the home folder lies now: MLflow keeps absolute places of its files."""

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from preflow.environment import preflow_home
from tasks.tracking.client import client


def local_folder(run: Any) -> Path | None:
    """The folder of a run's files on this machine, also where a home folder was moved; None behind a server."""
    parts = urlsplit(str(run.info.artifact_uri))
    if parts.scheme not in ("", "file"):
        return None
    written = Path(unquote(parts.path))
    moved = preflow_home() / "mlflow" / "artifacts" / run.info.run_id / "artifacts"
    return moved if not written.is_dir() and moved.is_dir() else written


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
    if folder is not None and folder.is_dir():
        (folder / name).write_text(text, encoding="utf-8")
    else:
        client().log_text(run.info.run_id, text, name)
