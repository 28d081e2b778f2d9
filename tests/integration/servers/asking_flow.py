"""A flow that asks a person, with a task before the question that must not run twice."""

import sys
from pathlib import Path

import tasks  # noqa: F401 - makes the home folder, which Prefect looks for when imported

# isort: split
from prefect import flow, task

from flows.operation.decisions import ask_for_decision


@task(persist_result=True)
def measure(book: str) -> float:
    with Path(book).open("a") as lines:
        lines.write("measured\n")
    return 0.068


@flow(name="promote")
def asks(book: str) -> None:
    gain = measure(book)
    decision = ask_for_decision(f"The gain is {gain}. May it go live?", key="go-live")
    with Path(book).open("a") as lines:
        lines.write(f"{decision}\n")


if __name__ == "__main__":
    sys.exit("to be run by a deployment")
