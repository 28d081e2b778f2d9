"""Events on disk: what is there after a kill is what was put before it, less what was delivered."""

from pathlib import Path

from tasks.tracking.outbox import Outbox, left_behind, lock


def outbox(folder: Path) -> Outbox:
    lock(folder)
    return Outbox(folder)


def test_events_that_were_not_delivered_are_there_again_in_order(tmp_path: Path) -> None:
    first = outbox(tmp_path / "run")
    for number in range(4):
        first.append({"do": "tags", "step": number})
    first.delivered()
    again = outbox(tmp_path / "run")
    assert [event["step"] for event in again.waiting] == [1, 2, 3]
    again.delivered()
    again.append({"do": "tags", "step": 4})
    assert [event["step"] for event in outbox(tmp_path / "run").waiting] == [2, 3, 4]


def test_a_line_that_a_kill_cut_off_is_no_event_and_the_next_is_whole(tmp_path: Path) -> None:
    outbox(tmp_path / "run").append({"step": 1})
    with (tmp_path / "run" / "events.jsonl").open("a") as file:
        file.write('{"step": 2')
    again = outbox(tmp_path / "run")
    again.append({"step": 3})
    assert [event["step"] for event in outbox(tmp_path / "run").waiting] == [1, 3]


def test_files_of_a_folder_that_goes_are_copied_and_each_copy_is_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "partial"
    (folder / "scratch").mkdir(parents=True)
    (folder / "report.json").write_text("one")
    box = outbox(tmp_path / "run")
    first = box.copy(folder)
    (folder / "report.json").write_text("two")
    second = box.copy(folder)
    assert [(copy / "report.json").read_text() for copy in (first, second)] == ["one", "two"]
    assert [path.name for path in first.iterdir()] == ["report.json"]


def test_an_outbox_in_use_is_not_taken_and_one_left_behind_is(home: Path) -> None:
    for name in ("used", "left"):
        outbox(home / "outbox" / name).describe({"run_id": name})
    with lock(home / "outbox" / "used"):
        assert [run["run_id"] for _, run in left_behind()] == ["left"]
    assert {run["run_id"] for _, run in left_behind()} == {"used", "left"}
