"""Every break of the catalogue still applies, so that ``make breaks`` shows what it says."""

import ast
from collections import Counter

import pytest

from tests.breaks.catalogue import BREAKS, PACKAGES, ROOT, Break


@pytest.mark.slow
@pytest.mark.parametrize("each", BREAKS, ids=lambda each: each.name)
def test_a_break_changes_one_line_of_a_file_and_names_tests_that_exist(each: Break) -> None:
    text = (ROOT / each.file).read_text(encoding="utf-8")
    assert text.count(each.old) == 1
    assert "\n" not in each.old + each.new
    broken = text.replace(each.old, each.new)
    assert ast.dump(ast.parse(broken)) != ast.dump(ast.parse(text))
    assert all((ROOT / file).exists() for file in each.tests)


def test_breaks_are_spread_over_every_package() -> None:
    assert len(BREAKS) >= 30
    assert max(Counter(each.name for each in BREAKS).values()) == 1
    own = {max((p for p in PACKAGES if each.file.startswith(p)), key=len, default="") for each in BREAKS}
    assert not set(PACKAGES) - own
