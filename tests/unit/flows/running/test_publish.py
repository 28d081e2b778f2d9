"""What a pipeline run is called."""

from flows.running.publish import described


def test_a_name_shows_what_a_run_overrides() -> None:
    assert described({}) == []
    assert described({"dpo.beta": 0.3, "seed": 7}) == ["beta0.3", "seed7"]
    assert described({"sft.dataset": "/data/new set.jsonl"}) == ["dataset_data_new_set.jso"]
    assert described({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}) == ["a1", "b2", "c3", "and2more"]
