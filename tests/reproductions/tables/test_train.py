"""Cells in processes of their own, watched, stopped and taken up again."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from reproductions.tables import train
from reproductions.tables.cells import run
from reproductions.tables.costs import Cost
from reproductions.tables.specification import Cell, load
from reproductions.tables.train import missing, train_here
from sharp_maml import read_records, write_record
from sharp_maml.data import open_cache
from tests.reproductions.tables import stand_in
from tests.reproductions.tables.records_for_tests import cell, dataset, record

COSTS = dict.fromkeys(("maml", "low", "matching-fce"), Cost(2.0, 0.25, 0.75))


run_here = partial(train.run_here, costs=COSTS)


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results"


def instead(lines: str) -> dict[str, Any]:
    """Arguments that let cells run a few lines of Python in place of training; see `stand_in.work`."""
    return {"work": partial(stand_in.work, lines), "poll_seconds": 0.02}


def console(terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=150)


def test_a_cell_without_a_record_is_missing_and_one_with_a_record_is_not(results):
    todo = [cell("maml"), cell("low"), cell("maml", 1)]
    write_record(todo[1].directory(results) / "record.json", record("low"))
    todo[2].directory(results).mkdir(parents=True)
    assert missing(todo, results) == [todo[0], todo[2]]


def test_a_record_of_other_settings_than_todays_is_an_error_that_names_its_directory(results):
    write_record(cell().directory(results) / "record.json", record("maml"))
    today = cell(tier=replace(cell().tier, settings={**cell().tier.settings, "iterations": 7}))
    with pytest.raises(ValueError, match="was made with other settings than maml has now on tier smoke") as error:
        missing([today], results)
    assert str(cell().directory(results)) in str(error.value)


@pytest.mark.slow
def test_missing_cells_are_trained_in_processes_of_their_own(tmp_path, results):
    tables, tiers = load()
    rows = {row.name: row for row in tables["table1"].rows}
    own = [Cell(tables["table1"], rows[name], tiers["smoke"], 0) for name in ("maml", "matching-fce")]
    dataset(tmp_path / "data")
    shown = console()
    run_here(own, tmp_path / "data", results, jobs=2, console=shown)
    assert missing(own, results) == []
    run(own[0], open_cache(tmp_path / "data"), tmp_path / "here")
    there, here = (read_records(own[0].directory(place) / "record.json")[0] for place in (results, tmp_path / "here"))
    assert (there.accuracies, there.learning_curve) == (here.accuracies, here.learning_curve)
    assert "maml, seed 0: done" in shown.file.getvalue()
    assert "evaluating 20 test episodes" in (own[0].directory(results) / "log.txt").read_text()


def test_a_finished_cell_is_one_line_where_there_is_no_terminal(tmp_path, results):
    work = instead("")
    shown = console()
    run_here([cell(seed=seed) for seed in range(3)], tmp_path, results, jobs=1, console=shown, **work)
    lines = shown.file.getvalue().splitlines()
    assert [re.sub(r"about \d+ s left", "... left", line) for line in lines] == [
        "maml, seed 0: done, 2 cells left, ... left", "maml, seed 1: done, 1 cells left, ... left",
        "maml, seed 2: done, 0 cells left",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("device", "gpus", "expected"),
    [("cuda", 2, {"cuda:0", "cuda:1"}), ("cuda", 1, {"cuda"}), ("cuda:1", 2, {"cuda:1"}), ("cpu", 2, {"cpu"})],
)
def test_cells_are_spread_over_the_gpus_of_a_machine(tmp_path, results, device, gpus, expected):
    """Two at a time: the second one goes where the first one is not."""
    work = instead("(place / 'device').write_text(device)")
    todo = [cell(seed=seed, device=device) for seed in range(4)]
    run_here(todo, tmp_path, results, jobs=2, gpus=gpus, console=console(), **work)
    assert {(each.directory(results) / "device").read_text() for each in todo} == expected


def test_a_terminal_shows_a_bar_a_cell(tmp_path, results):
    work = instead("")
    shown = console(terminal=True)
    run_here([cell("maml"), cell("low")], tmp_path, results, jobs=2, console=shown, **work)
    assert "low, seed 0" in shown.file.getvalue()
    assert "6/6" in shown.file.getvalue()
    assert re.search(r"all cells .*2/2.* about 0 s left", shown.file.getvalue())


def test_a_terminal_shows_the_phase_of_a_running_cell(tmp_path, results):
    line = json.dumps({"step": 6, "loss": 1.0, "seconds": 0.5})
    work = instead(f"""
