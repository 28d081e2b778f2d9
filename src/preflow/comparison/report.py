"""The comparison of finished runs: measures, paired differences to a baseline, groups that cannot be told apart."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import networkx as nx

from preflow.comparison.kept_run import KeptRun, differing
from preflow.errors import IncomparableError
from preflow.maths.paired import PairedComparison, compare_paired
from preflow.maths.significance import holm

#: Least share of either run's held-out rows that must be shared.
LEAST_SHARED = 0.9
#: Settings that name a run and change nothing in it.
_NAMES = frozenset({"name", "description"})
#: Prompts whose answers are shown.
_PROMPTS = 5


def compare_runs(
    runs: Sequence[KeptRun],
    baseline: str,
    *,
    strict: bool = False,
    unread: Sequence[dict[str, str]] = (),
    alpha: float = 0.05,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare finished runs, row by row on the held-out pairs that they share with the baseline.

    P values of the differences to the baseline are adjusted together (Holm), as are those of all pairs of runs, from
    which the groups come: runs of one group cannot be told apart.

    Args:
        runs: At least two, the baseline among them.
        baseline: Its ``run_id``.
        strict: Refuse a run whose held-out rows are not those of the baseline; else it is left out and named.
        unread: Runs whose files are missing or damaged, each with its ``name`` and the ``reason``; named as left out.
        alpha: Level; intervals cover ``1 - alpha``.
        seed: Of the bootstrap.

    Returns:
        The report, as ``comparison.json`` holds it.

    Raises:
        IncomparableError: No two runs have the same held-out rows, or ``strict`` and one of them has others.
    """
    first = next(run for run in runs if run.run_id == baseline)
    kept, left_out, differences = [first], [*unread], {}
    for run in runs:
        if run is first:
            continue
        try:
            differences[run.run_id] = _difference(run, first, alpha, seed)
            kept.append(run)
        except IncomparableError as error:
            if strict:
                raise
            left_out.append({"name": run.name, "reason": error.message})
    if not differences:
        raise IncomparableError(
            f"no run can be compared with {first.name} ({first.run_id}): "
            + ("; ".join(f"{each['name']}: {each['reason']}" for each in left_out) or "there is no other finished run")
        )
    kept = [run for run in runs if run in kept]
    adjusted = dict(zip(differences, holm([each.p for each in differences.values()]), strict=True))
    groups = _groups(kept, alpha, seed)
    guards = {run.run_id: _guards(run) for run in kept}
    settings = [name for name in differing(kept) if name not in _NAMES]
    return {
        "baseline": baseline,
        "alpha": alpha,
        "settings": settings,
        "groups": groups,
        "left_out": left_out,
        "answers": _answers(kept),
        "runs": [
            {
                "run_id": run.run_id,
                "name": run.name,
                "settings": {name: run.settings.get(name, "none") for name in settings},
                "held_out": {"pairs": len(run.pairs), "digest": run.held_out_digest},
                "measures": run.measures,
                "judged": run.judged,
                "benchmarks": run.benchmarks,
                "guards": guards[run.run_id],
                "later": list(run.later),
                "groups": [place for place, group in enumerate(groups) if run.run_id in group],
                "difference": _shown(differences.get(run.run_id), adjusted.get(run.run_id), alpha),
            }
            for run in kept
        ],
    }


def _difference(run: KeptRun, baseline: KeptRun, alpha: float, seed: int) -> PairedComparison:
    """The paired difference in preference accuracy.

    Raises:
        IncomparableError: Less than 90 % of either run's held-out rows are shared; names both sets by digest.
    """
    digests = f"{run.name} {run.held_out_digest[:12]}, {baseline.name} {baseline.held_out_digest[:12]}"
    try:
        found = compare_paired(run.preference_scores(), baseline.preference_scores(), alpha=alpha, seed=seed)
        found.require_shared(LEAST_SHARED)
    except IncomparableError as error:
        raise IncomparableError(f"{error.message} (held-out rows: {digests})") from error
    return found


def _guards(run: KeptRun) -> dict[str, str]:
    """The limits of the recipe's promotion that a run's own measures can be held to, with both numbers."""
    kl = run.measures.get("kl_sft", run.measures.get("kl_base"))
    limit = run.settings.get("promotion.guards.kl")
    if kl is None or limit is None:
        return {}
    return {"kl": f"{kl['value']:.3g}, limit {limit}{'' if kl['value'] <= float(limit) else ': broken'}"}


def _shown(found: PairedComparison | None, adjusted: float | None, alpha: float) -> dict[str, Any] | None:
    if found is None or adjusted is None:
        return None
    clear = adjusted <= alpha
    way = "mixed" if found.is_mixed else "better" if found.direction > 0 else "worse"
    verdict = way if clear else "not told apart"
    return {**asdict(found), "adjusted_p": adjusted, "significant": clear, "verdict": verdict}


def _groups(runs: Sequence[KeptRun], alpha: float, seed: int) -> list[list[str]]:
    """The largest sets of runs of which no two differ (Holm over all pairs), the best group first.

    A run can be in several: it may differ neither from the best nor from the worst, though these differ.
    """
    accuracy = {run.run_id: float(run.preference_scores().values.mean()) for run in runs}
    pairs = list(combinations(runs, 2))
    scores = {run.run_id: run.preference_scores() for run in runs}
    p_values = [
        compare_paired(scores[one.run_id], scores[other.run_id], alpha=alpha, samples=1, seed=seed).p
        for one, other in pairs
    ]
    alike: nx.Graph[str] = nx.Graph()
    alike.add_nodes_from(accuracy)
    for (one, other), p in zip(pairs, holm(p_values), strict=True):
        if p > alpha:
            alike.add_edge(one.run_id, other.run_id)
    groups = [sorted(group, key=lambda run: (-accuracy[run], run)) for group in nx.find_cliques(alike)]
    return sorted(groups, key=lambda group: [(-accuracy[run], run) for run in group])


def _answers(runs: Sequence[KeptRun]) -> list[dict[str, Any]]:
    """Greedy answers of every run to the prompts that all of them answered, else sampled ones."""
    for greedy in (True, False):
        tables = [
            {row["prompt_id"]: row for row in run.answers if (row["seed"] is None) == greedy and row["prompt_id"]}
            for run in runs
        ]
        shared = [prompt for prompt in tables[0] if all(prompt in table for table in tables)]
        if shared:
            return [
                {
                    "prompt": tables[0][prompt]["prompt"],
                    "sampled": not greedy,
                    "answers": {
                        run.run_id: {name: table[prompt][name] for name in ("text", "tokens", "finished")}
                        for run, table in zip(runs, tables, strict=True)
                    },
                }
                for prompt in shared[:_PROMPTS]
            ]
    return []
