from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharp_maml import ADAPTATION, Config, build, distributed, load_checkpoint
from sharp_maml.distributed import Ranks, in_threads, mean_over_ranks, start, stop
from sharp_maml.train import train
from tests.sharp_maml.tiny import SETTINGS, tiny_config, tiny_dataset

BOTH = {"dtype": "float64", "alpha_low": 0.05, "alpha_up": 0.05, "meta_batch": 4}
NO_ADAPTATION = {"method": "matching-fce"} | {name: getattr(Config(), name) for name in ADAPTATION}
EXACT = {"rtol": 0, "atol": 1e-12}


def launch(*arguments: str, ranks: int = 2) -> list[subprocess.Popen[str]]:
    """The command once per rank, as torchrun would start it, but with processes that a test can send signals to."""
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, **variables, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for variables in distributed.local_ranks(ranks)
    ]  # fmt: skip


def finish(processes: list[subprocess.Popen[str]], timeout: float = 120) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of each; none is left behind."""
    try:
        return [(process.returncode, *text) for process in processes for text in [process.communicate(timeout=timeout)]]
    finally:
        for process in processes:
            process.kill()


def write_toml(place: Path) -> Path:
    """A configuration file of the tiny problem on disk, whose meta-batch two ranks can share."""
    tiny_dataset(place / "tiny")
    values = {**SETTINGS, **BOTH, "iterations": 6, "data": str(place / "tiny")}
    (place / "tiny.toml").write_text("\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items()))
    return place / "tiny.toml"


@pytest.fixture
def toml(tmp_path):
    return write_toml(tmp_path)


def tensors(directory: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return load_checkpoint(directory / f"{name}.safetensors").tensors


def assert_close(one: Path, other: Path) -> None:
    """Weights and the optimizer's moments; the sums of a mean are in another order, so not bit for bit."""
    a, b = tensors(one), tensors(other)
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], **EXACT, msg=lambda text, name=name: f"{name}: {text}")


