"""The report as a page: one HTML file that needs nothing else."""

from collections.abc import Mapping
from typing import Any


def page(report: Mapping[str, Any]) -> str:
    """The whole report."""
    return "<!doctype html><title>report</title>"
