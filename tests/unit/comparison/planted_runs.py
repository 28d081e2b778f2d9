"""Finished runs with planted held-out rows."""

from typing import Any

from preflow.comparison.kept_run import KeptRun


def kept_run(run_id: str, right: str, *, prefix: str = "", rate: float = 1e-5, kl: float = 1.0) -> KeptRun:
    """A run whose result prefers chosen on the rows that are marked 1; every row has a prompt of its own."""
    pairs = [
        {
            "id": f"{prefix}{place:04d}",
            "prompt_id": f"prompt {prefix}{place:04d}",
            "cluster": f"{prefix}{place:04d}",
            "source": f"{run_id}.jsonl:{place}",
            "chosen_tokens": 2,
            "rejected_tokens": 4,
            # Per token: chosen -1; rejected -2 where the row is right, else -0.5.
            "chosen_logprob_dpo": -2.0,
            "rejected_logprob_dpo": -8.0 if mark == "1" else -2.0,
        }
        for place, mark in enumerate(right)
    ]
    share = right.count("1") / len(right)
    dpo: dict[str, Any] = {
        "preference_accuracy": {"value": share, "low": share - 0.05, "high": share + 0.05},
        "reward_margin": {"value": kl / 2, "low": kl / 2 - 0.2, "high": kl / 2 + 0.2},
        "kl_sft": {"value": kl, "se": 0.1},
        "response_tokens": 20 + 4 * kl,
        "cut_share": 0.125,
    }
    return KeptRun(
        run_id=run_id,
        name=f"demo-{run_id}",
        settings={"dpo.learning_rate": f"{rate:g}", "dpo.beta": "0.1", "name": "demo"},
        evaluation={"models": {"base": {}, "sft": {}, "dpo": dpo}},
        pairs=pairs,
        answers=[
            {
                "prompt_id": "prompt 0",
                "prompt": "Where is my <parcel>?",
                "text": f"It is on its way, says {run_id}.",
                "tokens": 9,
                "finished": run_id != "c",
                "seed": None,
            }
        ],
    )
