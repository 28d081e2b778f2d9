"""Settings of benchmarks: the section ``evaluation.benchmarks`` of a recipe."""

from pydantic import Field

from preflow.config.base import Frozen

#: How files of tasks end; any other task is one of the harness's own.
TASK_SUFFIXES = (".yaml", ".yml")


class BenchmarkSettings(Frozen):
    """Tasks of lm-evaluation-harness (the extra ``preflow[bench]``), which every model of the run does."""

    tasks: tuple[str, ...] = Field(min_length=1)
    """Files of tasks (``mine/tone.yaml``, relative to the recipe), or names of the harness's own (``hellaswag``; groups
    and tags, too), which it downloads. Data validation holds the training rows to their prompts. The first metric of a
    task that is a number of each document, more being better, is compared."""
    limit: int | None = Field(default=None, ge=1)
    """Documents of each task, most; all where not given."""
    batch_size: int = Field(default=8, ge=1)
    """Documents done together. Another size gives slightly other log-likelihoods."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """Solved examples before each document; the task's own number where not given."""
    chat: bool = True
    """Ask through the model's chat template, where it has one."""