import time
(place / "metrics.jsonl").write_text('first\\n{line}\\n')
(place / "episodes.txt").write_text("evaluation 3 4")
time.sleep(1)
""")
    shown = console(terminal=True)
    run_here([cell("maml")], tmp_path, results, jobs=1, console=shown, **work)
    assert "evaluation episode 3 of 4" in shown.file.getvalue()


def test_what_the_cells_will_take_is_said_before_they_run(tmp_path, results):
    dataset(tmp_path / "data")
    shown, own = console(), [cell("maml"), cell("low")]
    began = time.perf_counter()
    train_here(own, tmp_path / "data", results, jobs=2, gpus=0, console=shown, began=began, work=instead("")["work"])
    first, *others = shown.file.getvalue().splitlines()
    assert re.match(r"2 cells to train, 2 at a time: about .*; data ready after \d+ s", first)
    assert len(others) == 2


def test_what_only_a_figure_needs_is_not_imported_with_a_cell(tmp_path, results):
    work = instead("import sys; (place / 'loaded').write_text(' '.join(sys.modules))")
    run_here([cell()], tmp_path, results, jobs=1, console=console(), **work)
    loaded = (cell().directory(results) / "loaded").read_text().split()
    assert "torch" in loaded
    assert not {"matplotlib", "pandas", "seaborn"} & set(loaded)


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_as_many_cells_run_at_a_time_as_asked_and_no_more(tmp_path, results, monkeypatch, jobs):
    work = instead("import time; time.sleep(0.2)")
    processes, at_a_time = [], []
    original = train._start

    def counting(*arguments):
        processes.append(original(*arguments))
        at_a_time.append(sum(process.exitcode is None for process in processes))
        return processes[-1]

    monkeypatch.setattr(train, "_start", counting)
    run_here([cell(seed=seed) for seed in range(5)], tmp_path, results, jobs=jobs, console=console(), **work)
    assert len(processes) == 5
    assert max(at_a_time) == jobs


def test_a_cell_has_the_threads_of_its_configuration(tmp_path, results):
    """Three of them work: the process that a cell is forked from has started none."""
    work = instead("""
from dataclasses import replace
from reproductions.tables.cells import run
from sharp_maml.data import open_cache
from sharp_maml.evaluate import evaluate
from tests.reproductions.tables.records_for_tests import cell
tier = replace(cell().tier, settings={**cell().tier.settings, "threads": 3})
run(cell(tier=tier), open_cache(data), results)
""")
    dataset(tmp_path / "data")
    run_here([cell()], tmp_path / "data", results, jobs=1, console=console(), **work)
    (found,) = read_records(cell().directory(results) / "record.json")
    assert found.provenance["threads"] == 3


def test_the_peak_memory_of_a_cell_is_its_own(tmp_path, results):
    work = instead("""
from sharp_maml.progress import peak_memory
if seed == "0":
    held = b"x" * 2**29
(place / "peak").write_text(str(peak_memory("cpu")))
""")
    own = [cell(seed=0), cell(seed=1)]
    run_here(own, tmp_path, results, jobs=1, console=console(), **work)
    first, second = (int((each.directory(results) / "peak").read_text()) for each in own)
    assert first > 2**29
    assert second < first - 2**28


def test_a_failing_cell_ends_the_others_and_shows_the_end_of_its_log(tmp_path, results):
    work = instead("""
import sys, time
if row == "low":
    while not (place.parents[1] / "maml/seed0/started").exists():
        time.sleep(0.01)
    print("\\n".join(f"line {i}" for i in range(30)))
    sys.exit(3)
