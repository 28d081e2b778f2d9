"""Generated responses: sampled ones with their KL divergence, and greedy answers for the summary."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import GenerationConfig

from preflow.config import EvaluationSettings
from preflow.data.rows import Message, Source, content_id, first_user_turn
from preflow.data.splits import cluster_key
from preflow.data.tokens.tokenize import prompt_with_room
from preflow.data.validated import load_demonstrations, load_pairs
from preflow.evaluation.answers import Decoding, Prompt, kept_answers
from preflow.evaluation.models import ModelSet
from preflow.maths.clusters import cluster_count, cluster_numbers
from preflow.maths.divergence import kl_divergence
from preflow.maths.intervals import standard_error
from preflow.maths.spread import evenly_spaced
from preflow.models.loading import position_limit
from preflow.models.out_of_memory import run_in_halving_batches
from preflow.models.scoring import PromptResponse, all_response_logits
from preflow.observer import Observer
from preflow.specs import EvaluateSpec

_ANSWERS = 3
#: Logits of a policy that are held at once: 128 MB in float32.
_LOGITS_HELD = 32 * 2**20


def held_out_prompts(spec: EvaluateSpec, models: ModelSet) -> tuple[list[Prompt], list[str]]:
    """Distinct held-out prompts: those of the pairs, or else of the demonstrations.

    Returns:
        The prompts that leave room for an answer within ``max_seq_length`` (long conversations without their oldest
        turns, as in training) and within the model's positions, and the source rows of the others.
    """
    turns: list[tuple[tuple[Message, ...], Source]]
    _, settings = spec.recipe.training_sections[-1]
    if spec.recipe.dpo is not None:
        turns = [(pair.prompt, pair.source) for pair in load_pairs(spec.data, "eval")]
    else:
        turns = [(row.messages[:-1], row.source) for row in load_demonstrations(spec.data, "eval")]
    answer, positions = spec.recipe.evaluation.max_new_tokens, position_limit(spec.base, spec.recipe)
    first: dict[tuple[Message, ...], Source] = {}
    for messages, source in turns:
        first.setdefault(messages, source)
    fit, too_long = [], []
    for messages, source in first.items():
        ids = prompt_with_room(messages, models.renderer, settings.max_seq_length, answer)
        if len(ids) < settings.max_seq_length and (positions is None or len(ids) + answer <= positions):
            cluster = cluster_key(first_user_turn(messages))
            fit.append(Prompt(messages[-1].content, ids, content_id(messages), cluster))
        else:
            too_long.append(str(source))
    return fit, too_long


def answer_report(
    models: ModelSet, prompts: list[Prompt], settings: EvaluationSettings, seed: int, observer: Observer
) -> dict[str, dict[str, Any]]:
    """Sampled response lengths of every model, and the KL of each trained model from those before it.

    KL(policy || reference) is the exact full-vocabulary KL at every position of responses that the policy itself
    samples (temperature 1, no top-k, no top-p), summed over the response, in nats; mean over prompts with its standard
    error, clustered where prompts share their first user turn. A response cut at ``max_new_tokens`` counts up to the
    cut; the share of such responses is reported.

    Args:
        models: The models of the run.
        prompts: Held-out prompts to answer.
        settings: Longest response and batch size.
        seed: Of the sampling.
        observer: Receives progress.

    Returns:
        Per model: ``response_tokens``, ``cut_share``, and ``kl_base`` / ``kl_sft`` with ``value`` and ``se``.
    """
    results: dict[str, dict[str, Any]] = {name: {} for name in models.names}
    clusters = cluster_numbers(prompt.cluster or place for place, prompt in enumerate(prompts))
    for index, name in enumerate(models.names if prompts else []):
        rows = sampled(models, name, prompts, settings, seed, observer)
        ended = [response[-1] in models.renderer.end_ids for _, response in rows]
        results[name]["response_tokens"] = float(np.mean([len(response) for _, response in rows]))
        results[name]["cut_share"] = 1 - sum(ended) / len(ended)
        for reference, values in _divergences(models, name, models.names[:index], rows, observer).items():
            spread_of = {"se": standard_error(values, clusters)} if cluster_count(clusters) > 1 else {}
            results[name][f"kl_{reference}"] = {"value": float(values.mean()), **spread_of}
    return results


def samples(
    models: ModelSet, held_out: list[Prompt], settings: EvaluationSettings, observer: Observer
) -> list[dict[str, Any]]:
    """Greedy answers of every model to the recipe's sample prompts, filled up to three with held-out ones."""
    own = [
        Prompt(text, models.renderer.prompt_ids([Message("user", text)]), content_id([Message("user", text)]))
        for text in settings.sample_prompts
    ]
    prompts = own + evenly_spaced(held_out, max(0, _ANSWERS - len(own)))
    answers: dict[str, list[str]] = {}
    decoding = Decoding(None, settings.max_new_tokens, len(prompts))
    for name in models.names if prompts else []:

        def greedy(name: str = name) -> list[list[int]]:
            return generate(models, name, [prompt.ids for prompt in prompts], settings.max_new_tokens, sample=False)

        batch = kept_answers(models, name, prompts, decoding, greedy)
        answers[name] = [str(models.tokenizer.decode(ids, skip_special_tokens=True)).strip() for ids in batch]
        observer.progress(len(answers), len(models.names), "evaluate: sample answers")
    return [
        {"prompt": prompt.text, "answers": {name: answers[name][i] for name in answers}}
        for i, prompt in enumerate(prompts)
    ]


