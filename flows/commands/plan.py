"""``preflow plan RECIPE``: what a run would take, before any weight is loaded."""

from typing import Annotated

import typer

from flows.planning.devices import Kind
from flows.running.terminal import Overrides, RecipeName, clear_errors, parse_overrides


def main(
    recipe: RecipeName,
    changes: Overrides = None,
    memory: Annotated[
        float | None, typer.Option(min=1, help="GB of the device; the one found where not given.")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="TFLOP/s of the device; measured on the one found. Of a device named by --memory: no time without.",
        ),
    ] = None,
    device: Annotated[
        Kind, typer.Option(help="auto: the card that --memory names, or else what is found; cpu: a machine's CPU.")
    ] = Kind.AUTO,
) -> None:
    """Print tokens, steps, arithmetic, memory and time of every stage that computes, and what fits where.

    Of a launch, memory is that of one process, and training takes the time of its share. Of a device that is only named
    (--memory) no time is printed unless its rate is given: what this machine can do says nothing about it.
    """
    from flows.planning.tables import show
    from flows.running.preparation import prepare_run

    with clear_errors():
        show(prepare_run(recipe, parse_overrides(changes)), memory, rate, device)
