"""A judge behind an address, with planted behaviours."""

from pathlib import Path

import pytest

from preflow.config.evaluation.judge import JudgeSettings
from preflow.errors import JudgeChangedError, JudgeError, JudgeUnreachableError
from preflow.judges.endpoint import EndpointJudge
from preflow.judges.fitness import Fitness, Judged, fitness_of, judge_both_orders
from preflow.judges.verdict import Comparison, Outcome
from preflow.redaction import without_secrets
from tests.fixtures.judge_server import Behaviour, JudgeServer, always_first, flipped, longer_wins, oracle

pytestmark = pytest.mark.slow  # each test asks a server for tens of verdicts

KEY = "sk-planted-3141592653589793"


def settings(address: str, **changes: object) -> JudgeSettings:
    given = {"kind": "endpoint", "model": "judge-1", "base_url": address, "timeout": 10, **changes}
    return JudgeSettings.model_validate(given)


def pairs(count: int) -> list[Comparison]:
    """Human pairs, the chosen answer first: it is the longer one in every second pair."""
    return [
        Comparison(f"What is {n}?", f"GOOD {'word ' * (5 + n % 2 * 6)}{n}", f"BAD {'word ' * (11 - n % 2 * 6)}{n}")
        for n in range(count)
    ]


def lengths(asked: list[Comparison]) -> list[tuple[int, int]]:
    return [(len(one.first.split()), len(one.second.split())) for one in asked]


def prompts(asked: list[Comparison]) -> list[str]:
    return [one.prompt for one in asked]


def judged(server: JudgeServer, folder: Path, count: int = 40, **changes: object) -> Judged:
    judge = EndpointJudge(settings(server.address, **changes))
    return judge_both_orders(judge, pairs(count), folder, lambda done, of: None)


def fitness(behaviour: Behaviour, folder: Path, count: int = 100) -> Fitness:
    with JudgeServer(behaviour).running() as server:
        found = judged(server, folder, count)
        return fitness_of(found, lengths(pairs(count)), prompts(pairs(count)), settings(server.address), 0.95)


def test_a_judge_that_always_says_the_first_is_unfit(tmp_path: Path) -> None:
    found = fitness(always_first, tmp_path)
    assert found.accuracy is not None
    assert found.accuracy.value == 0.5
    assert (found.consistency, found.first_share, found.is_fit) == (0, 1, False)
    assert "agrees with people on 0.50" in found.reason


def test_a_judge_that_likes_length_is_unfit_where_length_says_nothing(tmp_path: Path) -> None:
    found = fitness(longer_wins, tmp_path)
    assert found.accuracy is not None
    assert found.accuracy.value == 0.5
    assert found.consistency == 1
    assert not found.is_fit


def test_an_oracle_that_errs_on_a_tenth_of_its_calls_is_fit(tmp_path: Path) -> None:
    found = fitness(flipped(0.1, oracle), tmp_path)
    assert found.accuracy is not None
    assert found.accuracy.low < 0.9 < found.accuracy.high
    assert found.is_fit


def test_a_consistent_judge_is_asked_for(tmp_path: Path) -> None:
    """A quarter of its calls are wrong, so that 6 of 16 pairs have different verdicts in the two orders."""
    asked = pairs(100)
    with JudgeServer(flipped(0.25, oracle)).running() as server:
        found = fitness_of(
            judged(server, tmp_path, 100),
            lengths(asked),
            prompts(asked),
            settings(server.address, min_consistency=0.9),
            0.95,
        )
    assert found.accuracy is not None
    assert found.accuracy.low > 0.5
    assert "the same in both orders" in found.reason


def test_a_busy_server_costs_no_verdict(tmp_path: Path) -> None:
    with JudgeServer(oracle).running() as calm:
        whole = judged(calm, tmp_path / "calm")
    with JudgeServer(oracle).running() as busy:
        busy.busy_every = 3
        found = judged(busy, tmp_path / "busy")
    assert busy.refused > 10
    assert found.verdicts == whole.verdicts
    assert found.orders.scores.tolist() == [1.0] * 40


def test_what_cannot_be_read_is_counted_and_is_no_tie(tmp_path: Path) -> None:
    def garbled(first: str, second: str) -> str:
        return "C, if I may" if first.endswith(("7", "13")) else oracle(first, second)

    with JudgeServer(garbled).running() as server:
        found = judged(server, tmp_path)
    assert found.unreadable == 5, "7, 13, 17, 27, 37 shown first"
    assert found.readable.size + found.unreadable == 40
    assert all(pair[0].outcome is not Outcome.TIE for pair in found.verdicts)


def test_nothing_is_asked_twice_and_new_prompts_cost_two_calls_each(tmp_path: Path) -> None:
    with JudgeServer(oracle).running() as server:
        judged(server, tmp_path, 20)
        assert server.calls == 40
        judged(server, tmp_path, 20)
        assert server.calls == 40
        judged(server, tmp_path, 23, canaries=0)
        assert server.calls == 46
        judged(server, tmp_path, 23, criteria="Which is kinder?")
        assert server.calls == 92, "another question is another judge"
        judged(server, tmp_path, 23, concurrency=2, timeout=5)
        assert server.calls == 92, "how it is asked changes no verdict"


def test_stored_verdicts_are_asked_for_again_before_new_ones(tmp_path: Path) -> None:
    with JudgeServer(oracle).running() as server:
        judged(server, tmp_path, 20)
        judged(server, tmp_path, 20)
        assert server.calls == 40, "nothing is new"
        judged(server, tmp_path, 23)
        assert server.calls == 40 + 10 + 6


