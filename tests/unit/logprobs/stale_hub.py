"""Ways in which a hub cache's files change behind the store's back."""

import shutil
import time
from pathlib import Path

from preflow.fingerprints import files
from tests.unit.logprobs.stale_models import StaleModelFixture, edit, louder


def edited_in_the_hub_cache_before_another_revision_came(b: StaleModelFixture) -> None:
    """The weights as the hub's cache keeps them: a link to a file that is named by its contents."""
    cache = b.folder / "models--owner--name"
    blob = cache / "blobs" / files.file_digest(b.weights)
    blob.parent.mkdir(parents=True)
    b.weights.rename(blob)
    for revision in ("first", "second"):
        (cache / "snapshots" / revision).mkdir(parents=True)
        time.sleep(0.02)
        (cache / "snapshots" / revision / b.weights.name).symlink_to(blob)
        for other in b.model.glob("*.json"):
            shutil.copy(other, cache / "snapshots" / revision)
        if revision == "first":
            b.model.rename(b.folder / "before")
            b.model.symlink_to(cache / "snapshots" / revision)
            assert b.ask() == 0, "the same weights under another path"
            time.sleep(0.02)
            edit(blob, louder)
    b.model.unlink()
    b.model.symlink_to(cache / "snapshots" / "second")


def hub_cache_copied(b: StaleModelFixture) -> None:
    """Edited first: in the copy every link is younger than the file it names."""
    cache = as_hub_cache(b)
    edit(next((cache / "blobs").iterdir()), louder)
    shutil.copytree(cache, b.folder / "moved", symlinks=False)
    b.model.unlink()
    b.model.symlink_to(b.folder / "moved" / "snapshots" / "first")


def hub_cache_linked_anew(b: StaleModelFixture) -> None:
    """As a second download does that finds the file there."""
    cache = as_hub_cache(b)
    (blob,) = (cache / "blobs").iterdir()
    edit(blob, louder)
    time.sleep(0.02)
    link = cache / "snapshots" / "first" / b.weights.name
    link.unlink()
    link.symlink_to(blob)


def as_hub_cache(b: StaleModelFixture) -> Path:
    """The weights as the hub's cache keeps them: a link to a file that is named by its contents."""
    cache = b.folder / "models--owner--name"
    blob = cache / "blobs" / files.file_digest(b.weights)
    blob.parent.mkdir(parents=True)
    b.weights.rename(blob)
    (cache / "snapshots" / "first").mkdir(parents=True)
    (cache / "snapshots" / "first" / b.weights.name).symlink_to(blob)
    for other in b.model.glob("*.json"):
        shutil.copy(other, cache / "snapshots" / "first")
    b.model.rename(b.folder / "before")
    b.model.symlink_to(cache / "snapshots" / "first")
    assert b.ask() == 0, "the same weights under another path"
    return cache
