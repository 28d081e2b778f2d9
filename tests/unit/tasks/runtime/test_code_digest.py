"""The digest of the code: helpers count, comments and docstrings do not."""

from pathlib import Path

import pytest

from preflow.fingerprints.files import code_essence
from preflow.specs import STAGES
from tasks.runtime.code_digest import closure

STAGE = '''
"""A stage."""
from typing import TYPE_CHECKING

from preflow.data import helpers
from . import near
if TYPE_CHECKING:
    from preflow.stages import later

def run() -> int:
    """Docs."""
    import preflow.maths.sums as sums
    return helpers.one() + near.two()
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    files = {
        "__init__.py": "",
        "config.py": "beta = 1",
        "data/__init__.py": "",
        "data/helpers.py": "from preflow import config\ndef one(): return 1",
        "maths/sums.py": "def three(): return 3",
        "stages/__init__.py": "",
        "stages/near.py": "def two(): return 2",
        "stages/later.py": "def run(): return 4",
        "stages/sft.py": STAGE,
    }
    for name, text in files.items():
        path = tmp_path / "preflow" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "preflow"


def test_the_closure_follows_every_import_but_plumbing_and_later_stages(package: Path) -> None:
    found = closure("preflow.stages.sft", (("preflow", package),))
    assert set(found) == {
        "preflow.data",
        "preflow.data.helpers",
        "preflow.maths.sums",
        "preflow.stages",
        "preflow.stages.near",
        "preflow.stages.sft",
    }


def test_a_module_without_source_is_an_error(package: Path) -> None:
    with pytest.raises(ImportError, match="no source file"):
        closure("preflow.stages.absent", (("preflow", package),))


@pytest.mark.parametrize(
    "other",
    [
        STAGE.replace('"""Docs."""', '"""Other docs,\n    longer."""'),
        STAGE.replace("return helpers", "# why\n    return helpers"),
        STAGE.replace("helpers.one() + near.two()", "(helpers.one()\n        + near.two())"),
    ],
)
def test_comments_docstrings_and_formatting_do_not_count(other: str) -> None:
    assert other != STAGE
    assert code_essence(other) == code_essence(STAGE)


def test_a_changed_expression_counts() -> None:
    assert code_essence(STAGE.replace("near.two()", "near.two() + 0")) != code_essence(STAGE)


def test_no_stage_depends_on_a_later_one() -> None:
    order = [info.module for info in STAGES.values()]
    for index, module in enumerate(order):
        later = set(closure(module)) & set(order[index + 1 :])
        assert not later, f"{module} imports {later}: changing it would recompute {module}"
