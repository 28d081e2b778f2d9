"""Every module, library and class that a stage uses is in its identity, or in a table that says why not."""

import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import packages_distributions

import pytest

from preflow.fingerprints.code import CodeGraph, imported_tree
from preflow.fingerprints.code.not_counted import NOT_COUNTED, NOT_REACHED
from preflow.logprobs.identity import computing
from preflow.specs import STAGES
from tasks.runtime.caching import GIVEN, PACKAGES, roots
from tasks.runtime.libraries import CHOSEN, DECIDES_NOTHING, LIBRARIES
from tests.unit.source_copies import LAUNCHED


@pytest.fixture(scope="module")
def graph() -> CodeGraph:
    return CodeGraph(imported_tree(*PACKAGES))


@pytest.fixture(scope="module")
def reached(graph: CodeGraph) -> set[str]:
    """Modules of which at least one stage, or the store, reaches a definition."""
    names = [roots(stage, launches=False) for stage in STAGES]
    names += [roots(stage, launches=True) for stage in LAUNCHED.values()]
    return {module for each in (*names, computing()) for module in graph.reached(*each).modules}


def defining(graph: CodeGraph) -> list[str]:
    """Modules of the library, of the suites and of the tasks that define something."""
    modules = {name: graph.module(name) for name in graph.tree.modules()}
    return [name for name, module in modules.items() if module is not None and module.definitions]


def test_every_module_is_in_identities_or_in_the_table(graph: CodeGraph, reached: set[str]) -> None:
    unknown = {name for name in defining(graph) if graph.counts(name)} - reached - NOT_REACHED.keys()
    assert not unknown, (
        f"no stage reaches {', '.join(sorted(unknown))}: if that is meant, say why in NOT_REACHED of "
        "preflow/fingerprints/code/not_counted.py"
    )


def test_no_entry_of_the_table_is_stale(graph: CodeGraph, reached: set[str]) -> None:
    assert not NOT_REACHED.keys() & reached, "a stage uses it: its entry in NOT_REACHED is wrong"
    assert set(defining(graph)) >= NOT_REACHED.keys()
    for entry in NOT_COUNTED:
        assert graph.module(entry) is not None, f"there is no {entry}"
        assert not graph.counts(entry)


def test_every_class_that_a_specification_brings_is_among_the_roots(graph: CodeGraph) -> None:
    """A method of theirs counts though no stage makes the value itself."""
    found = set()
    for info in STAGES.values():
        for field in info.spec.model_fields.values():
            for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
                module = getattr(kind, "__module__", "")
                if module.startswith("preflow.") and graph.counts(module):
                    found.add(f"{module}:{kind.__name__}")
    assert found == set(GIVEN)


@pytest.mark.parametrize("stage", STAGES)
def test_every_library_that_a_stage_imports_counts_or_decides_nothing(graph: CodeGraph, stage: str) -> None:
    named = {*LIBRARIES[stage], *CHOSEN, *DECIDES_NOTHING}
    for name in imported(graph, stage):
        assert distribution(name) in named, f"{stage} uses {name}: name it in tasks/runtime/libraries.py"


def test_no_library_of_the_tables_is_stale(graph: CodeGraph) -> None:
    """What stages use below their own imports: tokenizers by transformers."""
    used = {distribution(name) for stage in STAGES for name in imported(graph, stage)}
    assert {*DECIDES_NOTHING} <= used
    for stage in STAGES:
        own = {distribution(name) for name in imported(graph, stage)}
        assert {*LIBRARIES[stage]} - own <= {"tokenizers"}


def imported(graph: CodeGraph, stage: str) -> set[str]:
    """Packages of others that a stage's code uses, by the name under which they are imported."""
    launches = stage in LAUNCHED.values()
    names = graph.reached(*roots(stage, launches=launches)).outside
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names


def distribution(package: str) -> str:
    """The name under which a package is installed; its own where it is not."""
    return _distributions().get(package, [package])[0].replace("_", "-").lower()


@cache
def _distributions() -> Mapping[str, list[str]]:
    return packages_distributions()
