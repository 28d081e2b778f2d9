"""From training prompts to pairs with a tiny model: sampled, judged, paired, each once."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from preflow.artifacts import Artifact, build, write_json
from preflow.config import Recipe
from preflow.data.files.sources import resolve_sources
from preflow.data.rows import content_id
from preflow.data.validated import load_pairs
from preflow.errors import JudgeError, UnfitJudgeError
from preflow.judges.verdict import Comparison, Outcome, Verdict
from preflow.observer import Silent
from preflow.on_policy.answers import load_answers
from preflow.sampling import decode
from preflow.specs import JudgeAnswersSpec, PairSpec, SampleSpec
from preflow.stages.on_policy import judging, sampling
from preflow.stages.on_policy.judging import run_judging_answers
from preflow.stages.on_policy.pairing import run_pairing
from preflow.stages.on_policy.sampling import run_sampling
from tests.fixtures.prepared_run import Run

pytestmark = pytest.mark.slow  # models are loaded

COURSE = "tests.unit.stages.test_new_pairs:prefers_course"
FIRST = "tests.unit.stages.test_new_pairs:always_first"


def prefers_course(prompt: str, first: str, second: str) -> str:
    """People chose ``Of course``; of other answers the longer one."""
    a, b = (1000 * text.startswith("Of course") + len(text) for text in (first, second))
    return "tie" if a == b else "first" if a > b else "second"


def always_first(prompt: str, first: str, second: str) -> str:
    return "first"


def recipe_of(prepared: Run, **augment: Any) -> Recipe:
    judge = {"kind": "function", "model": COURSE, "calibrate": 10, "min_accuracy": 0.5}
    settings = {"num_generations": 3, "max_new_tokens": 8, "max_prompts": 6, "judge": judge, **augment}
    return Recipe.model_validate({**prepared.recipe.model_dump(), "augment": settings})


def spec_of(prepared: Run, recipe: Recipe) -> SampleSpec:
    return SampleSpec(recipe=recipe, base=prepared.base, data=prepared.data, policy=prepared.sft)


def answers_of(artifact: Artifact) -> dict[str, list[dict[str, Any]]]:
    return {row["prompt_id"]: row["answers"] for row in load_answers(artifact.file("answers.jsonl"))}


def test_training_prompts_are_answered_and_no_held_out_one(prepared: Run, tmp_path: Path) -> None:
    sampled = build(
        tmp_path / "sample", lambda out: run_sampling(spec_of(prepared, recipe_of(prepared)), out, Silent())
    )
    found = answers_of(sampled)
    assert len(found) == 6
    assert found.keys() <= {content_id(pair.prompt) for pair in load_pairs(prepared.data, "train")}
    assert not found.keys() & {content_id(pair.prompt) for pair in load_pairs(prepared.data, "eval")}
    for answer in (answer for each in found.values() for answer in each):
        assert answer["finished"] or answer["tokens"] == 8
    metrics = sampled.load("metrics.json")
    assert (metrics["sample/prompts"], metrics["sample/answers"]) == (6, 18)


def test_more_prompts_and_another_batch_size_move_no_answer(
    prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sampled(folder: str, **changes: Any) -> dict[str, list[dict[str, Any]]]:
        monkeypatch.setenv("PREFLOW_HOME", str(tmp_path / folder))
        spec = spec_of(prepared, recipe_of(prepared, **changes))
        return answers_of(build(tmp_path / f"sample-{folder}", lambda out: run_sampling(spec, out, Silent())))

    few, many, one_by_one = sampled("a"), sampled("b", max_prompts=None), sampled("c", generation_batch_size=1)
    assert len(many) > len(few)
    assert few == one_by_one == {prompt: many[prompt] for prompt in few}


def test_what_was_sampled_before_a_kill_is_not_sampled_again(
    prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six prompts of three answers, two prompts a batch: killed in the third batch, a rerun samples one batch."""
    spec = spec_of(prepared, recipe_of(prepared, generation_batch_size=6))
    own, batches = decode._batch, list[int]()

    def dying(model: Any, batch: Sequence[Any], *given: Any) -> Any:
        if len(batches) == 2:
            raise KeyboardInterrupt
        batches.append(len(batch))
        return own(model, batch, *given)

    monkeypatch.setattr(decode, "_batch", dying)
    (tmp_path / "killed").mkdir()
    with pytest.raises(KeyboardInterrupt):
        run_sampling(spec, tmp_path / "killed", Silent())
    batches.clear()
    (tmp_path / "again").mkdir()
    run_sampling(spec, tmp_path / "again", Silent())
    assert batches == [2]
    monkeypatch.setattr(sampling, "load_policy", None)  # a third call loads nothing
    (tmp_path / "third").mkdir()
    run_sampling(spec, tmp_path / "third", Silent())
    assert (tmp_path / "third" / "answers.jsonl").read_bytes() == (tmp_path / "again" / "answers.jsonl").read_bytes()


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFLOW_TRUSTED_JUDGES", f"{COURSE},{FIRST}")


