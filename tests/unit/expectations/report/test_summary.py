"""How rows were read, in words."""

from typing import Any

from expectations.report.summary import reading_lines


def test_of_many_columns_the_first_are_named_and_the_others_counted() -> None:
    none: dict[str, Any] = {
        "formats": {},
        "columns": {},
        "changed": {},
        "unused_turn_keys": {},
        "first_rows": {},
        "left_out": [],
    }
    (line,) = reading_lines("preferences", {**none, "unused_columns": {f"c{n}": 7 for n in range(3000)}})
    assert line.startswith("not used: columns c0 (7 rows), c1 (7 rows)")
    assert line.endswith("c11 (7 rows) and 2,988 more")