def test_without_a_launcher_there_is_one_rank_and_no_process_group(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert start("cpu") == Ranks(0, 1)
    assert not torch.distributed.is_initialized()
    stop()


def test_without_a_process_group_the_mean_is_the_tree_itself():
    tree = {"a": torch.ones(2)}
    assert mean_over_ranks(tree) is tree


@pytest.fixture
def group_of_one(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    stop()


def test_stopping_leaves_the_group_and_can_be_repeated(group_of_one):
    assert torch.distributed.is_initialized()
    stop()
    stop()
    assert not torch.distributed.is_initialized()


shapes = st.lists(st.lists(st.integers(0, 3), max_size=3), min_size=1, max_size=5)


def test_the_mean_of_one_rank_keeps_names_shapes_order_and_values(group_of_one):
    @settings(deadline=None, max_examples=50)
    @given(shapes)
    def law(shapes):
        tree = {f"p{i}": torch.randn(shape, dtype=torch.float64) for i, shape in enumerate(shapes)}
        found = mean_over_ranks(tree)
        assert list(found) == list(tree)
        assert all(torch.equal(found[name], value) for name, value in tree.items())

    law()


@pytest.mark.slow
def test_the_mean_over_two_processes_is_the_mean_and_the_same_in_both():
    """Rank r has r + 1 times a tree of numbers; the mean of two ranks is 1.5 times it."""
    code = """if True:
        import torch
        from sharp_maml import distributed
        ranks = distributed.start("cpu")
        tree = {"a": torch.arange(6, dtype=torch.float64).reshape(2, 3), "b": torch.tensor(-0.25, dtype=torch.float64)}
        mine = {name: (ranks.rank + 1) * value for name, value in tree.items()}
        found = distributed.mean_over_ranks(mine)
        same = all(torch.equal(found[name], 1.5 * value) for name, value in tree.items())
        kept = torch.equal(mine["a"], (ranks.rank + 1) * tree["a"])
        print(ranks, list(found), same, kept)
        distributed.stop()
    """
    done = finish(launch("-c", code))
    for rank, (status, out, error) in enumerate(done):
        assert status == 0, error
        assert out == f"Ranks(rank={rank}, world_size=2) ['a', 'b'] True True\n"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")
def test_stopping_ends_the_threads_of_the_group_whatever_torch_imports_in_between():
    """A thread of gloo that still runs when Python exits can abort the process."""
    code = """if True:
        import os, torch
        from pathlib import Path
        from sharp_maml import distributed
        threads = lambda: sum("gloo" in path.read_text() for path in Path("/proc/self/task").glob("*/comm"))
        distributed.start("cpu")
        distributed.mean_over_ranks({"a": torch.ones(1)})
        import torch._dynamo
        running = threads()
        distributed.stop()
        print(running > 0, threads())
    """
    for status, out, error in finish(launch("-c", code)):
        assert (status, out) == (0, "True 0\n"), error


@pytest.mark.parametrize(("device", "chosen"), [("cuda", [3]), ("cuda:1", []), ("cpu", [])])
def test_each_process_of_a_machine_takes_its_own_gpu_where_none_is_named(monkeypatch, device, chosen):
    used, kinds = [], []
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    monkeypatch.setattr(distributed.distributed, "init_process_group", kinds.append)
    monkeypatch.setattr(distributed.distributed, "get_rank", lambda: 3)
    monkeypatch.setattr(distributed.distributed, "get_world_size", lambda: 4)
    assert start(device) == Ranks(3, 4)
    assert used == chosen
    assert kinds == ["gloo" if device == "cpu" else "nccl"]


def test_two_processes_compute_what_one_does(toml, tmp_path):
    """Both ascents, Adam, float64: the mean over ranks is taken before the upper ascent, or this fails."""
    done = finish(launch("-m", "sharp_maml", "train", str(toml), "--directory", str(tmp_path / "two")))
    assert [status for status, _, _ in done] == [0, 0], done
    config = tiny_config(**BOTH, iterations=6)
    state = train(config, tiny_dataset(tmp_path / "tiny"), tmp_path / "one")
    assert_close(tmp_path / "one", tmp_path / "two")
    progress = load_checkpoint(tmp_path / "two/last.safetensors").metadata["progress"]
    assert [point["validation_accuracy"] for point in progress["curve"]] == [
        point["validation_accuracy"] for point in state.curve
    ]
    assert ["evaluate with" in out for _, out, _ in done] == [True, False]  # rank 0 speaks
    assert "step 6 of 6" in done[0][2]
    assert "step" not in done[1][2]


def test_the_control_the_mean_after_the_ascent_is_something_else(tmp_path):
    """Each half of the meta-batch ascending by itself differs by far more than the tolerance of the test above."""
    from sharp_maml import Protocol, build, episode

    dataset = tiny_dataset(tmp_path / "tiny")
    experiment = build(tiny_config(**BOTH), channels=3)
    params = experiment.init(0)
    drawn = [episode(dataset, "train", Protocol(3, 1, 4), seed=0, index=i, dtype=torch.float64) for i in range(4)]
    whole, first, second = (experiment.method.gradient(params, e).grad for e in (drawn, drawn[:2], drawn[2:]))
    assert max(float(((first[n] + second[n]) / 2 - whole[n]).abs().max()) for n in whole) > 1e-6


def test_a_meta_batch_that_the_processes_cannot_share_equally_is_refused_before_anything_is_written(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(distributed, "start", lambda device: Ranks(0, 3))
    with pytest.raises(ValueError, match="meta_batch must be a multiple of the 3 processes, got 2"):
        train(tiny_config(meta_batch=2), tiny_dataset(tmp_path / "tiny"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def alone() -> dict[str, str]:
    """The environment without what a launcher sets."""
    return {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")} | {
        "OMP_NUM_THREADS": "1"
    }


@pytest.mark.slow
def test_the_option_of_two_processes_trains_what_one_does_and_reports_errors(toml, tmp_path):
    command = [sys.executable, "-m", "sharp_maml", "train", str(toml), "--processes", "2", "--directory"]
    done = subprocess.run([*command, str(tmp_path / "two")], capture_output=True, text=True, env=alone())
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("evaluate with") == 1
    train(tiny_config(**BOTH, iterations=6), tiny_dataset(tmp_path / "tiny"), tmp_path / "one")
    assert_close(tmp_path / "one", tmp_path / "two")
    failed = subprocess.run(
        [*command, str(tmp_path / "x"), "meta_batch=3"], capture_output=True, text=True, env=alone()
    )
    assert failed.returncode == 2
    assert "meta_batch must be a multiple of the 2 processes, got 3" in failed.stderr


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_option_of_two_processes_saves_and_ends_all(toml, tmp_path, signum):
    """Sent to the whole group, as a terminal does with Ctrl-C."""
    words = [str(toml), "--processes", "2", *LONGER, str(tmp_path / "cut")]
    command = [sys.executable, "-m", "sharp_maml", "train", *words]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=alone(), start_new_session=True
    )
    wait_for_steps(tmp_path / "cut", 3, [process])
    os.killpg(process.pid, signum)
    ((status, _, error),) = finish([process])
    assert status == 128 + signum, error
    assert 3 <= load_checkpoint(tmp_path / "cut/last.safetensors").metadata["progress"]["step"] < 60


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["1", "2"])
def test_an_error_is_one_line_whatever_the_number_of_processes_and_costs_nothing_that_was_done(
    toml, tmp_path, processes
):
    """A folder where the best checkpoint should go; without it, the same command ends as if nothing had happened."""

    def command(directory: str, *own: str) -> subprocess.CompletedProcess[str]:
        words = [str(toml), "--processes", processes, "--directory", str(tmp_path / directory), *own]
        return subprocess.run(
            [sys.executable, "-m", "sharp_maml", "train", *words], capture_output=True, text=True, env=alone()
        )

    before = command("before", "ways=6")
    assert (before.returncode, before.stderr.count("\n")) == (2, 1), before.stderr
    assert before.stderr.startswith("error: ways: at most 5, the classes of tiny/train; got 6: use fewer ways")
    assert not (tmp_path / "before").exists()

    obstacle = tmp_path / "cut/best.safetensors"
    obstacle.mkdir(parents=True)
    cut = command("cut")
    errors = [line for line in cut.stderr.splitlines() if not line.startswith(("both on tiny", "step"))]
    assert (cut.returncode, len(errors)) == (2, 1), cut.stderr
    assert errors[0].startswith(f"error: {obstacle}: the checkpoint cannot be written")
    assert load_checkpoint(tmp_path / "cut/last.safetensors").metadata["progress"]["step"] == 4
    obstacle.rmdir()
    assert [command(directory).returncode for directory in ("cut", "whole")] == [0, 0]
    found, expected = tensors(tmp_path / "cut"), tensors(tmp_path / "whole")
    assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == []
    curves = [
        load_checkpoint(tmp_path / directory / f"{name}.safetensors").metadata["progress"]["curve"]
        for directory in ("cut", "whole")
        for name in ("last", "best")
    ]
    assert curves[:2] == curves[2:]


@pytest.mark.slow
def test_a_process_that_is_killed_is_missed_in_one_line_and_the_state_is_kept(toml, tmp_path):
    processes = launch("-m", "sharp_maml", "train", str(toml), *LONGER, str(tmp_path / "cut"), "checkpoint_every=50")
    wait_for_steps(tmp_path / "cut", 3, processes)
    processes[1].kill()
    ((status, _, error), _) = finish(processes)
    assert status == 2
    assert "Traceback" not in error
    assert error.splitlines()[-1].startswith("error: another process of this run ended, or cannot be reached: ")
    assert load_checkpoint(tmp_path / "cut/last.safetensors").metadata["progress"]["step"] >= 3


@pytest.mark.slow
def test_of_processes_that_fail_the_first_says_why(tmp_path, capfd):
    code = "from sharp_maml.distributed import speaks; print('why', speaks()); raise SystemExit(2)"
    assert distributed.run_in_processes(3, [sys.executable, "-c", code]) == 2
    assert capfd.readouterr().out.count("why True") == 1
    assert distributed.speaks()  # alone


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_process_ends_when_the_other_end_of_its_pipe_is_closed_and_not_before(tmp_path):
    """Whatever lies in the pipe."""
    theirs, own = os.pipe()
    os.write(own, b"x")
    if not (pid := os.fork()):
        os.close(own)
        distributed._end_when_closed(theirs)
        time.sleep(60)
        os._exit(0)
    time.sleep(0.2)
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    os.close(own)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
    os.close(theirs)


def test_a_process_that_fails_ends_the_others(tmp_path):
    code = "import os, time; os.environ['RANK'] == '0' and time.sleep(60); raise SystemExit(3)"
    began = time.monotonic()
    assert distributed.run_in_processes(2, [sys.executable, "-c", code]) == 3
    assert time.monotonic() - began < 50  # the first would sleep longer


@pytest.mark.slow
def test_an_error_on_all_ranks_ends_all_with_its_message(toml, tmp_path):
    done = finish(launch("-m", "sharp_maml", "train", str(toml), "meta_batch=3", "--directory", str(tmp_path / "run")))
    for status, _, error in done:
        assert status == 2
        assert error.endswith("error: meta_batch must be a multiple of the 2 processes, got 3\n")


@pytest.mark.slow
def test_torchrun_trains_and_a_finished_run_is_not_run_again(toml, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    own = ["sharp_maml", "train", str(toml), "--directory", str(tmp_path / "two")]
    for _ in range(2):
        subprocess.run([*command, *own], check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    train(tiny_config(**BOTH, iterations=6), tiny_dataset(tmp_path / "tiny"), tmp_path / "one")
    assert_close(tmp_path / "one", tmp_path / "two")
    lines = (tmp_path / "two/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 4, 5, 6, 6]


def wait_for_steps(directory: Path, steps: int, processes: list[subprocess.Popen[str]]) -> None:
    deadline = time.monotonic() + 90
    while True:
        path = directory / "metrics.jsonl"
        if path.exists() and len(path.read_text().splitlines()) >= steps:
            return
        assert all(process.poll() is None for process in processes), finish(processes)
        assert time.monotonic() < deadline, finish(processes, timeout=1)
        time.sleep(0.02)


LONGER = ("iterations=60", "validate_every=40", "--directory")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A configuration file, and the run of two ranks that nothing stopped."""
    place = tmp_path_factory.mktemp("distributed")
    toml = write_toml(place)
    done = finish(launch("-m", "sharp_maml", "train", str(toml), *LONGER, str(place / "whole")))
    assert [status for status, _, _ in done] == [0, 0], done
    return toml, place / "whole"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("receivers", "signum"),
    [
        ([0], signal.SIGINT),
        ([1], signal.SIGINT),
        ([0], signal.SIGTERM),
        ([1], signal.SIGTERM),
        ([0, 1], signal.SIGTERM),
    ],
    ids=str,
)
def test_a_signal_to_any_rank_stops_all_after_the_same_step_and_the_run_goes_on(
    uninterrupted, tmp_path, receivers, signum
):
    """With the same exit code, also that of the ranks that only heard of the signal from another."""
    toml, whole = uninterrupted
    command = ("-m", "sharp_maml", "train", str(toml), *LONGER, str(tmp_path / "cut"))
    processes = launch(*command)
    wait_for_steps(tmp_path / "cut", 3, processes)
    for rank in receivers:
        processes[rank].send_signal(signum)
    done = finish(processes)
    assert [status for status, _, _ in done] == [128 + signum] * 2, done
    progress = load_checkpoint(tmp_path / "cut/last.safetensors").metadata["progress"]
    reached = [json.loads(line)["step"] for line in (tmp_path / "cut/metrics.jsonl").read_text().splitlines()]
    assert 3 <= progress["step"] == reached[-1] < 60
    done = finish(launch(*command))
    assert [status for status, _, _ in done] == [0, 0], done
    found, expected = tensors(tmp_path / "cut"), tensors(whole)
    assert found.keys() == expected.keys()
    assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == []
    assert load_checkpoint(tmp_path / "cut/last.safetensors").metadata["progress"]["interruptions"] == 1


@pytest.mark.parametrize("settings", [BOTH, {**BOTH, "perturbation": "differentiated"}, NO_ADAPTATION])
def test_episodes_in_threads_have_the_gradient_of_one_after_the_other(tmp_path, settings):
    dataset = tiny_dataset(tmp_path)
    config = {"dtype": "float64", "meta_batch": 5, **settings}
    one, three = (train(tiny_config(**config, episode_threads=n), dataset, directory=tmp_path / str(n)) for n in (1, 3))
    assert (one.step, one.best_step) == (three.step, three.best_step)
    first, second = (load_checkpoint(tmp_path / str(n) / "last.safetensors").tensors for n in (1, 3))
    torch.testing.assert_close(first, second, **EXACT)


def test_in_threads_keeps_the_order_works_side_by_side_and_passes_errors_on():
    both_there = threading.Barrier(2, timeout=60)  # breaks, and so fails, unless two items are worked on at once

    def square(x):
        both_there.wait()
        return x * x

    assert list(in_threads(2)(square, range(6))) == [x * x for x in range(6)]
    with pytest.raises(ZeroDivisionError):
        list(in_threads(2)(lambda x: 1 / x, [1, 0]))


def test_threads_share_those_of_torch(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    list(in_threads(2)(lambda x: x, [1]))
    assert asked == [2]


def test_threads_inside_a_transform_are_refused():
    def inside(x):
        return sum(in_threads(2)(lambda y: y * x, [1.0, 2.0]))

    with pytest.raises(RuntimeError, match=r"inside a torch\.func transform: use map"):
        torch.func.vmap(inside)(torch.ones(3))


def test_an_experiment_asks_for_threads_only_where_there_are_several(monkeypatch):
    asked = []
    monkeypatch.setattr("sharp_maml.methods.in_threads", asked.append)
    for n in (1, 2):
        build(Config(image_size=16, filters=2, episode_threads=n), channels=3)
    assert asked == [2]
