"""Processes that are killed."""

import multiprocessing
from multiprocessing.context import ForkServerContext

import pytest

from tests.integration.conftest import home_with_tables

__all__ = ["home_with_tables"]  # a fixture


@pytest.fixture(scope="module")
def processes(request: pytest.FixtureRequest) -> ForkServerContext:
    """Starts processes from one that has imported the test's module and the model's libraries already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([request.module.__name__, "peft", "transformers.models.llama.modeling_llama"])
    return context
