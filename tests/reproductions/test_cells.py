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
from types import SimpleNamespace
from typing import ClassVar

import pytest
from rich.console import Console

from reproductions import cells
from reproductions.cells import Cost, Seen, estimate, look, main, measure_costs, missing, run, run_on_cluster
from reproductions.specification import Cell, load
from sharp_maml import load_checkpoint, read_records, write_record
from sharp_maml.data import open_cache
from sharp_maml.evaluate import evaluate
from tests.reproductions import stand_in
from tests.reproductions.records_for_tests import cell, dataset, record

COSTS = dict.fromkeys(("maml", "low", "matching-fce"), Cost(2.0, 0.25, 0.75))
run_here = partial(cells.run_here, costs=COSTS)


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results"


@pytest.fixture
def instead(monkeypatch):
    """Let cells run a few lines of Python in place of training; see `stand_in.work`."""

    def use(lines: str) -> None:
        monkeypatch.setattr(cells, "main", partial(stand_in.work, lines))
        monkeypatch.setattr(cells, "POLL_SECONDS", 0.02)

    return use


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


def test_running_a_cell_trains_it_and_writes_a_record_of_the_best_step_and_of_the_whole_run(tmp_path, results):
    """Steps of 1e-12 change no answer, so that the first validation stays the best: the run goes on after it."""
    run(cell("low", 1), dataset(tmp_path / "data"), results)
    directory = cell("low", 1).directory(results)
    (found,) = read_records(directory / "record.json")
    last = load_checkpoint(directory / "last.safetensors").metadata["progress"]
    assert (found.name, found.seed, found.config_digest) == ("low", 1, cell("low", 1).config.digest)
    assert (found.protocol["split"], found.protocol["episodes"]) == ("test", 4)
    assert found.accuracies.keys() == {"transductive", "support"}
    assert found.selected_step == 3
    assert [point["step"] for point in found.learning_curve] == [3, 6]
    assert (found.seconds, found.peak_memory_bytes) == (last["seconds"], last["peak_memory_bytes"])
    assert missing([cell("low", 1)], results) == []


def test_other_ways_to_judge_a_network_are_metrics_of_its_record(tmp_path, results):
    tier = replace(cell().tier, also=({"test_steps": 1}, {"split": "train"}))
    own, matching = cell(tier=tier), cell("matching", tier=tier)
    data = dataset(tmp_path / "data")
    run(own, data, results)
    run(matching, data, results)
    (found,) = read_records(own.directory(results) / "record.json")
    checkpoint = load_checkpoint(own.directory(results) / "best.safetensors")
    for name, way in (("test_steps 1", {"test_steps": 1}), ("split train", {"split": "train"})):
        by_hand = evaluate(checkpoint, data, name="maml", episodes=4, modes=["transductive"], **way)
        assert found.metrics[f"accuracy_transductive, {name}"] == by_hand.metrics["accuracy_transductive"]
    (of_matching,) = read_records(matching.directory(results) / "record.json")
    assert "accuracy_transductive, split train" in of_matching.metrics
    assert not any("test_steps" in name for name in of_matching.metrics)  # it does not adapt
    assert (own.evaluations, matching.evaluations) == (12, 8)
    assert cell(tier=tier, table=replace(cell().table, split="validation")).evaluations == 4  # it only chooses


def test_a_table_of_validation_classes_is_judged_on_them(tmp_path, results):
    own = cell(table=replace(cell().table, split="validation"))
    run(own, dataset(tmp_path / "data"), results)
    (found,) = read_records(own.directory(results) / "record.json")
    assert found.protocol["split"] == "validation"


def test_the_command_of_a_cell_runs_the_cell_of_the_specification_that_its_words_name(tmp_path, results):
    dataset(tmp_path / "data")
    main([str(tmp_path / "data"), str(results), "table1", "up", "smoke", "0", "cpu"])
    (found,) = read_records(results / "smoke/up/seed0/record.json")
    _, tiers = load()
    assert found.config["alpha_up"] == tiers["smoke"].rows["up"]["alpha_up"]
    assert found.data_digest == open_cache(tmp_path / "data").digest


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


