"""Answers that a model of the recipe samples to training prompts."""

from collections.abc import Sequence
from pathlib import Path

from preflow.artifacts import write_json
from preflow.data.rows import content_id, first_user_turn, to_json
from preflow.data.splits import cluster_key
from preflow.data.tokens.chat_template import Renderer
from preflow.data.tokens.tokenize import prompt_with_room
from preflow.environment import store_folder
from preflow.errors import DataUnfitError
from preflow.fingerprints.code import code_digest
from preflow.logprobs.identity import identify
from preflow.maths.spread import evenly_spaced
from preflow.models.cpu.lora_linear import fuse_lora
from preflow.models.loading import LanguageModel, load_policy, load_tokenizer, position_limit
from preflow.models.precision import Precision, choose_precision
from preflow.observer import Observer
from preflow.on_policy.answers import ANSWERS, Row, write_answers
from preflow.on_policy.prompts import TrainingPrompt, training_prompts
from preflow.sampling.answer_store import AnswerStore, prompt_key
from preflow.sampling.decode import Decoding, Wanted, sample_answers
from preflow.specs import SampleSpec

#: What computes an answer besides the model, whose own code is in its identity.
_CODE = "preflow.sampling.decode:sample_answers"
_NAMED = 5


def run_sampling(spec: SampleSpec, out: Path, observer: Observer) -> None:
    """Sample ``augment.num_generations`` answers to each training prompt, and keep them by content.

    Writes ``answers.jsonl`` (per prompt: its turns, content id, cluster and source, and its answers with text, number
    of tokens and whether each finished), ``report.json`` (prompts found, left out by reason and by name, answered; the
    policy's digest) and ``metrics.json``. What was sampled before is not sampled again.

    Raises:
        DataUnfitError: No prompt is left to be answered.
    """
    settings = spec.recipe.augment
    precision = choose_precision(spec.recipe)
    tokenizer = load_tokenizer(spec.base, spec.recipe)
    renderer = Renderer(tokenizer, spec.recipe.rendering)
    found = training_prompts(spec.recipe, spec.data, spec.prompts)
    if found.held_out:
        observer.note(f"sample: held-out prompts are not answered: {_names(found.held_out)}")
    prompts, ids, too_long = _with_room(spec, renderer, found.prompts)
    if not prompts:
        raise DataUnfitError(
            f"no prompt is left to be answered: {len(found.held_out)} are held out, {len(too_long)} leave no room for "
            f"{settings.max_new_tokens} tokens. Give augment.prompts others, or lower augment.max_new_tokens"
        )
    decoding = Decoding(
        settings.temperature, settings.top_p, settings.max_new_tokens, renderer.end_ids, spec.recipe.seed
    )
    model, answers = _answers(spec, ids, decoding, precision, observer)
    strips = spec.recipe.template == "chat"
    rows: list[Row] = [
        {
            "prompt": to_json(prompt.messages),
            "prompt_id": content_id(prompt.messages),
            "cluster": cluster_key(first_user_turn(prompt.messages)),
            "source": str(prompt.source),
            "answers": [
                {
                    "text": text.strip() if strips else text,
                    "tokens": len(answer),
                    "finished": answer[-1] in renderer.end_ids,
                }
                for answer in given
                for text in [str(tokenizer.decode(answer, skip_special_tokens=True))]
            ],
        }
        for prompt, given in zip(prompts, answers, strict=True)
    ]
    write_answers(out / ANSWERS, rows)
    report = {**found.to_json(), "too_long": too_long, "answered": len(rows)}
    write_json(out / "report.json", {"policy": model, "seed": spec.recipe.seed, "prompts": report})
    every: list[Row] = [answer for row in rows for answer in row["answers"]]
    metrics = {
        "prompts": len(rows),
        "answers": len(every),
        "held_out_prompts": len(found.held_out),
        "answer_tokens": sum(answer["tokens"] for answer in every) / len(every),
        "cut_share": sum(not answer["finished"] for answer in every) / len(every),
    }
    write_json(out / "metrics.json", {f"sample/{name}": float(value) for name, value in metrics.items()})


def _with_room(
    spec: SampleSpec, renderer: Renderer, prompts: Sequence[TrainingPrompt]
) -> tuple[list[TrainingPrompt], list[list[int]], list[str]]:
    """Prompts that leave room for an answer, as many as are wanted; their token ids; and the rows of the others."""
    dpo, settings = spec.recipe.dpo, spec.recipe.augment
    assert dpo is not None, "new pairs are for a DPO stage"
    positions = position_limit(spec.base, spec.recipe)
    fit, too_long = list[tuple[TrainingPrompt, list[int]]](), list[str]()
    for prompt in prompts:
        ids = prompt_with_room(prompt.messages, renderer, dpo.max_seq_length, settings.max_new_tokens)
        if len(ids) + settings.max_new_tokens <= min(dpo.max_seq_length, positions or dpo.max_seq_length):
            fit.append((prompt, ids))
        else:
            too_long.append(str(prompt.source))
    some = fit if settings.max_prompts is None else evenly_spaced(fit, settings.max_prompts)
    return [prompt for prompt, _ in some], [ids for _, ids in some], too_long


def _answers(
    spec: SampleSpec, prompts: list[list[int]], decoding: Decoding, precision: Precision, observer: Observer
) -> tuple[str, list[list[list[int]]]]:
    """The policy's digest, and the answers to each prompt, from the store or sampled now."""
    settings = spec.recipe.augment
    trained = None if spec.policy is None else spec.policy.file("model")
    identity = identify(spec.base, trained, spec.recipe, precision)
    how = {name: getattr(decoding, name) for name in ("temperature", "top_p", "max_new_tokens", "ends", "seed")}
    store = AnswerStore(
        store_folder() / "samples",
        {"model": identity.values, "code": code_digest(_CODE), "decoding": {**how, "ends": list(decoding.ends)}},
    )
    numbers = range(settings.num_generations)
    known = store.find(prompts)
    distinct = {prompt_key(prompt): prompt for prompt in prompts}
    wanted = [
        Wanted(prompt, missing)
        for key, prompt in distinct.items()
        if (missing := [number for number in numbers if (key, number) not in known])
    ]
    if wanted:
        model = _policy(spec, trained, precision)
        done, total = len(distinct) - len(wanted), len(distinct)
        for batch in sample_answers(model, wanted, decoding, precision, settings.generation_batch_size, observer.note):
            identity.require_unchanged()
            store.keep(
                (wanted[place].prompt, number, answer)
                for place, given in batch
                for number, answer in zip(wanted[place].numbers, given, strict=True)
            )
            done += len(batch)
            observer.progress(done, total, "sample: prompts answered")
        known = store.find(prompts)
    return identity.digest(), [[known[prompt_key(prompt), number] for number in numbers] for prompt in prompts]


def _policy(spec: SampleSpec, trained: Path | None, precision: Precision) -> LanguageModel:
    model = load_policy(spec.base, trained, spec.recipe, precision)
    fuse_lora(model)
    return model.eval()


def _names(rows: Sequence[str]) -> str:
    return ", ".join(rows[:_NAMED]) + (f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else "")
