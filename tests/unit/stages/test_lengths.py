"""Rows that later stages could not use are found by the tokenizer alone."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from preflow.artifacts import Artifact, build
from preflow.config import Recipe
from preflow.data.rows import Demonstration, Message, Pair, Source
from preflow.data.tokens.chat_template import Renderer
from preflow.data.validated import rows_file, write_rows
from preflow.errors import ConfigError, DataUnfitError, TemplateError
from preflow.models.loading import load_tokenizer
from preflow.models.resolve import resolve_model
from preflow.observer import Silent
from preflow.specs import LengthsSpec
from preflow.stages.lengths import run_lengths
from tests.conftest import make_tokenizer
from tests.fixtures.prepared_run import Run
from tests.unit.support import COMMON, EVAL_PAIRS, TRAIN_PAIRS, Notes, recipe_for, turns


def measured(prepared: Run, folder: Path, recipe: Recipe | None = None, data: Artifact | None = None) -> Artifact:
    spec = LengthsSpec(recipe=recipe or prepared.recipe, base=prepared.base, data=data or prepared.data)
    return build(folder / "lengths", lambda out: run_lengths(spec, out, Silent()))


def limited(prepared: Run, **changes: object) -> Recipe:
    """A recipe whose DPO section has other limits."""
    return recipe_for(prepared.base, dpo={**COMMON, "learning_rate": 1e-3, **changes})


def pair(parts: list[tuple[Message, ...]], file: str, row: int) -> Pair:
    """A pair from prompt, chosen and rejected, as ``turns`` gives them."""
    prompt, chosen, rejected = parts
    return Pair(prompt, chosen, rejected, Source(file, row))


def data_with(folder: Path, pairs: list[Pair], held_out: list[Pair] | None = None) -> Artifact:
    prompt, answer = turns("Hello?", "Hello!")
    held_out = held_out or [pair(turns("Hello?", "Hello!", "No."), "p.jsonl", 99)]

    def write(out: Path) -> None:
        write_rows(out / rows_file("demonstrations", "train"), [Demonstration(prompt + answer, Source("d.jsonl", 1))])
        write_rows(out / rows_file("demonstrations", "eval"), [])
        write_rows(out / rows_file("preferences", "train"), pairs)
        write_rows(out / rows_file("preferences", "eval"), held_out)

    return build(folder / "data", write)


def test_it_counts_what_the_later_stages_count(prepared: Run, tmp_path: Path) -> None:
    report = measured(prepared, tmp_path).load("report.json")
    stored = prepared.reference.load("report.json")
    assert {side: report["dpo"][side]["rows"] for side in ("train", "eval")} == stored
    assert report["sft"]["train"]["rows"] == prepared.sft.load("report.json")["rows"]
    assert report["dpo"]["train"]["rows"]["rows_in"] == TRAIN_PAIRS
    assert report["dpo"]["eval"]["rows"]["rows_in"] == EVAL_PAIRS


def test_more_tokens_than_learned_positions_are_refused(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(str(tmp_path / "gpt2"))
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=1, n_positions=64)
    GPT2LMHeadModel(config).save_pretrained(str(tmp_path / "gpt2"))
    base = resolve_model(Recipe(strategy="sft", model_name=str(tmp_path / "gpt2")), Silent())
    data = data_with(tmp_path, [pair(turns("Which?", "this", "that"), "p.jsonl", 1)])
    specs = [LengthsSpec(recipe=recipe_for(base, max_seq_length=limit), base=base, data=data) for limit in (64, 65)]
    build(tmp_path / "fits", lambda out: run_lengths(specs[0], out, Silent()))
    with pytest.raises(ConfigError, match=r"sft\.max_seq_length is 65, but .* has learned 64 positions"):
        build(tmp_path / "does not", lambda out: run_lengths(specs[1], out, Silent()))


def test_tokens_are_those_of_the_tokenizer(prepared: Run, tmp_path: Path) -> None:
    """Three pairs whose longer sides are one, two and three words beyond one prompt; the last one is a rejected."""
    texts = [turns("Which?", " ".join(["ok"] * n), "x") for n in (1, 2)]
    texts.append(turns("Which?", "x", "ok ok ok"))
    pairs = [pair(parts, "p.jsonl", n) for n, parts in enumerate(texts, 1)]
    report = measured(prepared, tmp_path, data=data_with(tmp_path, pairs)).load("report.json")
    tokenizer = load_tokenizer(prepared.base, prepared.recipe)
    lengths = [
        len(
            tokenizer.encode(
                f"<|im_start|>user\nWhich?<|im_end|>\n<|im_start|>assistant\n{' '.join(['ok'] * n)}<|im_end|>"
            )
        )
        for n in (1, 2, 3)
    ]
    tokens = report["dpo"]["train"]["tokens"]
    assert tokens["p50"] == lengths[1]
    assert tokens["p100"] == lengths[2]
    assert tokens["total"] == sum(lengths)


def test_pairs_that_do_not_fit_are_refused_by_name(prepared: Run, tmp_path: Path) -> None:
    with pytest.raises(DataUnfitError, match=r"no training pair .*max_seq_length 8.*before anything.*p\.jsonl:0"):
        measured(prepared, tmp_path, limited(prepared, max_seq_length=8))


def test_some_rows_too_long_are_counted_and_the_rest_goes_on(prepared: Run, tmp_path: Path) -> None:
    texts = [turns("Which?", "yes", "no"), turns("Which?", "yes " * 300, "no"), turns("Which " * 300, "yes", "no")]
    pairs = [pair(parts, "p.jsonl", n) for n, parts in enumerate(texts, 1)]
    done = measured(prepared, tmp_path, data=data_with(tmp_path, pairs))
    rows = done.load("report.json")["dpo"]["train"]["rows"]
    assert (rows["rows_in"], rows["used"]) == (3, 1)
    assert rows["dropped"] == {"prompt_too_long": 1, "response_too_long": 1}
    assert rows["examples"] == {"prompt_too_long": ["p.jsonl:3"], "response_too_long": ["p.jsonl:2"]}
    assert done.load("metrics.json")["lengths/dpo_dropped"] == 2


def test_no_held_out_pair_left_is_refused(prepared: Run, tmp_path: Path) -> None:
    long = pair(turns("Which?", "yes " * 300, "no"), "e.jsonl", 7)
    short = pair(turns("Which?", "yes", "no"), "p.jsonl", 1)
    with pytest.raises(DataUnfitError, match=r"no held-out pair .*e\.jsonl:7"):
        measured(prepared, tmp_path, data=data_with(tmp_path, [short], [long]))


def test_a_row_that_the_template_refuses_is_named(prepared: Run, tmp_path: Path) -> None:
    """``template: none`` joins one prompt and one response; a held-out pair with more turns would fail after SFT."""
    recipe = recipe_for(prepared.base, template="none")
    prompt, yes, no = turns("Which?", "yes", "no")
    more = (Message("user", "Hi"), Message("assistant", "Hi!"), *prompt)
    data = data_with(tmp_path, [pair([prompt, yes, no], "p.jsonl", 1)], [pair([more, yes, no], "e.jsonl", 3)])
    with pytest.raises(TemplateError, match=r"e\.jsonl:3: .*3 turns"):
        measured(prepared, tmp_path, recipe, data)


def test_no_weight_is_loaded(prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("preflow.models.loading.AutoModelForCausalLM.from_pretrained", refuse)
    measured(prepared, tmp_path)


def test_every_row_is_rendered(prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held-out rows too: evaluation comes hours after the start."""
    seen: list[str] = []
    original = Renderer.response_ids

    def watch(self: Renderer, prompt: tuple[Message, ...], *rest: object) -> list[int]:
        seen.append(prompt[-1].content)
        return original(self, prompt, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Renderer, "response_ids", watch)
    measured(prepared, tmp_path)
    assert len([text for text in seen if text.startswith("Can I return")]) == 2 * (TRAIN_PAIRS + EVAL_PAIRS)
    assert len([text for text in seen if text.startswith("Where is order")]) == 24