def test_a_finished_cell_is_one_line_where_there_is_no_terminal(tmp_path, results, instead):
    instead("")
    shown = console()
    run_here([cell(seed=seed) for seed in range(3)], tmp_path, results, jobs=1, console=shown)
    lines = shown.file.getvalue().splitlines()
    assert [re.sub(r"about \d+ s left", "... left", line) for line in lines] == [
        "maml, seed 0: done, 2 cells left, ... left", "maml, seed 1: done, 1 cells left, ... left",
        "maml, seed 2: done, 0 cells left",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("device", "gpus", "expected"),
    [("cuda", 2, {"cuda:0", "cuda:1"}), ("cuda", 1, {"cuda"}), ("cuda:1", 2, {"cuda:1"}), ("cpu", 2, {"cpu"})],
)
def test_cells_are_spread_over_the_gpus_of_a_machine(tmp_path, results, instead, monkeypatch, device, gpus, expected):
    """Two at a time: the second one goes where the first one is not."""
    instead("(place / 'device').write_text(device)")
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    todo = [cell(seed=seed, device=device) for seed in range(4)]
    run_here(todo, tmp_path, results, jobs=2, console=console())
    assert {(each.directory(results) / "device").read_text() for each in todo} == expected


def test_a_terminal_shows_a_bar_a_cell(tmp_path, results, instead):
    instead("")
    shown = console(terminal=True)
    run_here([cell("maml"), cell("low")], tmp_path, results, jobs=2, console=shown)
    assert "low, seed 0" in shown.file.getvalue()
    assert "6/6" in shown.file.getvalue()
    assert re.search(r"all cells .*2/2.* about 0 s left", shown.file.getvalue())


def test_a_terminal_shows_the_phase_of_a_running_cell(tmp_path, results, instead):
    line = json.dumps({"step": 6, "loss": 1.0, "seconds": 0.5})
    instead(f"""
import time
(place / "metrics.jsonl").write_text('first\\n{line}\\n')
(place / "episodes.txt").write_text("evaluation 3 4")
time.sleep(1)
""")
    shown = console(terminal=True)
    run_here([cell("maml")], tmp_path, results, jobs=1, console=shown)
    assert "evaluation episode 3 of 4" in shown.file.getvalue()


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_as_many_cells_run_at_a_time_as_asked_and_no_more(tmp_path, results, instead, monkeypatch, jobs):
    instead("import time; time.sleep(0.2)")
    processes, at_a_time = [], []
    original = cells._start

    def counting(*arguments):
        processes.append(original(*arguments))
        at_a_time.append(sum(process.exitcode is None for process in processes))
        return processes[-1]

    monkeypatch.setattr(cells, "_start", counting)
    run_here([cell(seed=seed) for seed in range(5)], tmp_path, results, jobs=jobs, console=console())
    assert len(processes) == 5
    assert max(at_a_time) == jobs


def test_a_cell_has_the_threads_of_its_configuration(tmp_path, results, instead):
    """Three of them work: the process that a cell is forked from has started none."""
    instead("""
from dataclasses import replace
from reproductions.cells import run
from sharp_maml.data import open_cache
from sharp_maml.evaluate import evaluate
from tests.reproductions.records_for_tests import cell
tier = replace(cell().tier, settings={**cell().tier.settings, "threads": 3})
run(cell(tier=tier), open_cache(data), results)
""")
    dataset(tmp_path / "data")
    run_here([cell()], tmp_path / "data", results, jobs=1, console=console())
    (found,) = read_records(cell().directory(results) / "record.json")
    assert found.provenance["threads"] == 3


def test_the_peak_memory_of_a_cell_is_its_own(tmp_path, results, instead):
    instead("""
from sharp_maml.train import peak_memory
if seed == "0":
    held = b"x" * 2**29
(place / "peak").write_text(str(peak_memory("cpu")))
""")
    own = [cell(seed=0), cell(seed=1)]
    run_here(own, tmp_path, results, jobs=1, console=console())
    first, second = (int((each.directory(results) / "peak").read_text()) for each in own)
    assert first > 2**29
    assert second < first - 2**28


