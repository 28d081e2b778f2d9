"""``preflow init FILE ...``: a recipe for your own files, with a comment beside every setting that matters.

Formats and columns are found out, the strategy follows from what the files hold, settings from the GPU's memory.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.running.terminal import clear_errors

if TYPE_CHECKING:
    from preflow.data.validated import DataKind


def main(
    files: Annotated[list[str], typer.Argument(help="Data files, folders or hub data sets.")],
    model: Annotated[str | None, typer.Option(help="The model; one that fits the machine where not given.")] = None,
    memory: Annotated[
        float | None, typer.Option(min=1, help="Memory of the GPU in GB; that of the GPU found where not given.")
    ] = None,
    output: Annotated[Path, typer.Option(help="The recipe that is written.")] = Path("recipe.yaml"),
    kind: Annotated[
        str | None, typer.Option(help="What the files hold: demonstrations or preferences; found out where not given.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a recipe that is there.")] = False,
) -> None:
    """Write a recipe for your own files."""
    from flows.new_recipe.file_facts import file_facts
    from flows.new_recipe.writing import choose_profile, recipe_text, write_recipe

    with clear_errors():
        known = _kind(kind)
        found = [file_facts(entry, known) for entry in files]
        profile = choose_profile(model, memory or _gpu_memory())
        write_recipe(recipe_text(found, profile, output), output, force=force)
    for facts in found:
        print(f"{facts.entry}: {facts.how}")
    print(f"{output} written, with {profile.why}.")
    print(f"Next: preflow validate {output}, preflow plan {output}, preflow run {output}")


def _kind(kind: str | None) -> "DataKind | None":
    """What the files are said to hold."""
    from preflow.errors import ConfigError

    if kind == "demonstrations":
        return "demonstrations"
    if kind not in {None, "preferences"}:
        raise ConfigError(f"--kind {kind}: expected demonstrations or preferences")
    return None if kind is None else "preferences"


def _gpu_memory() -> float | None:
    """Gigabytes of the GPU found; none where there is none."""
    import torch

    return torch.cuda.get_device_properties(0).total_memory / 1e9 if torch.cuda.is_available() else None
