"""Generation: tokens per second of answers that Preflow's evaluation samples, all prompts in one batch."""

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from bench.gpu.workload import Workload
from bench.parts.contenders import plain_tokenizer, random_model
from preflow.evaluation.generation import generate


def run(work: Workload, out: Path) -> Iterator[dict[str, Any]]:
    """The second of two batches counts."""
    del out
    model = random_model(work.model, work.precision)
    # No answer ends before its last token, since no token ends one.
    models: Any = SimpleNamespace(
        renderer=SimpleNamespace(end_ids=frozenset({work.model.vocab_size})),
        tokenizer=plain_tokenizer(),
        precision=work.precision,
        use=lambda name: model,
    )
    prompts = [prompt for prompt, *_ in work.row_sets[0].draw(work.prompts, work.model.vocab_size)]
    seconds, tokens = 0.0, 0
    for _ in range(2):
        torch.manual_seed(0)
        begin = time.perf_counter()
        answers = generate(models, "base", prompts, work.answer, sample=True)
        seconds, tokens = time.perf_counter() - begin, sum(map(len, answers))
    yield {
        "prompts": len(prompts),
        "answer_tokens": work.answer,
        "tokens_per_second": round(tokens / seconds, 1),
        "milliseconds_per_position": round(1000 * seconds / work.answer, 2),
    }
