"""Write the weights of the demo's judge, a reward model that is linear in word vectors.

    python recipes/demo/judge.py            trains it on preferences.jsonl and writes its file
    python recipes/demo/judge.py --check    exits 1 if the weights differ from what it would write

A logistic regression on the difference of both answers' mean vectors, the model of Bradley and Terry (1952), with the
penalty that scikit-learn sets by default. The held-out pairs are not read: on them every run tests the judge.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from preflow.judges.packaged import WEIGHTS, mean_vector

PAIRS = Path(__file__).with_name("preferences.jsonl")


def train(pairs: Path) -> NDArray[np.float64]:
    """Weights, shape ``(D,)``, from a file of pairs."""
    rows = [json.loads(line) for line in pairs.read_text(encoding="utf-8").splitlines()]
    better = np.array([mean_vector(row["chosen"]) - mean_vector(row["rejected"]) for row in rows])
    both, labels = np.concatenate([better, -better]), np.repeat([1, 0], len(better))
    fitted = LogisticRegression(fit_intercept=False, max_iter=1000).fit(both, labels)
    return np.asarray(np.round(fitted.coef_[0], 3), np.float64)


def main() -> int:
    """Train, and write or compare."""
    weights = train(PAIRS)
    if "--check" in sys.argv[1:]:
        with np.load(WEIGHTS) as file:
            return int(not np.allclose(file["weights"], weights, atol=2e-3))
    np.savez_compressed(WEIGHTS, weights=weights)
    return 0


if __name__ == "__main__":
    sys.exit(main())
