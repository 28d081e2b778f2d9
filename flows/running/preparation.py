"""What a pipeline run is going to do, settled before anything expensive starts."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from preflow.artifacts import CARD, Artifact
from preflow.benchmarks.documents import named_prompts
from preflow.benchmarks.harness import no_progress_bars
from preflow.benchmarks.loading import load_tasks
from preflow.benchmarks.tasks import tasks_of
from preflow.config import Recipe
from preflow.config.base import Frozen
from preflow.config.checks.advice import advice
from preflow.config.checks.requirements import require_harness, require_runnable
from preflow.config.loading import load_recipe
from preflow.data.files.raw_rows import DataSource
from preflow.data.files.sources import resolve_sources
from preflow.diagnosis.finding import RunFinding
from preflow.environment import preflow_home, quiet_quantization
from preflow.fingerprints.files import file_digest
from preflow.models.base_checks import require_trainable
from preflow.models.resolve import ModelRef
from preflow.specs import BenchmarkSpec, ValidateSpec

#: Beside the packages, in a checkout as in an installed wheel; ``recipes/demo`` holds the demo's data.
PACKAGED_RECIPES = Path(__file__).parents[2] / "recipes"


class PreparedRun(Frozen):
    """A resolved recipe and the data it names, with their digests."""

    recipe: Recipe
    sources: ValidateSpec
    advice: tuple[str, ...] = ()

    def runs(self, stage: str) -> bool:
        """Whether the recipe's strategy has a training stage."""
        return stage in Recipe.stages[self.recipe.strategy]


class Diagnosis(Frozen):
    """What a finished run's own measurements say."""

    findings: tuple[RunFinding, ...] = ()
    """What is wrong, the strongest evidence first."""
    resources: tuple[str, ...] = ()
    """Memory and time that were taken."""


class RunResult(Frozen):
    """What a pipeline run leaves behind."""

    recipe: str
    """The recipe's name."""
    mlflow_run_id: str
    prefect_run_id: str
    evaluation: Artifact
    benchmarked: Artifact | None = None
    """What came of benchmarks, where the recipe names some."""
    judged: Artifact | None = None
    """What a judge said, where the recipe names one."""
    model: Artifact
    """The last model that was trained; its files are in the folder ``model`` of it."""
    diagnosis: Diagnosis = Diagnosis()
    """What the run's measurements show to be wrong, and what it took."""


def find_recipe(recipe: str | Path) -> Path:
    """The file of a recipe: the one named, or, where there is none, the packaged recipe of that name (``demo``)."""
    path = Path(recipe)
    packaged = PACKAGED_RECIPES / f"{recipe}.yaml"
    return packaged if not path.exists() and path.name == str(recipe) and packaged.is_file() else path


def prepare_run(recipe: str | Path, overrides: Mapping[str, Any] | None = None) -> PreparedRun:
    """Read a recipe and find its data.

    Args:
        recipe: The recipe's file, or the name of a packaged recipe.
        overrides: Dotted names to values, which win over the file.

    Raises:
        ConfigError: The recipe cannot be run as it is.
        ModelError: ``model_name`` is a folder whose model cannot be trained.
        DataFileError: A data file is absent or cannot be read.
    """
    resolved = load_recipe(find_recipe(recipe), overrides)
    require_runnable(resolved)
    _require_trainable_folder(resolved)
    quiet_quantization(asked=resolved.use_4bit)
    return PreparedRun(
        recipe=resolved, sources=data_sources(resolved), advice=(*advice(resolved), *_aligned_start(resolved))
    )


def _require_trainable_folder(recipe: Recipe) -> None:
    """What the small files of a model's folder show need not wait until the data are checked."""
    folder = Path(str(recipe.model_name)).expanduser()
    if (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file():
        require_trainable(f"model_name {recipe.model_name}", folder, recipe)


def with_named_prompts(sources: ValidateSpec, recipe: Recipe, *, every: bool) -> ValidateSpec:
    """The data of a recipe, with the prompts of benchmarks that are the harness's own, which must not train either.

    They are downloaded, which a plan does without.

    Args:
        sources: The data.
        recipe: Names the benchmarks.
        every: Whether tasks that are files are loaded, too: what cannot be had or compared is known before training.

    Raises:
        ConfigError: A task cannot be loaded or compared.
        MissingDependencyError: The harness is not installed.
    """
    asked = recipe.evaluation.benchmarks
    tasks = [] if asked is None else [task for task in tasks_of(asked.tasks) if every or not task.files]
    if not tasks:
        return sources
    require_harness(recipe)
    with no_progress_bars():
        named = named_prompts(tasks, load_tasks(tasks), preflow_home() / "benchmarks")
    return sources.model_copy(update={"benchmarks": (*sources.benchmarks, *named)})


def _aligned_start(recipe: Recipe) -> Iterator[str]:
    """A model that a DPO stage made may be aligned further, but a wrong folder must not pass unseen."""
    card = Path(str(recipe.model_name)) / CARD
    if card.is_file() and json.loads(card.read_text(encoding="utf-8")).get("stage") == "dpo":
        yield (
            f"model_name {recipe.model_name} was made by a DPO stage: it is the base and the reference now. To go on "
            "from the fine-tuned model instead, name the model folder of the SFT stage"
        )


def data_sources(recipe: Recipe) -> ValidateSpec:
    """The data that a recipe names, with their digests.

    Raises:
        DataFileError: A data file is absent or cannot be read.
    """
    given: dict[str, tuple[DataSource, ...]] = {}
    names = {"sft": "demonstrations", "dpo": "preferences"}
    for stage, section in recipe.training_sections:
        given[names[stage]] = resolve_sources(section.dataset or ())
        given[f"{names[stage]}_eval"] = resolve_sources(section.eval_dataset or ())
    asked = recipe.evaluation.benchmarks
    documents = [str(file) for task in tasks_of(asked.tasks) for file in task.documents] if asked is not None else []
    checked = resolve_sources((*recipe.validation.benchmark_files, *documents))
    return ValidateSpec.of(recipe, benchmarks=checked, **given)


def benchmark_spec(recipe: Recipe, base: ModelRef, data: Artifact, **models: Artifact | None) -> BenchmarkSpec:
    """What is asked of the stage of benchmarks, with the digests of the tasks' files as they are now."""
    asked = recipe.evaluation.benchmarks
    assert asked is not None, "asked where a recipe names tasks"
    files = tuple(file_digest(file) for task in tasks_of(asked.tasks) for file in task.files)
    given: dict[str, Any] = {"base": base, "data": data, "files": files, **models}
    return BenchmarkSpec(recipe=recipe, **given)
