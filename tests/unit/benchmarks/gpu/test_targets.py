"""Which figures of a GPU check are met and missed."""

from bench.gpu.targets import judged


def verdicts(*lines: dict[str, object]) -> dict[tuple[object, object], object]:
    return {(each["case"], each["figure"]): each["verdict"] for each in judged(lines)}


def test_a_training_is_judged_by_speed_memory_and_share() -> None:
    """2.5 times TRL live, 1.8 times precomputed, half its memory, 0.45 of the rate of products: bounds are within."""
    line = {
        "part": "dpo",
        "rows": "hh",
        "speedup": {"live": 2.5, "precomputed": 1.79},
        "memory_ratio": {"live": 0.5, "precomputed": 0.51},
        "share_of_matrix_rate": 0.45,
    }
    assert verdicts(line, {"part": "dpo", "rows": "1024", "share_of_matrix_rate": 0.449}) == {
        ("hh", "speedup live"): "met",
        ("hh", "speedup precomputed"): "missed",
        ("hh", "memory_ratio live"): "met",
        ("hh", "memory_ratio precomputed"): "missed",
        ("hh", "share_of_matrix_rate"): "met",
        ("1024", "share_of_matrix_rate"): "missed",
    }


def test_tests_scoring_and_estimates_are_judged() -> None:
    found = verdicts(
        {"part": "tests", "passed": 12, "failed": 1, "exit_code": 1},
        {"part": "scoring", "rows": "hh", "speedup": {"trl_8": 3.0, "trl_64": 1.0}},
        {"part": "memory", "case": "lora_1b", "error": 0.151, "training_error": 0.4},
        {"part": "memory", "case": "qlora_1b", "not_run": "not run: bitsandbytes missing"},
    )
    assert found == {
        ("", "failed"): "missed",
        ("", "exit_code"): "missed",
        ("hh", "speedup trl_8"): "met",
        ("lora_1b", "error"): "missed",
    }


def test_a_line_of_another_part_has_no_target() -> None:
    """How a part ended is no figure, and a share is judged in trainings alone."""
    assert verdicts({"part": "generation", "share_of_matrix_rate": 0.1}, {"part": "dpo", "state": "done"}) == {}
