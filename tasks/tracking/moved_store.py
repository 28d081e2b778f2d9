"""A local MLflow store that was moved with its home folder: its records name their files' absolute places.

MLflow has no call that changes those, so its database is corrected: else new files would be written to where the folder
was, and neither MLflow's page nor ``mlflow.pyfunc.load_model`` would find those that were moved.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: Where a home folder has the files of all runs.
ARTIFACTS = ("mlflow", "artifacts")
#: Columns that hold places of files.
_PLACES = (
    ("runs", "artifact_uri"),
    ("experiments", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def follow_moved_files(database: Path) -> list[str]:
    """Let the records of a store name where its files are now, if they were moved with it; the places before.

    A store whose files still lie where they were written is left as it is, and so are places that are no home folder's.

    Args:
        database: The SQLite file, in the folder that has the files of all runs beside it.
    """
    here = database.resolve().parent / ARTIFACTS[-1]
    if not here.is_dir():
        return []
    with closing(sqlite3.connect(database, timeout=60)) as store:
        found = [place for (place,) in store.execute("SELECT DISTINCT artifact_location FROM experiments")]
        moved = [place for place in found if place and _was_moved(place, here)]
        with store:
            for old in moved:
                for table, column in _PLACES:
                    store.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608 - names of our own
                        f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                        (here.as_uri(), len(old) + 1, old, len(old) + 1, f"{old}/"),
                    )
    return moved


def _was_moved(place: str, here: Path) -> bool:
    parts = urlsplit(place)
    folder = Path(unquote(parts.path))
    return parts.scheme in ("", "file") and folder.parts[-2:] == ARTIFACTS and folder != here and not folder.is_dir()
