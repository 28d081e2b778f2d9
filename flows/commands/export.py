"""``preflow export RECIPE``: a finished run's model as one folder of plain weights, checked on the way."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.running.terminal import Overrides, clear_errors, parse_overrides
from preflow.errors import ConfigError

if TYPE_CHECKING:
    from preflow.data.tokens.chat_template import Renderer
    from preflow.models.scoring import PromptResponse
    from tasks.tracking.past_runs import PastRun

#: Mean nats per token by which a merged model may differ before it is refused.
LIMIT = 0.02
#: Responses on which the merged model is compared with the trained one.
_RESPONSES = 32


def main(
    recipe: Annotated[str, typer.Argument(help="The recipe whose latest finished run is meant.")],
    to: Annotated[Path, typer.Option(help="The folder to write; it must not exist yet.")],
    run: Annotated[str | None, typer.Option(help="MLflow id of the pipeline run; the latest one otherwise.")] = None,
    limit: Annotated[float, typer.Option(help="Largest merge error, nats per token.", min=0.0)] = LIMIT,
    changes: Overrides = None,
) -> None:
    """Merge base and adapter; print the difference of their log-probs, and refuse a larger one."""
    from flows.running.preparation import find_recipe
    from preflow.config.loading import load_recipe
    from tasks.tracking.past_runs import log_merge_error, past_run

    with clear_errors():
        found = past_run(load_recipe(find_recipe(recipe), parse_overrides(changes)).name, run)
        merge_error = export(found, to, limit)
        log_merge_error(found, merge_error)
    typer.echo(
        f"{to}: merged weights of run {found.run_id}. Their log-probs differ from the trained model's by "
        f"{merge_error:.2g} nats per token (limit {limit:g}).",
        err=True,
    )


def export(run: "PastRun", to: Path, limit: float = LIMIT) -> float:
    """Write a run's last model as full weights with its tokenizer.

    Args:
        run: A finished run that trained an adapter.
        to: A folder that does not exist yet.
        limit: Largest merge error.

    Returns:
        The merge error on held-out responses: mean absolute difference of a token's log-prob, nats.

    Raises:
        ConfigError: The folder exists, or the run trained full weights.
        ModelError: The merge error is larger; nothing is left.
    """
    from preflow.data.tokens.chat_template import Renderer
    from preflow.models.loading import load_tokenizer
    from preflow.models.merge import merge
    from preflow.models.precision import choose_precision
    from preflow.models.resolve import resolve_model
    from preflow.observer import Silent

    trained = run.artifacts["dpo" if "dpo" in run.artifacts else "sft"].file("model")
    if run.recipe.tuning == "full":
        raise ConfigError(f"the run has tuning: full, so there is nothing to merge: {trained} holds full weights")
    if to.exists():
        raise ConfigError(f"{to} exists: expected a folder that is not there yet")
    to.parent.mkdir(parents=True, exist_ok=True)
    base = resolve_model(run.recipe, Silent())
    renderer = Renderer(load_tokenizer(base, run.recipe), run.recipe.rendering)
    rows = _rows(run, renderer)
    return merge(base, trained, run.recipe, choose_precision(run.recipe), rows, renderer.end_ids, to, limit)


def _rows(run: "PastRun", renderer: "Renderer") -> "Sequence[PromptResponse]":
    """Held-out responses with their prompts, of the run's own data."""
    from preflow.logprobs.scored_pairs import read_pairs

    if "reference" in run.artifacts:
        pairs = read_pairs(run.artifacts["reference"].file("eval.parquet"))[: _RESPONSES // 2]
        rows = [row for pair in pairs for row in (pair.chosen, pair.rejected)]
    else:
        rows = _demonstrations(run, renderer)
    if not rows:
        raise ConfigError("the run has no held-out row to compare the merged model on: give it some (eval_split)")
    return rows


def _demonstrations(run: "PastRun", renderer: "Renderer") -> "list[PromptResponse]":
    from preflow.data.tokens.tokenize import tokenize_demonstrations
    from preflow.data.validated import load_demonstrations

    settings = run.recipe.sft
    assert settings is not None, "a recipe has at least one training stage"
    held_out = load_demonstrations(run.artifacts["validate"], "eval")[:_RESPONSES]
    rows, _ = tokenize_demonstrations(
        held_out, renderer, settings.max_seq_length, settings.overlong_response, train_on="last"
    )
    return [(row.input_ids[: (start := row.response_mask.index(True))], row.input_ids[start:]) for row in rows]