def test_rows_beyond_a_rotary_models_positions_are_said_with_both_numbers(prepared: Run, tmp_path: Path) -> None:
    """The same model with 16 positions: every row is longer, and each part of the rows is counted by itself."""
    shutil.copytree(prepared.base.path, tmp_path / "short")
    config = json.loads((tmp_path / "short" / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "short" / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 16}))
    notes = Notes()
    base = prepared.base.model_copy(update={"path": str(tmp_path / "short"), "name": "short"})
    spec = LengthsSpec(recipe=prepared.recipe, base=base, data=prepared.data)
    artifact = build(tmp_path / "lengths", lambda out: run_lengths(spec, out, notes))
    longest = artifact.load("report.json")["dpo"]["train"]["tokens"]["p100"]
    said = [note for note in notes.messages if "positions that short was trained on" in note]
    assert len(said) == 4
    assert f"{TRAIN_PAIRS} of {TRAIN_PAIRS} training pairs are longer than the 16 positions" in said[1]
    assert f"(longest: {longest} tokens)" in said[1]


def test_modules_that_the_model_does_not_have_end_the_run_before_any_training(prepared: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sft\.lora_target_modules has 'c_attn', which matches no layer"):
        measured(prepared, tmp_path, recipe_for(prepared.base, lora_target_modules=["c_attn"]))


CLOCK = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{{ strftime_now('%Y') }}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{{ m.content if loop.last else m.content | upper }}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_what_the_chat_template_does_to_rows_is_said_and_counted_before_training(prepared: Run, tmp_path: Path) -> None:
    """One row of two answers with a system turn: two rows, the system text before the first question."""
    talk = (Message("system", "Be kind."), *sum(turns("Hi?", "Hello!"), ()), *sum(turns("And you?", "Fine."), ()))

    def write(out: Path) -> None:
        write_rows(out / rows_file("demonstrations", "train"), [Demonstration(talk, Source("d.jsonl", 1))])
        write_rows(out / rows_file("demonstrations", "eval"), [Demonstration(talk, Source("d.jsonl", 2))])
        write_rows(out / rows_file("preferences", "train"), [pair(turns("Hi?", "Hello!", "No."), "p.jsonl", 1)])
        write_rows(out / rows_file("preferences", "eval"), [pair(turns("Hi?", "Hello!", "No."), "p.jsonl", 2)])

    notes, recipe = Notes(), recipe_for(prepared.base, chat_template=CLOCK)
    spec = LengthsSpec(recipe=recipe, base=prepared.base, data=build(tmp_path / "data", write))
    artifact = build(tmp_path / "lengths", lambda out: run_lengths(spec, out, notes))
    rows = artifact.load("report.json")["sft"]["train"]["rows"]
    assert (rows["rows_in"], rows["split"], rows["used"]) == (1, 1, 2)
    assert rows["changed"] == {"split_by_answer": 1, "system_in_user_turn": 1}
    metrics = artifact.load("metrics.json")
    assert metrics["lengths/sft_split"] == metrics["lengths/sft_system_in_user_turn"] == 2.0
    assert "lengths/dpo_system_in_user_turn" not in metrics
    said = "\n".join(notes.messages)
    assert "rows have 2024-07-26 in its place (template_date)" in said
    assert "training demonstrations: 1 of 1 rows (system_in_user_turn): the chat template has no system turn" in said
    assert "training demonstrations: 1 of 1 rows (split_by_answer): the chat template rewrites earlier turns" in said
    assert "held-out demonstrations: 1 rows in (2 as one per answer)" in said
    assert said.count("the chat template has no system turn") == 1, "what it means is said once"


def test_a_tokenizer_carries_the_recipes_chat_template_into_what_is_saved(prepared: Run, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(prepared.base, recipe_for(prepared.base, chat_template=CLOCK))
    tokenizer.save_pretrained(str(tmp_path))
    assert AutoTokenizer.from_pretrained(str(tmp_path)).chat_template == CLOCK
