"""Two reviewers prefer a run's model in every pair, and it is put forward twice.

``python -m tests.integration.promoted_by_people RECIPE SHEETS``: the first time it answers every document of the
benchmarks wrong and the other model every one right, the second time both do as they do. Prints the exit code and the
output of each command as JSON.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any


def asked(*arguments: str) -> tuple[int, str]:
    """A command of Preflow's in this process."""
    from typer.testing import CliRunner

    from flows.commands.app import make_app

    done = CliRunner().invoke(make_app(), arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(done.output.split())


def steps(recipe: str, sheets: str) -> Mapping[str, tuple[int, str]]:
    """The review, then both promotions."""
    from preflow.review.key import keys_in
    from preflow.stages import promotion
    from preflow.stages.benchmarks import do_tasks as does
    from tasks.review import reviews_folder
    from tests.fixtures.reviewed_run import answered_by, likes
    from tests.unit.tasks.review.commands import fill

    found = {"open": asked("review", "open", recipe, "--reviewers", "anna,ben", "--csv", sheets)}
    (key,) = keys_in(reviews_folder(Path(recipe).stem))
    for name in key.reviewers:
        fill(Path(sheets) / f"{name}.csv", answered_by(key, name, likes(lambda question: "new")))
    found["collect"] = asked("review", "collect", recipe, "--csv", sheets)

    def worse(models: Any, name: str, settings: Any, runner: Any) -> Any:
        real = does(models, name, settings, runner)
        right = float(name != "dpo")
        return {task: [replace(each, value=right) for each in rows] for task, rows in real.items()}

    vars(promotion)["do_tasks"] = worse
    found["worse"] = asked("promote", recipe)
    vars(promotion)["do_tasks"] = does
    found["promote"] = asked("promote", recipe)
    return found


if __name__ == "__main__":
    print(json.dumps(steps(*sys.argv[1:])))
