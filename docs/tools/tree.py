"""The README's tree: every folder with the sentence that says what belongs there.

A Python package has it in its ``__init__`` docstring, another folder in the first paragraph of its README.md.
``python -m docs.tools.tree`` writes the tree between the markers in README.md; a test fails where it is out of date.
"""

import ast
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from docs.tools.words import ROOT, SKIPPED

README = ROOT / "README.md"
#: The folders to begin with, from the outside in; others follow by name.
FIRST = ("flows", "tasks", "expectations", "src")
#: Folders whose own folders are not shown, since they mirror another or hold data.
CLOSED = {"tests", "recipes", "infra", "bench", "docs", "deployments"}
#: Depth from which on README.md and docs/architecture.md leave folders out.
SHOWN, DEEP = 3, 5
_BLOCK = re.compile(r"(<!-- tree: begin -->\n).*?(<!-- tree: end -->)", re.DOTALL)


@dataclass(frozen=True)
class Folder:
    """A folder and what belongs there.

    Attributes:
        path: From the repository's root.
        text: One or two sentences.
        depth: Its folders above.
    """

    path: str
    text: str
    depth: int


def folders() -> list[Folder]:
    """All folders that say what belongs there, each before its own.

    Raises:
        ValueError: A folder with files that the repository keeps says nothing.
    """
    return [folder for top in sorted(_inside(ROOT), key=_order) for folder in _walk(top)]


def block() -> str:
    """The README's tree."""
    rows = [
        f"| `{folder.path}/` | {folder.text.split('. ')[0].rstrip('.').replace('``', '`')} |"
        for folder in folders()
        if folder.depth < SHOWN
    ]
    return "\n".join(["| folder | what is in it |", "|---|---|", *rows]) + "\n"


def with_tree(readme: str) -> str:
    """A README with the tree as it is now.

    Args:
        readme: Its text, with both markers.

    Raises:
        ValueError: The markers are absent.
    """
    if not _BLOCK.search(readme):
        raise ValueError("README.md has no lines '<!-- tree: begin -->' and '<!-- tree: end -->'")
    return _BLOCK.sub(lambda found: found[1] + block() + found[2], readme)


def main() -> int:
    """Write the tree into README.md."""
    README.write_text(with_tree(README.read_text("utf-8")), "utf-8")
    return 0


def _order(folder: Path) -> tuple[int, str]:
    """The order of the folders at the root."""
    return FIRST.index(folder.name) if folder.name in FIRST else len(FIRST), folder.name


def _inside(folder: Path) -> list[Path]:
    """The folders directly in a folder that hold something of the repository's."""
    return [
        each
        for each in folder.iterdir()
        if each.is_dir()
        and not each.name.startswith(".")
        and each.name not in SKIPPED
        and not each.name.endswith(".egg-info")
        and any(file.is_file() and "__pycache__" not in file.parts for file in each.rglob("*"))
    ]


def _walk(folder: Path) -> list[Folder]:
    """A folder and those below it."""
    path = folder.relative_to(ROOT)
    below = [] if folder.name in CLOSED and len(path.parts) == 1 else sorted(_inside(folder))
    if path == Path("src"):  # holds the package and nothing else
        return [found for each in below for found in _walk(each)]
    depth = len(path.parts) - (path.parts[0] == "src")
    if folder.name == "commands" or (folder / "__init__.py").is_file() or depth == 1:
        return [Folder(path.as_posix(), _text(folder), depth), *(found for each in below for found in _walk(each))]
    return []


def _text(folder: Path) -> str:
    """What a folder says of itself."""
    if (file := folder / "__init__.py").is_file():
        docstring = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
        paragraphs = docstring.split("\n\n")[:2]
        text = " ".join(" ".join(paragraphs).split())
    elif (file := folder / "README.md").is_file():
        body = [part for part in file.read_text("utf-8").split("\n\n") if not part.startswith("#")]
        text = " ".join(body[0].split()) if body else ""
    else:
        text = ""
    if not text:
        name = folder.relative_to(ROOT)
        raise ValueError(f"{name} does not say what belongs there: give {name}/__init__.py a docstring, or a README.md")
    return text


if __name__ == "__main__":
    sys.exit(main())
