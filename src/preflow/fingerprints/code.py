"""Source files as this process imported them."""

from datetime import datetime
from pathlib import Path

import preflow
from preflow.errors import CodeChangedError


def source_text(path: Path) -> str:
    """The text of a source file of this project, for a digest of the code that runs.

    A file that was written after the start may differ from what was imported, and what it computes would be kept under
    the new code's name, or the other way round.

    Raises:
        CodeChangedError: The file was changed since this process started.
    """
    text, stat = path.read_text(encoding="utf-8"), path.stat()
    changed = max(stat.st_mtime_ns, stat.st_ctime_ns)
    if changed > preflow.STARTED_NS:
        when = datetime.fromtimestamp(changed // 10**9)
        raise CodeChangedError(
            f"{path} was changed at {when:%H:%M}, after this run started: what runs is no longer what the file says. "
            "Start again; finished stages whose code is the same are cached"
        )
    return text