def test_a_failing_cell_ends_the_others_and_shows_the_end_of_its_log(tmp_path, results, instead):
    instead("""
import sys, time
if row == "low":
    while not (place.parents[1] / "maml/seed0/started").exists():
        time.sleep(0.01)
    print("\\n".join(f"line {i}" for i in range(30)))
    sys.exit(3)
time.sleep(60)
""")
    with pytest.raises(RuntimeError, match="low, seed 0 ended with exit code 3") as error:
        run_here([cell("maml"), cell("low"), cell("low", 1)], tmp_path, results, jobs=2, console=console())
    assert str(cell("low").directory(results) / "log.txt") in str(error.value)
    assert str(error.value).endswith("\n".join(f"line {i}" for i in range(18, 30)))
    assert "line 17" not in str(error.value)
    assert (cell("maml").directory(results) / "saved").exists()
    assert not cell("low", 1).directory(results).exists()


def test_a_killed_cell_is_named_with_its_signal(tmp_path, results, instead):
    instead("import os; print('so far', flush=True); os.kill(os.getpid(), 9)")
    with pytest.raises(RuntimeError, match=r"maml, seed 0 was ended by SIGKILL; the end of .*log.txt:\nso far"):
        run_here([cell()], tmp_path, results, jobs=1, console=console())


def test_an_error_of_a_cell_is_in_its_log(tmp_path, results, instead):
    instead("import os; os.write(2, b'from C\\n'); raise ArithmeticError('no number')")
    with pytest.raises(RuntimeError, match=r"(?s)exit code 1; .*ArithmeticError: no number"):
        run_here([cell()], tmp_path, results, jobs=1, console=console())
    assert (cell().directory(results) / "log.txt").read_text().startswith("from C\n")


def test_an_interrupt_lets_every_cell_save_and_waits_for_it(tmp_path, results, instead, monkeypatch):
    instead("import time; time.sleep(60)")
    own = [cell("maml"), cell("low")]
    original = cells.wait

    def interrupted(sentinels: list[int], seconds: float) -> None:
        original(sentinels, seconds)
        if all((each.directory(results) / "started").exists() for each in own):
            raise KeyboardInterrupt

    monkeypatch.setattr(cells, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_here(own, tmp_path, results, jobs=2, console=console())
    assert all((each.directory(results) / "saved").exists() for each in own)


@pytest.mark.slow
def test_an_interrupted_cell_goes_on_where_it_was(tmp_path, results, monkeypatch):
    """The real trainer: stopped in the middle, then taken up by the same call."""
    tables, tiers = load()
    own = Cell(tables["table1"], tables["table1"].baseline, tiers["smoke"], 0)
    dataset(tmp_path / "data")
    original, metrics = cells.wait, own.directory(results) / "metrics.jsonl"

    def interrupted(sentinels: list[int], seconds: float) -> None:
        original(sentinels, 0.001)
        if metrics.exists() and metrics.read_text().count("\n") >= 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cells, "wait", interrupted)
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
from reproductions import cells
from tests.reproductions import stand_in
from tests.reproductions.records_for_tests import cell
for each in (signal.SIGINT, signal.SIGTERM):  # a job in the background ignores the first unless told otherwise
    signal.signal(each, signal.default_int_handler)
cells.PRELOADED = [cells.__name__]
cells.main = partial(stand_in.work, sys.argv[2])
costs = dict.fromkeys(("maml", "low"), cells.Cost(1, 1, 1))
cells.run_here([cell("maml"), cell("low")], Path("data"), Path(sys.argv[1]), costs=costs, jobs=2, console=Console())
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


LINE = {"step": 59, "loss": 1.25, "seconds": 0.5}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, (0, "starting")),
        ("", (0, "starting")),
        ("no JSON\n{no JSON}", (0, "starting")),
        ("\n".join(json.dumps({**LINE, "step": i}) for i in range(1, 60)), (59, "loss 1.250, 0.500 s/it")),
        (f'{{"step": 4}}\n{json.dumps(LINE)}\n{{"step": 60, "lo', (59, "loss 1.250, 0.500 s/it")),
        (f'{{}}\n{json.dumps(LINE)}\n{{"step": 59, "validation_accuracy": 0.5}}', (59, "loss 1.250, 0.500 s/it")),
    ],
    ids=["no file", "empty", "damaged", "long", "torn", "validation"],
)
def test_progress_is_the_last_whole_line_of_training_in_the_metrics(tmp_path, text, expected):
    if text is not None:
        (tmp_path / "metrics.jsonl").write_text(text)
    assert look(tmp_path)[:2] == expected


