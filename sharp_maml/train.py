"""The training loop: `python -m sharp_maml.train CONFIG.toml key=value ... [--directory DIR]`.

A run directory holds `config.json`, `metrics.jsonl` and the checkpoints `last` and `best` (on the validation classes).
A run that was cut off goes on from `last` when the same command is given again, on a CPU bit for bit as if nothing had
happened; SIGINT and SIGTERM finish the step, save and exit, and an error after the first step saves what was reached.
Read next: `evaluate.py`.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from sharp_maml import distributed
from sharp_maml.allocator import keep_freed_memory
from sharp_maml.base import Episode, MetaGradient, NonFiniteError
from sharp_maml.checkpoint import RunDirectoryLock, load_checkpoint, save_checkpoint, write_atomically
from sharp_maml.config import Config
from sharp_maml.data import Dataset, EpisodeStream, Protocol, check_protocol, episode, open_dataset
from sharp_maml.estimates import interval_over_episodes
from sharp_maml.evaluate import correct_counts, to_device
from sharp_maml.methods import build
from sharp_maml.records import joined, provenance
from sharp_maml.tree import norm

log = logging.getLogger(__name__)


class Interrupted(SystemExit):
    """A signal ended the run after a finished step; its state is saved. The exit code is 128 + signal."""


@dataclass
class State:
    """All that a run needs to go on, beside parameters, optimizer and random numbers.

    step: meta-iterations done. started: when the run began (UTC). seconds: spent in all. curve: a point a validation,
    with the mean training loss since the last one (its sum and count so far are loss_sum, loss_count), and an interval
    where there are two episodes or more. best_step, best_accuracy: where the validation accuracy was best.
    peak_memory_bytes: largest resident set (or device memory). interruptions: how often the run was taken up again.
    """

    step: int = 0
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    seconds: float = 0.0
    curve: list[dict[str, Any]] = field(default_factory=list)
    loss_sum: float = 0.0
    loss_count: int = 0
    best_step: int = 0
    best_accuracy: float = -1.0
    peak_memory_bytes: int = 0
    interruptions: int = 0


def train(
    config: Config,
    dataset: Dataset,
    directory: Path,
    *,
    show_progress: bool = False,
    on_validation_episode: Callable[[int], object] = lambda index: None,
) -> State:
    """Train, or go on training, until `config.iterations` steps are done.

    theta <- optimizer(theta, meta-gradient); every `validate_every` steps and at the end the accuracy on
    `validation_episodes` episodes of the validation classes, whose best step is kept as `best`. Whatever ends the run
    after a step leaves the state of its last finished step in `last`, if it is finite.

    Args:
        config: The configuration.
        dataset: Images of `config.image_size` pixels; each of its three splits is enough for an episode.
        directory: The run directory; made if missing.
        show_progress: A progress bar on a terminal; otherwise plain log lines.
        on_validation_episode: Called with each index before the episode, in every validation.

    Returns:
        The state at the end.

    Raises:
        ValueError: The data do not fit the configuration, or the directory holds a run of another one.
        NonFiniteError: A loss or gradient is not finite, and `last` holds the parameters before that step; or
            parameters, moments of the optimizer or logits of a validation are not.
        Interrupted: SIGINT or SIGTERM came; the state is saved.
    """
    if dataset.size != config.image_size:
        raise ValueError(f"image_size is {config.image_size}, but {dataset.name} has {dataset.size} pixels")
    check_protocol(dataset, Protocol(config.ways, config.shots, config.queries))
    ranks = distributed.start(config.device)
    if config.meta_batch % ranks.world_size:
        raise ValueError(f"meta_batch must be a multiple of the {ranks.world_size} processes, got {config.meta_batch}")
    if config.threads:
        torch.set_num_threads(config.threads)
    keep_freed_memory()
    directory.mkdir(parents=True, exist_ok=True)
    with RunDirectoryLock(directory) if ranks.rank == 0 else nullcontext() as lock, _signals() as stopped_by:
        run = _Run(config, dataset, directory, ranks, lock)
        if run.state.step >= config.iterations and not run.must_validate():
            return run.state
        with run.episodes() as stream, _Report(run, show_progress and ranks.rank == 0) as report, run.kept():

            def validation_episode(index: int) -> None:
                report.validation_episode(index)
                on_validation_episode(index)

            if run.must_validate():  # an error ended the run there
                report.validation(run.validate(validation_episode))
                run.save("last")
            for episodes in stream:
                began = time.perf_counter()
                result = run.step(episodes)
                report.step(result, time.perf_counter() - began)
                signum = run.agree(stopped_by)
                done = run.state.step == config.iterations
                if run.must_validate():
                    report.validation(run.validate(validation_episode))
                if run.state.step % config.checkpoint_every == 0 or done or signum:
                    run.save("last")
                if signum and not done:
                    log.info("signal %d: saved step %d in %s", signum, run.state.step, directory)
                    raise Interrupted(128 + signum)
        return run.state


class _Run:
    """Parameters, optimizer and state, on disk and in memory."""

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        directory: Path,
        ranks: distributed.Ranks,
        lock: RunDirectoryLock | None,
    ) -> None:
        self.config, self.dataset, self.directory, self.ranks, self.lock = config, dataset, directory, ranks, lock
        experiment = build(config, channels=dataset.channels)
        self.method = self.between = experiment.method
        if config.ascent_every > 1:
            self.between = build(_without_ascent(config), channels=dataset.channels).method
        self.params = {name: value.requires_grad_() for name, value in experiment.init(config.seed).items()}
        kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[config.optimizer]
        self.optimizer = kind(self.params.values(), lr=config.beta_up)
        self.state = State()
        self.provenance = provenance(config.device)
        torch.manual_seed(config.seed)
        self.clock = time.perf_counter()
        if (directory / "last.safetensors").exists():
            self._load()
        elif ranks.rank == 0:
            write_atomically(directory / "config.json", (json.dumps(config.to_dict(), indent=2) + "\n").encode())
            write_atomically(directory / "metrics.jsonl", b"")

    def episodes(self) -> EpisodeStream:
        return EpisodeStream(
            self.dataset,
            "train",
            Protocol(self.config.ways, self.config.shots, self.config.queries),
            seed=self.config.seed,
            meta_batch=self.config.meta_batch,
            start=self.state.step,
            stop=self.config.iterations,
            rank=self.ranks.rank,
            world_size=self.ranks.world_size,
            dtype=getattr(torch, self.config.dtype),
            pin_memory=self.config.device.startswith("cuda"),
        )

    def gradient(self, episodes: Sequence[Episode]) -> MetaGradient:
        params = {name: value.detach() for name, value in self.params.items()}
        method = self.method if self.has_ascent() else self.between
        return method.gradient(params, [to_device(drawn, self.config.device) for drawn in episodes])

    def has_ascent(self) -> bool:
        """Whether the next meta-iteration is one with ascents."""
        return self.state.step % self.config.ascent_every == 0

    def step(self, episodes: Sequence[Episode]) -> dict[str, float]:
        """One meta-iteration. Returns losses and the gradient's norm; a number that is not finite stops the run.

        The host waits for the device once, for these numbers; those of the parameters are of the update before.
        """
        result = self.gradient(episodes)
        seen = [result.loss, result.loss_ascent, norm(result.grad), self._size()]
        loss, loss_ascent, size, of_params = torch.stack(seen).tolist()
        self._require_finite("parameters", of_params)
        if not math.isfinite(loss + loss_ascent + size):
            self._stop_at_non_finite(episodes, loss, loss_ascent, size)
        for name, value in self.params.items():
            value.grad = result.grad[name]
        for group in self.optimizer.param_groups:
            group["lr"] = self._step_size()
        self.optimizer.step()
        self.state.step += 1
        self.state.loss_sum += loss
        self.state.loss_count += 1
        return {"loss": loss, "loss_ascent": loss_ascent, "grad_norm": size}

    def _step_size(self) -> float:
        """The outer step size of the next update, a function of its number alone."""
        if self.config.schedule == "constant":
            return self.config.beta_up
        return self.config.beta_up * (1 + math.cos(math.pi * self.state.step / self.config.iterations)) / 2

    def _size(self) -> Tensor:
        """Norm of the parameters."""
        return norm({name: value.detach() for name, value in self.params.items()})

    def _require_finite(self, what: str, size: float) -> None:
        if not math.isfinite(size):
            raise NonFiniteError(
                f"step {self.state.step}: the {what} are not finite after the update; "
                f"{self.directory / 'last.safetensors'} holds an earlier step, if one was saved. Use a smaller beta_up."
            )

    def _require_finite_state(self) -> None:
        """Of the parameters, and of the optimizer's moments: an infinite one stops its parameter without a sign."""
        moments = [moment for state in self.optimizer.state.values() for moment in state.values()]
        zero = sum((0 * moment).sum() for moment in moments if isinstance(moment, Tensor))
        self._require_finite("parameters", float(self._size()))
        self._require_finite("optimizer's moments", float(zero))

    def _stop_at_non_finite(self, episodes: Sequence[Episode], *seen: float) -> None:
        """Replay the episodes one at a time to name the first that is not finite, save what is good, and raise."""
        here = self.config if self.has_ascent() else _without_ascent(self.config)
        alone = build(replace(here, compile=False), channels=self.dataset.channels).method
        params = {name: value.detach() for name, value in self.params.items()}
        first = self.state.step * self.config.meta_batch + self.ranks.rank * len(episodes)
        culprit = "none of this process's episodes alone"
        for offset, drawn in enumerate(episodes):
            result = alone.gradient(params, [to_device(drawn, self.config.device)])
            if not math.isfinite(float(result.loss + result.loss_ascent + norm(result.grad))):
                culprit = f"episode {first + offset}"
                break
        self.save("last")
        raise NonFiniteError(
            f"step {self.state.step}: the loss or gradient is not finite ({culprit}); loss {seen[0]:g}, loss at the "
            f"upper ascent point {seen[1]:g}, gradient norm {seen[2]:g}, parameter norm {float(norm(params)):g}. The "
            f"last good checkpoint is {self.directory / 'last.safetensors'}. Look for NaN in the data, or use smaller "
            "step sizes beta_low and beta_up or smaller radii."
        )

    def must_validate(self) -> bool:
        """Whether this is a step at which to validate, and that has not been done."""
        step, last = self.state.step, self.state.curve[-1]["step"] if self.state.curve else 0
        return step > last and (step % self.config.validate_every == 0 or step >= self.config.iterations)

    def validate(self, on_episode: Callable[[int], object]) -> float:
        """Accuracy on the validation classes; the best so far is saved as `best`. Rank 0 alone does it."""
        if self.ranks.rank != 0:
            return math.nan
        self._require_finite_state()
        try:
            counts = correct_counts(
                self.method,
                {name: value.detach() for name, value in self.params.items()},
                self.dataset,
                "validation",
                self.config,
                episodes=self.config.validation_episodes,
                modes=[self.config.batch_norm],
                on_episode=on_episode,
            )[self.config.batch_norm]
        except NonFiniteError as error:
            raise NonFiniteError(
                f"step {self.state.step}: {error}. {self.directory / 'last.safetensors'} holds the state of this step"
            ) from error
        accuracy = interval_over_episodes(counts / (self.config.ways * self.config.queries))
        bounds = accuracy.to_dict()  # None where one episode gives no interval
        point = {
            "step": self.state.step,
            "loss": self.state.loss_sum / self.state.loss_count,
            "validation_accuracy": accuracy.mean,
            "low": bounds["low"],
            "high": bounds["high"],
        }
        before = self.state
        self.state = replace(before, curve=[*before.curve, point], loss_sum=0.0, loss_count=0)
        if accuracy.mean > self.state.best_accuracy:
            self.state.best_step, self.state.best_accuracy = self.state.step, accuracy.mean
            try:
                self.save("best")
            except Exception:
                self.state = before  # without a best checkpoint this step is not validated
                raise
        return accuracy.mean

    def agree(self, stopped_by: list[int]) -> int:
        """The signal that any rank received, 0 for none: all ranks must stop after the same step."""
        signum = stopped_by[0] if stopped_by else 0
        flag = torch.tensor([float(signum)], device=self.config.device)
        anywhere = distributed.mean_over_ranks({"signal": flag})["signal"].item() > 0
        return (signum or signal.SIGTERM) if anywhere else 0

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Whatever error comes, save what was reached, if it is finite; the error is what the user must hear of."""
        try:
            yield
        except Exception:
            if self.state.step:
                with suppress(Exception):
                    self.save("last")
            raise

    def save(self, name: str) -> None:
        """Write a checkpoint, atomically; rank 0 alone does it."""
        if self.lock is None:  # not rank 0
            return
        self.lock.require_held()
        self._require_finite_state()
        now = time.perf_counter()
        self.state.seconds += now - self.clock
        self.clock = now
        self.state.peak_memory_bytes = max(self.state.peak_memory_bytes, peak_memory(self.config.device))
        tensors: dict[str, Tensor] = {f"params/{key}": value.detach() for key, value in self.params.items()}
        for key, value in self.params.items():
            tensors |= {f"optimizer/{kind}/{key}": moment for kind, moment in self.optimizer.state[value].items()
                        if isinstance(moment, Tensor)}  # fmt: skip
        tensors["rng/torch"] = torch.get_rng_state()
        metadata: dict[str, Any] = {
            "config": replace(self.config, data="").to_dict(),  # where the data lay is nobody's business
            "config_digest": self.config.digest,
            "data": {
                "name": self.dataset.name,
                "digest": self.dataset.digest,
                "channels": self.dataset.channels,
            },
            "progress": asdict(self.state),
            "provenance": self.provenance,
        }
        save_checkpoint(self.directory / f"{name}.safetensors", tensors=tensors, metadata=metadata)

    def _load(self) -> None:
        saved = load_checkpoint(self.directory / "last.safetensors", config_digest=self.config.digest)
        found = saved.metadata["data"]
        if found["digest"] != self.dataset.digest:
            raise ValueError(
                f"{self.directory} was trained on other data ({found['name']}, digest {found['digest'][:12]}) than "
                f"given ({self.dataset.name}, digest {self.dataset.digest[:12]}): give the same or another directory"
            )
        with torch.no_grad():
            for key, value in self.params.items():
                value.copy_(saved.tensors[f"params/{key}"])
        for key, value in self.params.items():
            self.optimizer.state[value] = {
                name.split("/")[1]: moment.to(value.device if moment.dim() else "cpu")
                for name, moment in saved.tensors.items()
                if name.startswith("optimizer/") and name.split("/", 2)[2] == key
            }
        torch.set_rng_state(saved.tensors["rng/torch"])
        self.state = State(**saved.metadata["progress"])
        self.provenance = joined(saved.metadata["provenance"], self.provenance)
        if self.state.step < self.config.iterations:
            self.state.interruptions += 1
        if self.ranks.rank == 0:
            metrics = self.directory / "metrics.jsonl"
            lines = metrics.read_text().splitlines() if metrics.exists() else []
            kept = [line for line in lines if _step_of(line) <= self.state.step]
            write_atomically(metrics, "".join(line + "\n" for line in kept).encode())


class _Report:
    """What the user sees: the estimate, a progress bar or log lines, `metrics.jsonl`, and TensorBoard if installed."""

    def __init__(self, run: _Run, on_terminal: bool) -> None:
        self.run = run
        self.accuracy = run.state.curve[-1]["validation_accuracy"] if run.state.curve else math.nan
        self.spoke = time.monotonic()
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
            disable=not (on_terminal and sys.stderr.isatty()),
            transient=True,
        )
        self.task = self.bar.add_task(
            run.config.variant, total=run.config.iterations, completed=run.state.step, status=""
        )

    def __enter__(self) -> Self:
        if self.run.ranks.rank == 0:
            self._estimate()
            self.metrics = (self.run.directory / "metrics.jsonl").open("a", buffering=1)
            self.board = _tensorboard(self.run.directory)
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
        if self.run.ranks.rank == 0:
            with suppress(OSError):  # it tries once more what could not be written, of which the error has told
                self.metrics.close()
            if self.board is not None:
                self.board.close()
            path = self.run.directory
            log.info("step %d of %d, %s", self.run.state.step, self.run.config.iterations, path)

    def _estimate(self) -> None:
        """Say what the run will cost."""
        config, run = self.run.config, self.run
        if run.ranks.world_size > 1:
            return
        each = time_iteration(config, run.dataset)
        left = config.iterations - run.state.step
        log.info(
            "%s on %s: %d of %d iterations to go, about %s at %.3f s each (validation not counted), %.2f GiB of memory",
            config.variant,
            run.dataset.name,
            left,
            config.iterations,
            duration(left * each),
            each,
            peak_memory(config.device) / 2**30,
        )

    def step(self, result: dict[str, float], seconds: float) -> None:
        if self.run.ranks.rank != 0:
            return
        step, last = self.run.state.step, self.run.config.iterations
        status = f"loss {result['loss']:.3f}  validation {100 * self.accuracy:.1f}%  {seconds:.2f} s/it"
        self.bar.update(self.task, completed=step, status=status)
        self._write({"step": step, **result, "seconds": round(seconds, 4)})
        if self.bar.disable and time.monotonic() - self.spoke > 30:
            self.spoke = time.monotonic()
            left = duration((last - step) * seconds)
            log.info("step %d of %d: loss %.3f, %.3f s/it, %s left", step, last, result["loss"], seconds, left)

    def validation_episode(self, index: int) -> None:
        self.bar.update(self.task, status=f"validation episode {index + 1} of {self.run.config.validation_episodes}")

    def validation(self, accuracy: float) -> None:
        if self.run.ranks.rank != 0:
            return
        self.accuracy = accuracy
        point = self.run.state.curve[-1]
        self._write({"step": self.run.state.step, "validation_accuracy": accuracy})
        low, high = point["low"], point["high"]
        interval = "" if low is None or high is None else f" [{100 * low:.2f}, {100 * high:.2f}]"
        log.info("step %d: validation accuracy %.2f%%%s", self.run.state.step, 100 * accuracy, interval)

    def _write(self, line: dict[str, float]) -> None:
        with _naming(Path(self.metrics.name)):
            self.metrics.write(json.dumps(line) + "\n")
        if self.board is not None:
            self.board.add(line)


class _Board:
    """A file of scalars that TensorBoard shows.

    Torch's writer has a thread, which prints an error of the disk in a traceback, and names the machine in the file.
    """

    def __init__(self, directory: Path) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = Event, Summary
        directory.mkdir(exist_ok=True)
        self._path = directory / f"events.out.tfevents.{time.time():.6f}.{os.getpid()}"
        self._writer = RecordWriter(self._path.open("wb", buffering=0))
        self._write(file_version="brain.Event:2")

    def add(self, line: dict[str, float]) -> None:
        """Write the numbers of a line of metrics."""
        values = [self._summary.Value(tag=key, simple_value=value) for key, value in line.items() if key != "step"]
        self._write(step=int(line["step"]), summary=self._summary(value=values))

    def close(self) -> None:
        self._writer.close()

    def _write(self, **fields: Any) -> None:
        with _naming(self._path):
            self._writer.write(self._event(wall_time=time.time(), **fields).SerializeToString())


def _without_ascent(config: Config) -> Config:
    """The configuration of the meta-iterations between two with ascents."""
    return replace(config, alpha_low=0.0, alpha_up=0.0, ascent="gradient", ascent_every=1, perturb_at_test=False)


def _tensorboard(directory: Path) -> _Board | None:
    try:
        return _Board(directory / "tensorboard")
    except ImportError:  # the extra `tracking` is not installed
        return None


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """An error of a disk names the file, which that of a write to an open one does not."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them; a second one acts as usual."""
    received: list[int] = []
    before: dict[signal.Signals, Any] = {}

    def receive(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        signal.signal(signum, before[signal.Signals(signum)])

    try:
        for signum in (signal.SIGINT, signal.SIGTERM):
            before[signum] = signal.signal(signum, receive)
    except ValueError:  # not the main thread, where Python delivers no signals
        pass
    try:
        yield received
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def time_iteration(config: Config, dataset: Dataset) -> float:
    """Seconds of one meta-gradient, after a warm-up; nothing is updated.

    Args:
        config: The configuration; sets torch's threads, as `train` does.
        dataset: The images.

    Returns:
        The seconds, on the machine as busy as it is.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    experiment = build(replace(config, compile=False), channels=dataset.channels)  # compiling takes longer than this
    params = experiment.init(config.seed)
    protocol, dtype = Protocol(config.ways, config.shots, config.queries), getattr(torch, config.dtype)
    drawn = [
        to_device(episode(dataset, "train", protocol, seed=config.seed, index=index, dtype=dtype), config.device)
        for index in range(config.meta_batch)
    ]
    experiment.method.gradient(params, drawn).loss.item()  # asked for, so that a GPU has finished
    began = time.perf_counter()
    experiment.method.gradient(params, drawn).loss.item()
    return time.perf_counter() - began


def peak_memory(device: str) -> int:
    """Largest resident set of this process so far, or largest memory held on the device, in bytes."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _step_of(line: str) -> float:
    """The step of a line of metrics; infinite for a line that was cut off."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def duration(seconds: float) -> str:
    """Seconds, minutes or hours in words."""
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if hours < 2 else f"{hours:.1f} h"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see `--help`."""
    parser = argparse.ArgumentParser(
        prog="python -m sharp_maml.train",
        description="Train MAML, Sharp-MAML or Matching Networks. The same command goes on where a run was cut off.",
    )
    parser.add_argument("config", type=Path, help="a TOML file of settings; see sharp_maml/config.py")
    parser.add_argument("overrides", nargs="*", help="key=value settings that replace those of the file")
    parser.add_argument("--directory", type=Path, help="run directory; default: results/runs/<config>/seed<k>")
    parser.add_argument("--processes", type=int, default=1, help="processes that share each iteration's episodes")
    options = parser.parse_intermixed_args(arguments)
    if options.processes < 1:
        parser.error(f"--processes must be >= 1, got {options.processes}")
    if options.processes > 1 and "RANK" not in os.environ:
        given = sys.argv[1:] if arguments is None else arguments
        return distributed.run_in_processes(options.processes, [sys.executable, "-m", "sharp_maml.train", *given])
    logging.basicConfig(
        level=logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR, format="%(message)s"
    )
    try:
        config = Config.from_toml(options.config, options.overrides)
        if not config.data:
            raise ValueError("data is not set: name a directory with data=DIR")
        directory = options.directory or Path("results/runs") / options.config.stem / f"seed{config.seed}"
        dataset = open_dataset(config.data, size=config.image_size, ways=config.ways)
        train(config, dataset, directory, show_progress=True)
    except (ValueError, OSError, NonFiniteError) as error:
        if distributed.speaks():
            print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        distributed.stop()
    if os.environ.get("RANK", "0") == "0":
        print(f"evaluate with: python -m sharp_maml.evaluate {directory / 'best.safetensors'} {config.data}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
