"""``preflow plan RECIPE``: what a run needs, before any weight is loaded."""

import logging
import os
from typing import Annotated

import typer

from flows.planning.devices import DeviceChoice
from flows.running.terminal import Overrides, RecipeName, clear_errors, parse_overrides


def main(
    recipe: RecipeName,
    changes: Overrides = None,
    memory: Annotated[
        float | None, typer.Option(min=1, help="GB of a target device; the device found where not given.")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="TFLOP/s of the device; measured on the one found. With --memory no time is printed without it.",
        ),
    ] = None,
    device: Annotated[
        DeviceChoice, typer.Option(help="auto: a GPU of --memory GB, or else what is found; cpu: a machine's CPU.")
    ] = DeviceChoice.AUTO,
) -> None:
    """Print tokens, steps, FLOPs, time and peak memory of every stage, and whether the run fits.

    In a distributed run, memory is that of one process, and a training's time that of its share.
    """
    quiet_libraries()
    from flows.planning.tables import print_plan
    from flows.running.preparation import prepare_run

    with clear_errors():
        print_plan(prepare_run(recipe, parse_overrides(changes)), memory, rate, device)


def quiet_libraries() -> None:
    """Keep the progress bars and warnings of libraries out of the tables; tqdm reads its variable when imported."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
