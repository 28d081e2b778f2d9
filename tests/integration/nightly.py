"""The flow of the deployment `nightly-proposal` on a recipe, as a worker would run it, in this process."""

from importlib import import_module
from pathlib import Path

import typer
import yaml

from flows.running.terminal import pipeline_command


def entrypoint() -> tuple[str, str]:
    """Module and name of the flow that the deployment names."""
    file = Path(__file__).parents[2] / "deployments" / "prefect.yaml"
    deployments = yaml.safe_load(file.read_text(encoding="utf-8"))["deployments"]
    (named,) = [each["entrypoint"] for each in deployments if each["name"] == "nightly-proposal"]
    module, _, flow = str(named).rpartition(".")
    return module, flow


if __name__ == "__main__":
    module, flow = entrypoint()
    typer.run(pipeline_command(lambda: getattr(import_module(module), flow), lambda decision: print(decision.outcome)))
