"""Token counts of the rows, before weights are loaded: which rows fit, are cut, or are dropped.

Training and scoring tokenize with the same function, so a row that is refused here would be refused there, after hours
of training.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from preflow.artifacts import write_json
from preflow.config.training import DpoSettings, SftSettings
from preflow.data.tokens.chat_template import Renderer
from preflow.data.tokens.row_counts import TEMPLATE_REASONS, RowCounts, template_notes
from preflow.data.tokens.tokenize import tokenize_demonstrations, tokenize_pairs
from preflow.data.validated import Split, has_rows, load_demonstrations, load_pairs
from preflow.errors import ConfigError, DataUnfitError
from preflow.models.adapters import require_targets
from preflow.models.loading import beyond_positions, load_tokenizer, model_config, position_limit, rotary_limit
from preflow.observer import Observer
from preflow.specs import LengthsSpec

_SPLITS: tuple[tuple[Split, str], ...] = (
    ("train", "training"),
    ("eval", "held-out"),
    ("validation", "validation"),
)
_PERCENTILES = (50, 95, 100)


def run_lengths(spec: LengthsSpec, out: Path, observer: Observer) -> None:
    """Render and tokenize every row that a later stage will use, and count which are used, cut or dropped.

    Writes ``report.json`` (by stage and split: rows in = rows used + rows dropped by reason, rows that are cut,
    and the 50th, 95th and 100th percentile of tokens per row) and ``metrics.json``.

    Args:
        spec: Which rows, under which tokenizer and limits.
        out: The stage's partial folder.
        observer: Receives progress and counts.

    Raises:
        UnfitModelError: The model's configuration or tokenizer cannot be used.
        ConfigError: Rows may be longer than the model has positions, or ``lora_target_modules`` names layers that it
            does not have.
        DataUnfitError: No training row is left for a stage, or no held-out pair.
        TemplateError: The chat template cannot be used, or refuses a row; names it.
    """
    recipe = spec.recipe
    _require_positions(spec)
    require_targets(model_config(spec.base, recipe), spec.base, recipe)
    limit = rotary_limit(spec.base, recipe)
    renderer = Renderer(load_tokenizer(spec.base, recipe), recipe.rendering)
    if renderer.text is not None and renderer.text.date is not None:
        observer.note(
            f"lengths: the chat template writes today's date: rows have {renderer.text.date} in its place "
            "(template_date), whatever the day"
        )
    report: dict[str, dict[str, Any]] = {}
    said: set[str] = set()
    for split, words in _SPLITS:
        if recipe.sft is not None and has_rows(spec.data, "demonstrations", split):
            tokens, counts = _demonstrations(spec, recipe.sft, renderer, split, observer)
            _require(counts, "sft", f"{words} demonstration", recipe.sft, needed=split == "train")
            report.setdefault("sft", {})[split] = _entry(tokens, counts)
            _say(f"{words} demonstrations", counts, said, observer)
            _note_beyond(tokens, limit, f"{words} demonstrations", spec.base.name, observer)
        if recipe.dpo is not None and has_rows(spec.data, "preferences", split):
            tokens, counts = _pairs(spec, recipe.dpo, renderer, split, observer)
            _require(counts, "dpo", f"{words} pair", recipe.dpo, needed=True)
            report.setdefault("dpo", {})[split] = _entry(tokens, counts)
            _say(f"{words} pairs", counts, said, observer)
            _note_beyond(tokens, limit, f"{words} pairs", spec.base.name, observer)
    write_json(out / "report.json", report)
    write_json(out / "metrics.json", _metrics(report))


def _say(what: str, counts: RowCounts, said: set[str], observer: Observer) -> None:
    """Tell where rows went, and of each thing that the chat template did to some, once what it means."""
    observer.note(f"lengths: {what}: {counts}")
    for reason, note in template_notes(counts):
        if reason not in said:
            observer.note(f"lengths: {what}: {note}")
        said.add(reason)


def _require_positions(spec: LengthsSpec) -> None:
    limit = position_limit(spec.base, spec.recipe)
    for stage, settings in spec.recipe.training_sections:
        if limit is not None and settings.max_seq_length > limit:
            raise ConfigError(
                f"{stage}.max_seq_length is {settings.max_seq_length}, but {spec.base.name} has learned {limit} "
                f"positions and can read no more tokens: set {stage}.max_seq_length to {limit} or less"
            )


def _note_beyond(tokens: Sequence[int], limit: int | None, what: str, model: str, observer: Observer) -> None:
    if (text := beyond_positions(tokens, limit, what, model)) is not None:
        observer.note(f"lengths: {text}")


def _demonstrations(
    spec: LengthsSpec, settings: SftSettings, renderer: Renderer, split: Split, observer: Observer
) -> tuple[list[int], RowCounts]:
    rows = load_demonstrations(spec.data, split)
    tokenized, counts = tokenize_demonstrations(
        rows, renderer, settings.max_seq_length, settings.overlong_response, observer, train_on=settings.train_on
    )
    return [len(row.input_ids) for row in tokenized], counts


def _pairs(
    spec: LengthsSpec, settings: DpoSettings, renderer: Renderer, split: Split, observer: Observer
) -> tuple[list[int], RowCounts]:
    rows = load_pairs(spec.data, split)
    tokenized, counts = tokenize_pairs(rows, renderer, settings.max_seq_length, settings.overlong_response, observer)
    return [len(row.prompt_ids) + max(len(row.chosen_ids), len(row.rejected_ids)) for row in tokenized], counts


def _require(counts: RowCounts, stage: str, what: str, settings: SftSettings | DpoSettings, *, needed: bool) -> None:
    if needed and not counts.used:
        raise DataUnfitError(
            f"{stage}: no {what} is left within {stage}.max_seq_length {settings.max_seq_length}, before anything is "
            f"trained: {counts}. Raise it, shorten the rows, or set {stage}.overlong_response: cut"
        )


def _entry(tokens: Sequence[int], counts: RowCounts) -> dict[str, Any]:
    # A percentile that is one of the lengths, so that it is a whole number of tokens.
    values = np.percentile(tokens, _PERCENTILES, method="inverted_cdf").tolist() if tokens else []
    percentiles = {f"p{p}": int(value) for p, value in zip(_PERCENTILES, values, strict=False)}
    return {"rows": counts.to_json(), "tokens": {"total": int(sum(tokens)), **percentiles}}


def _metrics(report: dict[str, dict[str, Any]]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for stage, splits in report.items():
        rows = [entry["rows"] for entry in splits.values()]
        metrics[f"lengths/{stage}_dropped"] = float(sum(sum(entry["dropped"].values()) for entry in rows))
        metrics[f"lengths/{stage}_cut"] = float(sum(entry["changed"].get("response_cut", 0) for entry in rows))
        metrics[f"lengths/{stage}_split"] = float(sum(entry["split"] for entry in rows))
        for reason in TEMPLATE_REASONS:
            if count := sum(entry["changed"].get(reason, 0) for entry in rows):
                metrics[f"lengths/{stage}_{reason}"] = float(count)
        metrics[f"lengths/{stage}_train_tokens"] = float(splits["train"]["tokens"]["total"])
    return metrics
