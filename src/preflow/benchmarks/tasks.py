"""Tasks that are files: what the harness is given of one, and the files of documents that it names."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preflow.config.evaluation.benchmarks import TASK_SUFFIXES
from preflow.config.files import read_settings
from preflow.errors import ConfigError

#: Kinds of files of documents that a task may name as its ``dataset_path``.
_KINDS = ("json", "csv", "parquet")
#: Settings by which a task takes what is not in its file: other files, classes, prompts of another library.
_ELSEWHERE = ("include", "class", "group", "task_list", "use_prompt", "custom_dataset")


@dataclass(frozen=True, slots=True)
class Task:
    """One task.

    Attributes:
        name: Its name, in metrics too.
        settings: What the harness is given: its name alone, or the settings of its file with absolute paths.
        files: The task's file and its files of documents; none of the harness's own.
        documents: Of these, the files that are measured on.
    """

    name: str
    settings: str | dict[str, Any]
    files: tuple[Path, ...] = ()
    documents: tuple[Path, ...] = ()


def tasks_of(names: Sequence[str]) -> list[Task]:
    """The tasks that a recipe names.

    Args:
        names: Files, with absolute paths, or names of the harness's own tasks.

    Raises:
        ConfigError: A file cannot be read, or is no task with local documents; or two tasks have one name.
    """
    found = [_from_file(Path(name)) if name.endswith(TASK_SUFFIXES) else Task(name, name) for name in names]
    repeated = {task.name for task in found if [each.name for each in found].count(task.name) > 1}
    if repeated:
        raise ConfigError(f"evaluation.benchmarks.tasks has {', '.join(sorted(repeated))} twice: rename one")
    return found


def _from_file(path: Path) -> Task:
    settings = read_settings(path, "task")
    kwargs = settings.get("dataset_kwargs")
    kwargs = kwargs if isinstance(kwargs, dict) else {}
    given = kwargs.get("data_files")
    split = settings.get("test_split")
    if settings.get("dataset_path") not in _KINDS or not isinstance(given, dict) or split not in given:
        raise ConfigError(
            f"task {path} names no documents of its own: expected dataset_path ({', '.join(_KINDS)}), test_split, and "
            "dataset_kwargs.data_files with a file for that split"
        )
    if not isinstance(settings.get("task"), str):
        raise ConfigError(f"task {path} has no name: give it as task: NAME")
    taken = next((each for each in _ELSEWHERE if each in settings), None)
    if taken is not None:
        raise ConfigError(f"task {path} has {taken}, which takes a task from elsewhere: write all of it into the file")
    places = {name: [path.parent / each for each in _listed(files)] for name, files in given.items()}
    missing = next((each for files in places.values() for each in files if not each.is_file()), None)
    if missing is not None:
        raise ConfigError(f"task {path} names {missing}, which is no file: paths are relative to the task's file")
    absolute = {name: [str(each) for each in files] for name, files in places.items()}
    every = [each for files in places.values() for each in files]
    return Task(
        name=settings["task"],
        settings={**settings, "dataset_kwargs": {**kwargs, "data_files": absolute}},
        files=(path, *every),
        documents=tuple(places[split]),
    )


def _listed(files: Any) -> list[str]:
    return [files] if isinstance(files, str) else [str(each) for each in files]
