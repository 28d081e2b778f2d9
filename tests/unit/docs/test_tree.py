"""The README's tree is what the packages say of themselves."""

import re
from pathlib import Path

import pytest

from docs.tools import tree
from docs.tools.words import ROOT


def test_the_readme_has_the_tree_as_it_is_now() -> None:
    readme = tree.README.read_text("utf-8")

    assert readme == tree.with_tree(readme), "write it again: python -m docs.tools.tree"


def test_every_package_says_what_belongs_there_in_two_sentences_at_least() -> None:
    for folder in tree.folders():
        assert len(re.findall(r"[.;](?:\s|$)", folder.text)) >= 2, folder


def test_every_package_of_the_source_is_among_the_folders() -> None:
    listed = {folder.path for folder in tree.folders()}

    for top in ("src/preflow", "flows", "tasks", "expectations"):
        packages = {file.parent.relative_to(ROOT).as_posix() for file in (ROOT / top).rglob("__init__.py")}
        assert packages <= listed, packages - listed


def test_a_folder_that_says_nothing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "ROOT", tmp_path)
    (tmp_path / "silent").mkdir()
    (tmp_path / "silent" / "__init__.py").write_text("value = 1\n", "utf-8")

    with pytest.raises(ValueError, match="silent does not say what belongs there"):
        tree.folders()


def test_a_readme_without_its_markers_is_an_error() -> None:
    with pytest.raises(ValueError, match="tree: begin"):
        tree.with_tree("# A page\n")