def test_progress_skips_the_line_that_the_part_that_is_read_begins_in(tmp_path):
    text = "\n".join([json.dumps({**LINE, "note": "x" * 950}), json.dumps({**LINE, "step": 60})])
    (tmp_path / "metrics.jsonl").write_text(text)
    assert look(tmp_path)[:2] == (60, "loss 1.250, 0.500 s/it")


@pytest.mark.parametrize("newer", [True, False])
def test_told_episodes_count_while_they_are_newer_than_the_metrics(tmp_path, newer):
    (tmp_path / "metrics.jsonl").write_text(f"first\n{json.dumps(LINE)}\n")
    cells._teller(tmp_path, "validation", 40)(0)
    moment = (tmp_path / "metrics.jsonl").stat().st_mtime_ns + (10**9 if newer else -(10**9))
    os.utime(tmp_path / cells.EPISODES, ns=(moment, moment))
    told = Seen(59, "validation episode 0 of 40", False, "validation", 0)
    assert look(tmp_path) == (told if newer else Seen(59, "loss 1.250, 0.500 s/it"))


@pytest.mark.parametrize("text", ["", "valid", "validation 3", "validation x 40"])
def test_a_torn_word_on_episodes_is_passed_over(tmp_path, text):
    (tmp_path / "metrics.jsonl").write_text(f"first\n{json.dumps(LINE)}\n")
    (tmp_path / cells.EPISODES).write_text(text)
    assert look(tmp_path) == Seen(59, "loss 1.250, 0.500 s/it")


def test_episodes_are_told_from_the_first_of_each_validation_and_not_each_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "time", SimpleNamespace(monotonic=iter([0, 0.1, 0.7, 0.8, 0.9, 1.0, 1.3]).__next__))
    tell, seen = cells._teller(tmp_path, "validation", 5), []
    for index in (0, 1, 2, 3, 4, 0, 1):
        tell(index)
        seen.append((tmp_path / cells.EPISODES).read_text())
    assert seen == [f"validation {done} 5" for done in (0, 0, 2, 2, 2, 0, 0)]


COST = Cost(2.0, 0.25, 0.75)
"""The tier has 6 iterations, validates 3 episodes after every 3, and evaluates 4 in two modes."""


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (Seen(), (12, 1.5, 3)),
        (Seen(2), (8, 1.5, 3)),
        (Seen(3), (6, 1.5, 3)),
        (Seen(3, phase="validation", episodes=2), (6, 1.0, 3)),
        (Seen(3, validated=True), (6, 0.75, 3)),
        (Seen(5), (2, 0.75, 3)),
        (Seen(6, validated=True), (0, 0, 3)),
        (Seen(6, validated=True, phase="evaluation", episodes=2), (0, 0, 1.5)),
    ],
)
def test_what_is_left_of_a_cell_is_training_validations_and_evaluation(seen, expected):
    assert COST.left(cell(), seen) == expected


def test_the_last_step_is_validated_whatever_its_number(results):
    odd = cell(tier=replace(cell().tier, settings={**cell().tier.settings, "validate_every": 4}))
    assert [COST.left(odd, Seen(step, validated=True))[1] for step in (0, 4, 5, 6)] == [1.5, 0.75, 0.75, 0]


def test_the_estimate_is_of_everything_that_is_left_over_the_processes(results):
    todo = [cell("maml", seed) for seed in (0, 1)]
    assert estimate(todo, results, COSTS, 1) == (
        "2 cells to train, 1 at a time: about 33 s (training 24 s, validation 3 s, evaluation 6 s)"
    )
    assert "about 16 s" in estimate(todo, results, COSTS, 2)
    assert estimate(todo, results, COSTS, 9) == estimate(todo, results, COSTS, 2).replace("2 at a time", "9 at a time")
    directory = todo[0].directory(results)
    directory.mkdir(parents=True)
    (directory / "metrics.jsonl").write_text(f"first\n{json.dumps({**LINE, 'step': 5})}\n")
    assert "about 22 s (training 14 s" in estimate(todo, results, COSTS, 1)