def written(folder: Path, prompts: Sequence[str], answers: Sequence[Sequence[tuple[str, bool]]]) -> Artifact:
    """An artifact of the stage ``sample``, by hand; an answer has as many tokens as letters."""

    def write(out: Path) -> None:
        rows = [
            {
                "prompt": [{"role": "user", "content": prompt}],
                "prompt_id": prompt,
                "cluster": prompt,
                "source": f"p.jsonl:{n}",
                "answers": [{"text": text, "finished": ended, "tokens": len(text)} for text, ended in each],
            }
            for n, (prompt, each) in enumerate(zip(prompts, answers, strict=True), start=1)
        ]
        (out / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        write_json(out / "report.json", {"policy": "d" * 64})

    return build(folder, write)


def paired(prepared: Run, recipe: Recipe, answers: Artifact, folder: Path) -> Artifact:
    asked = JudgeAnswersSpec(recipe=recipe, base=prepared.base, data=prepared.data, answers=answers)
    judged = build(folder / "judged", lambda out: run_judging_answers(asked, out, Silent()))
    given = PairSpec(recipe=recipe, answers=answers, judged=judged)
    return build(folder / "paired", lambda out: run_pairing(given, out, Silent()))


@pytest.mark.usefixtures("trusted")
def test_every_prompt_is_a_pair_or_dropped_by_a_reason(prepared: Run, tmp_path: Path) -> None:
    """A pair; all alike; two cut; equally long; blank. The longest answer is chosen: 5 letters against 1."""
    answers = written(
        tmp_path / "answers",
        ["pair", "alike", "cut", "tie", "blank"],
        [
            [("bbb", True), ("a", True), ("ccccc", True)],
            [("a", True)] * 3,
            [("a", True), ("b", False), ("cc", False)],
            [("aa", True), ("bb", True), ("bb", True)],
            [("a", True), ("", True), (" ", True)],
        ],
    )
    made = paired(prepared, recipe_of(prepared), answers, tmp_path)
    report = made.load("report.json")
    assert (report["prompts"], report["pairs"]) == (5, 1)
    assert {reason: count for reason, count in report["dropped"].items() if count} == {
        "identical": 1, "unfinished": 1, "tie": 1, "blank": 1,
    }  # fmt: skip
    assert (report["length_difference"], report["chosen_longer_share"]) == (4, 1)
    assert report["identical_share"] == pytest.approx(3 / 15), "two of alike and one of tie repeat"
    assert report["cut_share"] == pytest.approx(2 / 15)
    (row,) = [json.loads(line) for line in made.file("pairs-round-1.jsonl").read_text().splitlines()]
    assert row == {
        "prompt": [{"role": "user", "content": "pair"}],
        "chosen": [{"role": "assistant", "content": "ccccc"}],
        "rejected": [{"role": "assistant", "content": "a"}],
        "chosen_score": 1.0,
        "rejected_score": 0.0,
        "source": "answers to p.jsonl:1",
        "judge": COURSE,
        "policy": "d" * 64,
        "round": 1,
        "finished": True,
    }
    metrics = made.load("metrics.json")
    assert (metrics["augment/pairs"], metrics["augment/dropped_tie"]) == (1, 1)


@pytest.mark.usefixtures("trusted")
def test_an_unfit_judge_makes_no_pairs(prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = {"kind": "function", "model": FIRST, "calibrate": 10}
    answers = written(tmp_path / "answers", ["p"], [[("a", True), ("b", True)]])
    monkeypatch.setattr(judging, "load_answers", None)  # it is asked about no answer
    with pytest.raises(UnfitJudgeError, match="makes no pairs"):
        paired(prepared, recipe_of(prepared, judge=judge), answers, tmp_path)


def test_an_error_about_the_judge_names_its_section(prepared: Run, tmp_path: Path) -> None:
    judge = {"kind": "function", "model": "os:system"}
    answers = written(tmp_path / "answers", ["p"], [[("a", True), ("b", True)]])
    with pytest.raises(JudgeError, match=r"^augment\.judge\.model is the function os:system"):
        paired(prepared, recipe_of(prepared, judge=judge), answers, tmp_path)


class Scorer:
    """A reward model that counts letters: people chose the longer answer, ``Of course``."""

    @property
    def identity(self) -> dict[str, Any]:
        return {"kind": "classifier", "weights": "w" * 64}

    def verdicts(self, asked: Sequence[Comparison]) -> Iterator[tuple[int, Verdict]]:
        for number, one in enumerate(asked):
            first = len(one.first) > len(one.second)
            yield number, Verdict(Outcome.FIRST if first else Outcome.SECOND)

    def scores(self, texts: Sequence[tuple[str, str]]) -> list[float]:
        return [float(len(answer)) for _, answer in texts]


def test_a_reward_model_scores_each_answer_once_and_its_scores_are_in_the_pair(
    prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "judge_of", lambda settings, section: Scorer())
    given = [[("bbb", True), ("a", True), ("ccccc", True)], [("aa", True), ("bb", True)]]
    answers = written(tmp_path / "answers", ["pair", "tie"], given)
    made = paired(prepared, recipe_of(prepared), answers, tmp_path)
    (row,) = [json.loads(line) for line in made.file("pairs-round-1.jsonl").read_text().splitlines()]
    assert (row["chosen_score"], row["rejected_score"], row["judge"]) == (5.0, 1.0, "classifier:wwwwwwwwwwww")
    assert made.load("report.json")["dropped"]["tie"] == 1


def test_a_file_of_prompts_is_in_the_identity_of_the_answers(prepared: Run, tmp_path: Path) -> None:
    file = tmp_path / "asked.jsonl"
    file.write_text('{"prompt": "Hi?"}\n')
    spec = spec_of(prepared, recipe_of(prepared))
    changed = [
        spec.model_copy(update={"prompts": resolve_sources([str(file)])}),
        spec.model_copy(update={"policy": None}),
        *(
            spec.model_copy(update={"recipe": recipe_of(prepared, **one)})
            for one in ({"top_p": 0.5}, {"max_prompts": 5})
        ),
    ]
    same = spec.model_copy(update={"recipe": recipe_of(prepared, generation_batch_size=2, iterations=9)})

    def digests(each: SampleSpec) -> str:
        return json.dumps([each.inputs(), each.options()], sort_keys=True)

    assert len({digests(each) for each in (spec, *changed)}) == 5
    assert digests(same) == digests(spec)
