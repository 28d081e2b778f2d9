"""Speed of sampling: transformers' plain ``generate`` with prompts as they come, and Preflow, batch by batch in turn.

``python -m bench.bench_generation [--data FILE] [--prompts N] [--quick]`` lets SmolLM2-135M answer the same prompts
several times each (temperature 1, all tokens), with as many answers in a batch for both, and prints tokens per second
and per second of CPU, their ratios, and last one JSON line. Without a file, prompts of the demo's pairs are used.

A machine that is shared slows both alike, since they take turns; the ratio of CPU time is the steadier one.
"""

import json
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from transformers import GenerationConfig

from preflow.config import Recipe
from preflow.config.validation import ReadingSettings
from preflow.data.conversion import RowProblem
from preflow.data.files.reader import read_rows
from preflow.data.files.sources import resolve_sources
from preflow.data.tokens.chat_template import Renderer
from preflow.models.loading import load_tokenizer, load_weights
from preflow.models.precision import Precision, choose_precision
from preflow.models.resolve import resolve_model
from preflow.observer import Silent
from preflow.on_policy.prompts import read_prompt_of
from preflow.sampling.decode import Decoding, Wanted, sample_answers

DEMO = Path(__file__).parents[1] / "recipes" / "demo" / "preferences.jsonl"
#: Tokens of the longest prompt.
_LONGEST = 512


@dataclass
class Spent:
    """What a contender has generated, and what it took.

    Attributes:
        tokens: Of answers, their end tokens included.
        seconds: On the clock.
        cpu: Of all cores.
    """

    tokens: int = 0
    seconds: float = 0.0
    cpu: float = 0.0

    def step(self, batches: Iterator[int]) -> bool:
        """Run one batch; false where there is none left."""
        clock, cpu = time.perf_counter(), time.process_time()
        tokens = next(batches, None)
        if tokens is None:
            return False
        self.seconds += time.perf_counter() - clock
        self.cpu += time.process_time() - cpu
        self.tokens += tokens
        return True


def main(
    data: Annotated[Path, typer.Option(help="Rows with prompts.")] = DEMO,
    prompts: Annotated[int, typer.Option(help="How many of them, drawn with seed 0.")] = 100,
    num_generations: Annotated[int, typer.Option(help="Answers to each prompt.")] = 4,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 64,
    batch_size: Annotated[int, typer.Option(help="Answers in a batch.")] = 16,
    quick: Annotated[bool, typer.Option("--quick", help="Twelve prompts, answers of eight tokens.")] = False,
) -> None:
    """Measure both in turn."""
    prompts, max_new_tokens = (12, 8) if quick else (prompts, max_new_tokens)
    recipe = Recipe.model_validate(
        {"strategy": "sft", "model_name": "SmolLM2-135M-Instruct", "max_seq_length": _LONGEST}
    )
    base, precision = resolve_model(recipe, Silent()), choose_precision(recipe)
    model, renderer = (
        load_weights(base.path, recipe, precision),
        Renderer(load_tokenizer(base, recipe), recipe.rendering),
    )
    ids = prompt_ids(data, renderer, prompts)
    decoding = Decoding(1.0, 1.0, max_new_tokens, renderer.end_ids, seed=0)
    print(f"{len(ids)} prompts of {min(map(len, ids))} to {max(map(len, ids))} tokens, {num_generations} answers each")
    spent = measure(
        plain(model, ids, decoding, precision, num_generations, batch_size),
        preflow(model, ids, decoding, precision, num_generations, batch_size),
    )
    report(*spent)


def prompt_ids(data: Path, renderer: Renderer, count: int) -> list[list[int]]:
    """Token ids of distinct prompts, drawn with a seed, in the order in which they were drawn."""
    found: dict[tuple[int, ...], None] = {}
    for row in read_rows(resolve_sources([str(data)])[0]):
        with suppress(RowProblem):
            ids = renderer.prompt_ids(read_prompt_of(row, ReadingSettings()))
            if len(ids) <= _LONGEST:
                found[tuple(ids)] = None
    return [list(ids) for ids in random.Random(0).sample(list(found), min(count, len(found)))]


@torch.inference_mode()
def plain(
    model: Any, prompts: Sequence[list[int]], how: Decoding, precision: Precision, answers: int, size: int
) -> Iterator[int]:
    """Tokens of each batch of transformers' ``generate``, prompts as they come."""
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=how.max_new_tokens,
        eos_token_id=list(how.ends),
        pad_token_id=how.ends[0],
        do_sample=True,
        temperature=how.temperature,
        top_k=0,
        top_p=how.top_p,
        num_return_sequences=answers,
    )
    torch.manual_seed(how.seed)
    model.generation_config = config
    each = max(1, size // answers)
    for start in range(0, len(prompts), each):
        batch = prompts[start : start + each]
        width = max(map(len, batch))
        ids = torch.tensor([[how.ends[0]] * (width - len(p)) + p for p in batch], device=precision.device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in batch], device=precision.device)
        with precision.autocast():
            output = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
        yield sum(_length(row, how.ends) for row in output[:, width:].tolist())


def _length(ids: list[int], ends: Sequence[int]) -> int:
    """Tokens up to the end token, itself included."""
    return next((place + 1 for place, token in enumerate(ids) if token in ends), len(ids))


def preflow(
    model: Any, prompts: Sequence[list[int]], how: Decoding, precision: Precision, answers: int, size: int
) -> Iterator[int]:
    """Tokens of each batch of Preflow's sampling."""
    wanted = [Wanted(prompt, range(answers)) for prompt in prompts]
    for batch in sample_answers(model, wanted, how, precision, size, print):
        yield sum(len(answer) for _, found in batch for answer in found)


def measure(theirs: Iterator[int], ours: Iterator[int]) -> tuple[Spent, Spent]:
    """Run both, batch by batch in turn, until they have no batch left."""
    first, second = Spent(), Spent()
    while any([first.step(theirs), second.step(ours)]):
        print(
            f"plain {first.tokens} tokens, {first.cpu:.1f} s of CPU; preflow {second.tokens}, {second.cpu:.1f}",
            flush=True,
        )
    return first, second


def report(theirs: Spent, ours: Spent) -> None:
    """Print rates and ratios."""
    for name, spent in (("plain", theirs), ("preflow", ours)):
        print(
            f"{name:8s} {spent.tokens} tokens, {spent.tokens / spent.seconds:.1f} a second, "
            f"{spent.tokens / spent.cpu:.1f} a second of CPU"
        )
    values = {
        "ratio": (ours.tokens / ours.seconds) / (theirs.tokens / theirs.seconds),
        "cpu_ratio": (ours.tokens / ours.cpu) / (theirs.tokens / theirs.cpu),
        "tokens_per_second": ours.tokens / ours.seconds,
        "plain_tokens_per_second": theirs.tokens / theirs.seconds,
    }
    print(json.dumps({name: round(value, 3) for name, value in values.items()}))


if __name__ == "__main__":
    typer.run(main)
