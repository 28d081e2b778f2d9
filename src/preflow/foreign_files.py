"""Files that others wrote: where they may lie, and none of them without an end, a device, or too large for what it is.

``PREFLOW_DATA_ROOTS`` names folders (as ``PATH`` does) of which data must be a part; without it any file may be named.
``PREFLOW_FOLLOW_LINKS=1`` lets links in a folder of data lead out of it.
"""

import os
import stat
from pathlib import Path

from preflow.errors import ConfigError, DataFileError

#: Bytes of the largest file of settings, or of a template.
_LARGEST = 1 << 17
#: Kinds of files whose reading may never end, or acts on a device.
_SPECIAL = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def special_kind(path: Path) -> str | None:
    """What a path is where it is neither a file nor a folder; none where it is one of these.

    Raises:
        OSError: There is nothing, or a chain of links without an end.
    """
    mode = path.stat().st_mode
    return next((what for test, what in _SPECIAL if test(mode)), None)


def read_text(path: Path, what: str) -> str:
    """The text of a small file in UTF-8.

    Raises:
        ConfigError: It cannot be read, is no file, or is too large to be one of settings.
    """
    try:
        if (kind := special_kind(path)) is not None:
            raise ConfigError(f"{what} {path} is {kind}: give a file")
        with path.open("rb") as stream:
            head = stream.read(_LARGEST + 1)
        if len(head) > _LARGEST:
            raise ConfigError(f"{what} {path} has more than {_LARGEST >> 10} KiB: give a file of settings, not of data")
        return head.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{what} {path} is not UTF-8: byte {error.start + 1} is no part of a character") from error


def require_allowed(place: Path) -> None:
    """Check that a file is in one of the folders of ``PREFLOW_DATA_ROOTS``, where that is set.

    Args:
        place: The file, its links followed.

    Raises:
        DataFileError: It is in none.
    """
    named = os.environ.get("PREFLOW_DATA_ROOTS", "")
    roots = [Path(root).expanduser().resolve() for root in named.split(os.pathsep) if root]
    if roots and not any(place.is_relative_to(root) for root in roots):
        raise DataFileError(
            f"data file {place} is in no folder of PREFLOW_DATA_ROOTS ({named}): move it there, or let who runs this "
            "process allow its folder"
        )


def require_within(folder: Path, path: Path) -> None:
    """Check that a file found in a folder of data is inside it, or in the cache of a hub whose snapshot the folder is.

    Raises:
        DataFileError: It is a link that leads elsewhere.
    """
    inside, place = folder.resolve(), path.resolve()
    if place.is_relative_to(inside) or os.environ.get("PREFLOW_FOLLOW_LINKS", "") == "1":
        return
    caches = (parent.parent / "blobs" for parent in (inside, *inside.parents) if parent.name == "snapshots")
    if not any(place.is_relative_to(cache) for cache in caches):
        raise DataFileError(
            f"data file {path} is a link out of its folder: name what it leads to, or let who runs this process set "
            "PREFLOW_FOLLOW_LINKS=1"
        )
