"""The tree is edited: what changes no number keeps every cached stage, what decides one misses where it decides."""

import pytest

from tests.unit.source_copies import SourceCopy
from tests.unit.tasks.runtime.identity_edits import HITS, MISSES


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> SourceCopy:
    return SourceCopy(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def before(copy: SourceCopy) -> dict[str, str]:
    return copy.digests()


@pytest.mark.slow
@pytest.mark.parametrize("edit", HITS.values(), ids=HITS)
def test_what_changes_no_number_hits(copy: SourceCopy, before: dict[str, str], edit: tuple[str, str, str]) -> None:
    with copy.edited(*edit):
        assert copy.digests() == before


@pytest.mark.slow
@pytest.mark.parametrize("edit", MISSES.values(), ids=MISSES)
def test_what_decides_a_number_misses_where_it_decides(
    copy: SourceCopy, before: dict[str, str], edit: tuple[str, str, str, set[str]]
) -> None:
    file, text, other, missed = edit
    with copy.edited(file, text, other):
        assert changed(before, copy.digests()) == missed


@pytest.mark.slow
def test_a_module_under_another_name_hits(copy: SourceCopy, before: dict[str, str]) -> None:
    """Twelve modules import it."""
    with copy.moved("preflow.models.packed.layout", "preflow.maths.rows_in_one"):
        assert copy.digests() == before


@pytest.mark.slow
def test_a_helper_in_another_module_hits(copy: SourceCopy, before: dict[str, str]) -> None:
    helper = """def _wide(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
"""
    file, new = "preflow/maths/divergence.py", copy.file("preflow/maths/widths.py")
    new.write_text("import torch\nfrom torch import Tensor\n\n\n" + helper.replace("_wide", "widened"))
    with (
        copy.edited(file, helper, ""),
        copy.edited(file, "_wide(", "widths.widened("),
        copy.edited(file, "import torch\n", "import torch\nfrom preflow.maths import widths\n"),
    ):
        assert copy.digests() == before
    new.unlink()


@pytest.mark.slow
def test_a_data_file_counts_where_modules_beside_it_do(copy: SourceCopy, before: dict[str, str]) -> None:
    table = copy.file("preflow/data/quality/wording/meaning_table.npz")
    own = table.read_bytes()
    table.write_bytes(own[:-1] + bytes([own[-1] ^ 1]))
    assert changed(before, copy.digests()) == {"validate", "judge", "judge_answers"}
    table.write_bytes(own)
    new = copy.file("preflow/data/quality/wording/more_words.txt")
    new.write_text("some")
    assert changed(before, copy.digests()) == {"validate", "judge", "judge_answers"}
    new.unlink()
    mark = copy.file("preflow/py.typed")
    mark.write_text("partial\n")
    assert copy.digests() == before
    mark.write_text("")


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}