time.sleep(60)
""")
    with pytest.raises(RuntimeError, match="low, seed 0 ended with exit code 3") as error:
        run_here([cell("maml"), cell("low"), cell("low", 1)], tmp_path, results, jobs=2, console=console(), **work)
    assert str(cell("low").directory(results) / "log.txt") in str(error.value)
    assert str(error.value).endswith("\n".join(f"line {i}" for i in range(18, 30)))
    assert "line 17" not in str(error.value)
    assert (cell("maml").directory(results) / "saved").exists()
    assert not cell("low", 1).directory(results).exists()


def test_a_killed_cell_is_named_with_its_signal(tmp_path, results):
    work = instead("import os; print('so far', flush=True); os.kill(os.getpid(), 9)")
    with pytest.raises(RuntimeError, match=r"maml, seed 0 was ended by SIGKILL; the end of .*log.txt:\nso far"):
        run_here([cell()], tmp_path, results, jobs=1, console=console(), **work)


def test_an_error_of_a_cell_is_in_its_log(tmp_path, results):
    work = instead("import os; os.write(2, b'from C\\n'); raise ArithmeticError('no number')")
    with pytest.raises(RuntimeError, match=r"(?s)exit code 1; .*ArithmeticError: no number"):
        run_here([cell()], tmp_path, results, jobs=1, console=console(), **work)
    assert (cell().directory(results) / "log.txt").read_text().startswith("from C\n")


def test_an_interrupt_lets_every_cell_save_and_waits_for_it(tmp_path, results, monkeypatch):
    work = instead("import time; time.sleep(60)")
    own = [cell("maml"), cell("low")]
    original = train.wait

    def interrupted(sentinels: list[int], seconds: float) -> None:
        original(sentinels, seconds)
        if all((each.directory(results) / "started").exists() for each in own):
            raise KeyboardInterrupt

    monkeypatch.setattr(train, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_here(own, tmp_path, results, jobs=2, console=console(), **work)
    assert all((each.directory(results) / "saved").exists() for each in own)


@pytest.mark.slow
def test_an_interrupted_cell_goes_on_where_it_was(tmp_path, results, monkeypatch):
    """The real trainer: stopped in the middle, then taken up by the same call."""
    tables, tiers = load()
    own = Cell(tables["table1"], tables["table1"].baseline, tiers["smoke"], 0)
    dataset(tmp_path / "data")
    original, metrics = train.wait, own.directory(results) / "metrics.jsonl"

    def interrupted(sentinels: list[int], seconds: float) -> None:
        original(sentinels, 0.001)
        if metrics.exists() and metrics.read_text().count("\n") >= 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_here([own], tmp_path / "data", results, jobs=1, console=console())
    assert (own.directory(results) / "last.safetensors").exists()
    run_here([own], tmp_path / "data", results, jobs=1, console=console())
    assert missing([own], results) == []


COMMAND = """
import signal, sys
from functools import partial
from pathlib import Path
from rich.console import Console
from reproductions.tables import costs, train
from tests.reproductions.tables import stand_in
from tests.reproductions.tables.records_for_tests import cell
for each in (signal.SIGINT, signal.SIGTERM):  # a job in the background ignores the first unless told otherwise
    signal.signal(each, signal.default_int_handler)
train.PRELOADED = [train.__name__]
train.run_here(
    [cell("maml"), cell("low")], Path("data"), Path(sys.argv[1]), jobs=2, console=Console(),
    costs=dict.fromkeys(("maml", "low"), costs.Cost(1, 1, 1)), work=partial(stand_in.work, sys.argv[2]),
)
"""


def of_session(number: int) -> list[str]:
    """The processes of a session that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # ended since
            continue
        if int(session) == number and state not in "ZX":
            found.append(path.with_name("cmdline").read_bytes().decode())
    return found


def assert_nothing_left(number: int) -> None:
    """The server ends when it sees that the command has."""
    until = time.monotonic() + 50
    while (left := of_session(number)) and time.monotonic() < until:
        time.sleep(0.01)
    assert left == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("signum", [None, signal.SIGINT, signal.SIGTERM], ids=str)
def test_nothing_is_left_of_a_command_that_ends_or_is_stopped_with_all_its_processes(results, signum):
    """As Ctrl-C in a terminal and `timeout` do it: the signal goes to every process, the server's too."""
    lines = "import time; time.sleep(60)" if signum else ""
    command = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(results), lines], start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    places = [cell(row).directory(results) for row in ("maml", "low")]
    if signum:
        while command.poll() is None and not all((place / "started").exists() for place in places):
            time.sleep(0.01)
        os.killpg(command.pid, signum)
    _, errors = command.communicate()
    assert ("KeyboardInterrupt" in errors) == bool(signum), errors
    assert all((place / "saved").exists() for place in places) == bool(signum)
    assert_nothing_left(command.pid)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_command_that_is_stopped_while_its_first_cell_starts_leaves_no_cell_behind(results):
    command = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(results), "import time; time.sleep(20); (place / 'ended').write_text('')"],
        start_new_session=True, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while command.poll() is None and not any("forkserver" in each for each in of_session(command.pid)):
        time.sleep(0.001)
    command.terminate()
    _, errors = command.communicate()
    assert "KeyboardInterrupt" in errors
    assert_nothing_left(command.pid)
    assert not list(results.rglob("ended"))
