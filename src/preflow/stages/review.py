"""The answers that people compare: those that an evaluation kept, or new ones to prompts that it did not ask."""

from collections.abc import Mapping, Sequence

from preflow.artifacts import Artifact
from preflow.config import EvaluationSettings
from preflow.data.rows import Message, content_id, first_user_turn
from preflow.data.splits import cluster_key
from preflow.data.tokens.tokenize import prompt_with_room
from preflow.data.validated import Split, load_demonstrations, load_pairs
from preflow.evaluation.answers import Prompt
from preflow.evaluation.generation import sampled
from preflow.evaluation.models import ModelSet
from preflow.maths.spread import evenly_spaced
from preflow.models.loading import position_limit
from preflow.observer import Observer
from preflow.review.key import ReviewPair
from preflow.specs import EvaluateSpec

#: Turns of a prompt by its content id.
Turns = dict[str, tuple[Message, ...]]


def prompts_of(data: Artifact, split: Split) -> Turns:
    """Every distinct prompt of a split: those of the pairs, or else of the demonstrations."""
    pairs = [row.prompt for row in load_pairs(data, split)]
    turns = pairs or [row.messages[:-1] for row in load_demonstrations(data, split)]
    return {content_id(prompt): prompt for prompt in turns}


def kept_answers(evaluation: Artifact, name: str) -> dict[str, str]:
    """Answers that one model sampled in its run's evaluation, by the content id of the prompt; empty without any."""
    if not evaluation.file(f"answers/{name}.json").is_file():
        return {}
    rows = evaluation.load(f"answers/{name}.json")
    return {row["prompt_id"]: row["text"] for row in rows if row["seed"] is not None and row["prompt_id"]}


def new_answers(
    spec: EvaluateSpec, name: str, prompts: Turns, settings: EvaluationSettings, seed: int, observer: Observer
) -> dict[str, str]:
    """Answers that one model samples now, or gave to the same prompts before, by the content id of the prompt.

    Prompts that leave no room for an answer within the model's lengths are left out.

    Args:
        spec: The models.
        name: Which of them answers.
        prompts: What is asked.
        settings: Longest answer and batch size.
        seed: Of the sampling.
        observer: Receives progress.
    """
    models = ModelSet(spec)
    models.keep([name])
    length = spec.recipe.training_sections[-1][1].max_seq_length
    positions = position_limit(spec.base, spec.recipe)
    asked: list[Prompt] = []
    for prompt, turns in prompts.items():
        ids = prompt_with_room(turns, models.renderer, length, settings.max_new_tokens)
        if len(ids) < length and (positions is None or len(ids) + settings.max_new_tokens <= positions):
            asked.append(Prompt(turns[-1].content, ids, prompt, cluster_key(first_user_turn(turns))))
    rows = sampled(models, name, asked, settings, seed, observer) if asked else []
    texts = [str(models.tokenizer.decode(list(ids), skip_special_tokens=True)).strip() for _, ids in rows]
    return {prompt.id: text for prompt, text in zip(asked, texts, strict=True)}


def paired_answers(prompts: Turns, new: Mapping[str, str], old: Mapping[str, str]) -> list[ReviewPair]:
    """Both models' answers to the prompts that both were asked, in the order of the new ones."""
    return [
        ReviewPair(
            prompt_id=prompt,
            cluster=cluster_key(first_user_turn(prompts[prompt])),
            prompt=ReviewPair.turns_json(prompts[prompt]),
            new=text,
            old=old[prompt],
        )
        for prompt, text in new.items()
        if prompt in old and prompt in prompts
    ]


def spread(prompts: Turns, count: int) -> Turns:
    """``count`` of the prompts, spread evenly."""
    names: Sequence[str] = list(prompts)
    return {name: prompts[name] for name in evenly_spaced(names, count)}