def test_costs_are_measured_once_a_row(tmp_path, monkeypatch):
    dataset(tmp_path / "data")
    timed = []
    monkeypatch.setattr(cells, "time_iteration", lambda config, data: timed.append(config.variant) or 1.0)
    monkeypatch.setattr(
        cells, "time_prediction", lambda config, data, modes: timed.append(tuple(modes)) or 0.25 * len(modes)
    )
    todo = [cell(row, seed) for row in ("maml", "low") for seed in (0, 1)]
    assert measure_costs(todo, tmp_path / "data") == dict.fromkeys(("maml", "low"), Cost(1.0, 0.25, 0.5))
    episodes = [("transductive",), ("transductive", "support")]
    assert [each for each in timed if isinstance(each, tuple)] == episodes * 2
    assert [each for each in timed if isinstance(each, str)] == ["maml", "low"]


def test_a_trained_cell_has_told_its_last_evaluation(tmp_path, results):
    run(cell("low", 1), dataset(tmp_path / "data"), results)
    seen = look(cell("low", 1).directory(results))
    assert (seen.step, seen.validated, seen.phase) == (6, True, "evaluation")
    assert measure_costs([cell("low")], tmp_path / "data")["low"].iteration > 0


class FakeJob:
    def __init__(self, failure: Exception | None) -> None:
        self.job_id, self.paths, self._failure = "17", SimpleNamespace(stderr="job.err"), failure

    def exception(self) -> Exception | None:
        return self._failure


class FakeExecutor:
    """What `run_on_cluster` uses of submitit; it keeps what it is given."""

    made: ClassVar[list[FakeExecutor]] = []
    failure: ClassVar[Exception | None] = None

    def __init__(self, folder: Path, cluster: str) -> None:
        self.folder, self.cluster, self.submitted, self.parameters = folder, cluster, [], {}
        self.made.append(self)

    def update_parameters(self, **parameters: object) -> None:
        self.parameters |= parameters

    def submit(self, function: object, words: list[str]) -> FakeJob:
        self.submitted.append((function, words))
        return FakeJob(self.failure)


@pytest.fixture
def executors(monkeypatch):
    monkeypatch.setattr(FakeExecutor, "made", [])
    monkeypatch.setitem(sys.modules, "submitit", SimpleNamespace(AutoExecutor=FakeExecutor))
    return FakeExecutor


def on_cluster(shown: Console, results: Path = Path("results")) -> None:
    own = [cell("maml"), cell("low", 1)]
    options = {"timeout_min": 600}
    run_on_cluster(own, Path("data"), results, cluster="slurm", options=options, console=shown)


def test_a_scheduler_gets_a_job_a_cell_with_paths_that_do_not_depend_on_where_it_runs(executors):
    shown = console()
    on_cluster(shown)
    (executor,) = executors.made
    assert (executor.cluster, executor.folder) == ("slurm", Path("results/cluster"))
    assert executor.parameters["timeout_min"] == 600
    absolute = [str(Path.cwd() / "data"), str(Path.cwd() / "results")]
    assert executor.submitted == [
        (main, [*absolute, "table1", "maml", "smoke", "0", "cpu"]),
        (main, [*absolute, "table1", "low", "smoke", "1", "cpu"]),
    ]
    assert "low, seed 1: job 17, log job.err" in shown.file.getvalue()


def test_a_job_that_fails_on_a_scheduler_is_named(executors, monkeypatch):
    monkeypatch.setattr(executors, "failure", OSError("disk full"))
    with pytest.raises(RuntimeError, match="maml, seed 0: job 17 failed: disk full"):
        on_cluster(console())


def test_without_submitit_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(RuntimeError, match=r"sharp-maml\[cluster\]"):
        on_cluster(console())