@torch.no_grad()
def generate(
    models: ModelSet, name: str, prompts: Sequence[list[int]], max_new_tokens: int, *, sample: bool
) -> list[list[int]]:
    """Responses to prompts, their end-of-turn token included where it was reached.

    Sampling is from the model's own distribution: the generation settings that a model ships with (a temperature of
    0.6, say) are not used.

    Args:
        models: The models of the run.
        name: Which of them answers.
        prompts: B prompts of token ids; padded on the left here.
        max_new_tokens: Longest response.
        sample: Sample at temperature 1 without top-k or top-p; else take the most probable token each time.

    Returns:
        B responses of 1 to ``max_new_tokens`` token ids.
    """
    ends, pad = sorted(models.renderer.end_ids), models.tokenizer.pad_token_id
    chosen = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0} if sample else {"do_sample": False}
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=max_new_tokens, eos_token_id=ends, pad_token_id=pad, **chosen
    )
    width = max(len(ids) for ids in prompts)
    ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts], device=models.precision.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=models.precision.device)
    model = models.use(name)
    # A model's own generation_config would fill in whatever ours leaves at its default.
    model.generation_config = config
    with models.precision.autocast():
        output = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
    return [_until_end(row, ends) for row in output[:, width:].tolist()]


def sampled(
    models: ModelSet, name: str, prompts: list[Prompt], settings: EvaluationSettings, seed: int, observer: Observer
) -> list[PromptResponse]:
    """Prompts with one model's sampled answers (temperature 1), which are kept for every later use."""

    def answer() -> list[list[int]]:
        models.use(name)  # loading an adapter draws random numbers, so it comes before the seed
        torch.manual_seed(seed)
        return [list(response) for _, response in _sampled(models, name, prompts, settings, observer)]

    decoding = Decoding(seed, settings.max_new_tokens, settings.generation_batch_size)
    answers = kept_answers(models, name, prompts, decoding, answer)
    return [(prompt.ids, ids) for prompt, ids in zip(prompts, answers, strict=True)]


def _sampled(
    models: ModelSet, name: str, prompts: list[Prompt], settings: EvaluationSettings, observer: Observer
) -> list[PromptResponse]:
    rows: list[PromptResponse] = []
    batches = run_in_halving_batches(
        [prompt.ids for prompt in prompts],
        settings.generation_batch_size,
        lambda batch: generate(models, name, batch, settings.max_new_tokens, sample=True),
        lambda tried, size: observer.note(f"evaluate: out of memory with {tried} answers at once; trying {size}"),
    )
    for batch, answers in batches:
        rows.extend(zip(batch, answers, strict=True))
        observer.progress(len(rows), len(prompts), f"evaluate: {name} model answers")
    return rows


def _divergences(
    models: ModelSet, name: str, references: list[str], rows: list[PromptResponse], observer: Observer
) -> dict[str, NDArray[np.float64]]:
    """KL of one model's responses from each reference, shape ``(prompts,)`` each."""
    values: dict[str, list[float]] = {reference: [] for reference in references}
    longest = max((len(response) for _, response in rows), default=1)
    at_once = max(1, _LOGITS_HELD // (longest * len(models.tokenizer)))
    for start in range(0, len(rows) if references else 0, at_once):
        some = rows[start : start + at_once]
        policy = list(all_response_logits(models.use(name), some, models.precision))
        for reference in references:
            others = all_response_logits(models.use(reference), some, models.precision)
            pairs = zip(policy, others, strict=True)
            values[reference] += [float(kl_divergence(own, other).double().sum()) for own, other in pairs]
        observer.progress(start + len(some), len(rows), f"evaluate: KL of the {name} model")
    return {reference: np.array(kls, dtype=np.float64) for reference, kls in values.items()}


def _until_end(ids: list[int], ends: list[int]) -> list[int]:
    last = next((i for i, token in enumerate(ids) if token in ends), len(ids) - 1)
    return ids[: last + 1]
