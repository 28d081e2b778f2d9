"""A person's answer in MLflow's Review tab: given with the mouse in a real browser, and collected."""

import re
import subprocess
from pathlib import Path

import pytest

from tasks.review import answers_of, open_review, show
from tasks.tracking.past_runs import past_run
from tests.fixtures.browser import BROWSER, Page, opened_page
from tests.fixtures.reviewed_run import SECRETS, finished_run, trace_of
from tests.integration.conftest import Pipeline
from tests.integration.servers.test_ui import ports, ui, until  # noqa: F401 (fixtures)


def button(name: str) -> str:
    """The script that finds a button by its words."""
    return f"[...document.querySelectorAll('button')].find(each => each.innerText.trim() === {name!r})"


def shown(page: Page) -> str:
    """What a person reads on the page."""
    return str(page.value("document.body.innerText"))


@pytest.mark.nightly
@pytest.mark.server
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_an_answer_that_is_clicked_is_collected(
    ui: "subprocess.Popen[bytes]",  # noqa: F811
    ports: tuple[int, int],  # noqa: F811
    pipeline: Pipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of four questions one is answered; the others are open. The page shows both answers whole, and no model."""
    monkeypatch.setenv("PREFLOW_HOME", str(pipeline.home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(pipeline.folder)
    found = past_run("mine-42", finished_run(pipeline.home / "store"))
    key = open_review(found, found.recipe.evaluation.review, ["anna"], 2, "test", "")
    address = show(key, lambda done, of: None)["anna"]
    until(lambda: "Ctrl-C stops" in (pipeline.folder / "ui.log").read_text(), "the servers came up")
    questions = {trace_of(key, each.id).info.trace_id: each for each in key.questions}
    with opened_page(f"http://127.0.0.1:{ports[0]}{address}", tmp_path / "profile") as page:
        page.click(button("Start review"))
        page.until(f"Boolean({button('Submit')})")
        asked = questions[re.search(r"selectedItemId=(tr-\w+)", page.value("location.href"))[1]]  # type: ignore[index]
        first, second = key.shown(asked)
        page.until(f"document.body.innerText.includes({second!r})")
        assert re.search(rf"Answer A\s+{re.escape(first)}\s+Answer B\s+{re.escape(second)}\s", shown(page)), shown(page)
        hidden = {*SECRETS, key.run} - {key.recipe}  # the page names the experiment, which is the recipe's
        assert not [word for word in hidden if word in shown(page).casefold()]
        page.click(button("Select an option"))
        page.until("document.querySelectorAll('[role=option]').length")
        options = page.value("[...document.querySelectorAll('[role=option]')].map(each => each.innerText.trim())")
        assert options == ["A is better", "B is better", "Tie", "Both are bad"]
        page.click("document.querySelectorAll('[role=option]')[1]")
        page.click("document.querySelector('textarea[placeholder^=Rationale]')")
        page.call("Input.insertText", text="kinder")
        page.click(button("Submit"))
        page.until("document.body.innerText.includes('1 of 4 reviewed')")
    (given,) = answers_of(key, None).items()
    assert given[0] == asked.id
    assert (given[1].answer, given[1].comment, given[1].source) == ("B is better", "kinder", "default")