def test_a_judge_that_changed_under_its_name_is_reported_and_nothing_is_mixed(tmp_path: Path) -> None:
    """It prefers the other answer now; under another revision everything is asked anew."""
    with JudgeServer(oracle).running() as server:
        before = judged(server, tmp_path, 20)
        server.behaviour = lambda first, second: {"A": "B", "B": "A"}[oracle(first, second)]
        for _ in range(2):
            with pytest.raises(JudgeChangedError, match=r"10 of 10 questions .* Set evaluation\.judge\.revision"):
                judged(server, tmp_path, 23)
        assert server.calls == 40 + 2 * 10, "nothing new was asked"
        assert judged(server, tmp_path, 20).verdicts == before.verdicts, "stored verdicts are those of the former model"
        renewed = judged(server, tmp_path, 23, revision="2")
        assert server.calls == 60 + 46
        assert renewed.orders.scores.tolist() == [0.0] * 23


def test_one_canary_of_ten_may_differ_and_is_noted(tmp_path: Path) -> None:
    """Of 40 questions in two orders, ten spread evenly: the first is the first pair's."""
    notes: list[str] = []
    with JudgeServer(oracle).running() as server:
        judged(server, tmp_path, 20)
        server.behaviour = lambda first, second: "TIE" if first == pairs(1)[0].first else oracle(first, second)
        judge = EndpointJudge(settings(server.address))
        judge_both_orders(judge, pairs(21), tmp_path, lambda done, of: None, notes.append)
    assert server.calls == 40 + 10 + 2
    assert notes == ["judge: of 10 stored verdicts that were asked for again, 1 came out differently"]


def test_what_was_judged_before_the_server_went_away_is_kept(tmp_path: Path) -> None:
    with JudgeServer(oracle).running() as server:
        server.dies_after = 12
        with pytest.raises(JudgeUnreachableError, match=r"answered 500 .* verdicts that are there are kept"):
            judged(server, tmp_path, 20, retries=0, concurrency=1)
        server.dies_after = None
        judged(server, tmp_path, 20, canaries=0)
    assert server.calls == 40


def test_a_slow_judge_is_given_its_time(tmp_path: Path) -> None:
    with JudgeServer(oracle).running() as server:
        server.seconds = 0.2
        assert judged(server, tmp_path, 4).readable.size == 4
        with pytest.raises(JudgeUnreachableError, match="does not answer"):
            judged(server, tmp_path / "other", 4, timeout=0.05, retries=0)


def test_an_address_that_is_away_is_one_sentence(tmp_path: Path) -> None:
    judge = EndpointJudge(settings("http://127.0.0.1:9/v1", retries=0))
    with pytest.raises(JudgeUnreachableError, match=r"http://127\.0\.0\.1:9/v1/chat/completions does not answer"):
        judge_both_orders(judge, pairs(1), tmp_path, lambda done, of: None)


def test_the_key_is_sent_and_is_written_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with JudgeServer(oracle).running() as server:
        judged(server, tmp_path, 3, api_key_env="JUDGE_KEY")
        assert {each["Authorization"] for each in server.headers} == {f"Bearer {KEY}"}
        assert KEY not in str(EndpointJudge(settings(server.address, api_key_env="JUDGE_KEY")).identity)
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()]


def test_a_key_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(JudgeError, match=r"evaluation\.judge\.api_key_env names JUDGE_KEY, which is empty"):
        EndpointJudge(settings("http://127.0.0.1:9/v1", api_key_env="JUDGE_KEY"))


def test_the_key_of_a_file_may_end_in_a_new_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", f"{KEY}\n")
    with JudgeServer(oracle).running() as server:
        judged(server, tmp_path, 3, api_key_env="JUDGE_KEY")
        assert {each["Authorization"] for each in server.headers} == {f"Bearer {KEY}"}


@pytest.mark.parametrize("key", [f"{KEY}\nmore", f"{KEY}é"])
def test_a_key_that_no_header_can_hold_is_one_error_without_it(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("JUDGE_KEY", key)
    with pytest.raises(JudgeError, match=r"api_key_env names JUDGE_KEY, whose value has a character") as raised:
        EndpointJudge(settings("http://127.0.0.1:9/v1", api_key_env="JUDGE_KEY"))
    assert KEY not in str(raised.value)
    assert raised.value.__context__ is None


def test_what_api_key_env_names_is_a_secret_whatever_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_JUDGE", f"{KEY}\n")
    assert without_secrets(f"refused {KEY}") == f"refused {KEY}"
    EndpointJudge(settings("http://127.0.0.1:9/v1", api_key_env="MY_JUDGE"))
    assert without_secrets(f"refused {KEY}") == "refused ***"


def test_a_login_in_the_address_is_refused() -> None:
    judge = {"kind": "endpoint", "model": "m", "base_url": "https://ada:hunter22@judge.example/v1"}
    with pytest.raises(ValueError, match=r"base_url has a login, .*give the key by api_key_env"):
        JudgeSettings.model_validate(judge)


def test_an_error_names_the_section_that_describes_the_judge(tmp_path: Path) -> None:
    judge = EndpointJudge(settings("http://127.0.0.1:9/v1", retries=0), "augment.judge")
    with pytest.raises(JudgeUnreachableError, match=r"check augment\.judge\.base_url"):
        judge_both_orders(judge, pairs(1), tmp_path, lambda done, of: None)


def test_it_decodes_greedily(tmp_path: Path) -> None:
    with JudgeServer(oracle).running() as server:
        judged(server, tmp_path, 1)
    assert {(body["temperature"], body["model"]) for body in server.bodies} == {(0, "judge-1")}
