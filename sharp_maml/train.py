"""The training loop, which the command `sharp-maml train` runs.

A run directory holds `config.json`, `metrics.jsonl` and the checkpoints `last` and `best` (on the validation classes).
A run that was cut off goes on from `last` when the same command is given again, on a CPU bit for bit as if nothing had
happened; SIGINT and SIGTERM finish the step (with `cuda_graphs` those until the losses are read), save and exit, and an
error after the first step saves what was reached. Read next: `graphs.py`, `progress.py`, `evaluate.py`.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sharp_maml import distributed
from sharp_maml.allocator import keep_freed_memory
from sharp_maml.base import Episode, MetaGradient, NonFiniteError
from sharp_maml.checkpoint import RunDirectoryLock, load_checkpoint, save_checkpoint, write_atomically
from sharp_maml.config import Config
from sharp_maml.data import Dataset, EpisodeStream, Protocol, check_protocol
from sharp_maml.estimates import interval_over_episodes
from sharp_maml.evaluate import correct_counts, to_device
from sharp_maml.graphs import Iteration
from sharp_maml.methods import Experiment, build
from sharp_maml.progress import Report, cut_metrics, peak_memory, tell_cost
from sharp_maml.records import joined, provenance
from sharp_maml.signals import STOPPING, collected
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
    build: Callable[..., Experiment] = build,
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
        build: Makes the method of a configuration, with the arguments of `sharp_maml.build`; another meta-gradient or
            network can come in here.

    Returns:
        The state at the end.

    Raises:
        ValueError: The data do not fit the configuration, or the directory holds a run of another one.
        NonFiniteError: A loss or gradient is not finite, and `last` holds the parameters before that step (with graphs,
            of an earlier checkpoint); or parameters, moments of the optimizer or logits of a validation are not.
        Interrupted: SIGINT or SIGTERM came; the state is saved.
    """
    if dataset.size != config.image_size:
        raise ValueError(f"image_size is {config.image_size}, but {dataset.name} has {dataset.size} pixels")
    check_protocol(dataset, Protocol(config.ways, config.shots, config.queries))
    ranks = distributed.start(config.device)
    if config.meta_batch % ranks.world_size:
        raise ValueError(f"meta_batch must be a multiple of the {ranks.world_size} processes, got {config.meta_batch}")
    if config.cuda_graphs and ranks.world_size > 1:
        raise ValueError(f"cuda_graphs = true needs a single process, got {ranks.world_size}")
    if config.threads:
        torch.set_num_threads(config.threads)
    keep_freed_memory()
    directory.mkdir(parents=True, exist_ok=True)
    with RunDirectoryLock(directory) if ranks.rank == 0 else nullcontext() as lock, collected() as stopped_by:
        run = _Run(config, dataset, directory, ranks, lock, build)
        if run.state.step >= config.iterations and not run.must_validate():
            return run.state
        if ranks.world_size == 1 and not config.cuda_graphs:  # whose cost that of single operations does not tell
            tell_cost(config, dataset, left=config.iterations - run.state.step, build=build)
        report = Report(config, directory, run.state.step, run.state.curve, speaks=ranks.rank == 0, bar=show_progress)
        with run.episodes() as stream, report, run.kept():

            def validation_episode(index: int) -> None:
                report.validation_episode(index)
                on_validation_episode(index)

            if run.must_validate():  # an error ended the run there
                report.validation(run.validate(validation_episode))
                run.save("last")
            for drawn in stream:
                began = time.perf_counter()
                results = run.steps(drawn)
                report.steps(run.state.step, results, time.perf_counter() - began)
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
        build: Callable[..., Experiment],
    ) -> None:
        self.config, self.dataset, self.directory, self.ranks, self.lock = config, dataset, directory, ranks, lock
        self.build = partial(build, channels=dataset.channels)
        experiment = self.build(config)
        self.method = self.between = experiment.method
        if config.ascent_every > 1:
            self.between = self.build(_without_ascent(config)).method
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
        self.iteration: Iteration | None = None

    def episodes(self) -> AbstractContextManager[Iterable[Any]]:
        if self.config.cuda_graphs:
            self.iteration = Iteration(self.config, self.dataset, self.method.gradient, self.params, self.optimizer)
            return nullcontext(self.iteration.stretches(self.state.step))
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

    def steps(self, drawn: Any) -> list[dict[str, float]]:
        """What `episodes` gives at once: a meta-iteration, or with graphs those until their numbers are read."""
        if self.iteration is None:
            results = [self.step(drawn)]
        else:
            for rows in drawn:
                self.iteration(rows, self._step_size())
                self.state.step += 1
            results = self.iteration.read(self.state.step)
        for result in results:
            self.state.loss_sum += result["loss"]
            self.state.loss_count += 1
        return results

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
        """Refuse parameters and optimizer moments that are not: an infinite moment stops its parameter unseen."""
        moments = [moment for state in self.optimizer.state.values() for moment in state.values()]
        zero = sum((0 * moment).sum() for moment in moments if isinstance(moment, Tensor))
        self._require_finite("parameters", float(self._size()))
        self._require_finite("optimizer's moments", float(zero))

    def _stop_at_non_finite(self, episodes: Sequence[Episode], *seen: float) -> None:
        """Replay the episodes one at a time to name the first that is not finite, save what is good, and raise."""
        here = self.config if self.has_ascent() else _without_ascent(self.config)
        alone = self.build(replace(here, compile=False)).method
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

    def validate(self, on_episode: Callable[[int], object]) -> dict[str, Any] | None:
        """A point of the curve, on the validation classes; the best is saved as `best`. Rank 0 alone does it."""
        if self.ranks.rank != 0:
            return None
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
        return point

    def agree(self, stopped_by: list[int]) -> int:
        """The signal that any rank received, the same on all, 0 for none: all ranks must stop after the same step."""
        mine = torch.tensor([float(signum in stopped_by) for signum in STOPPING], device=self.config.device)
        received = distributed.mean_over_ranks({"signals": mine})["signals"].tolist()
        return next((signum for signum, share in zip(STOPPING, received, strict=True) if share), 0)

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
            "data": {"name": self.dataset.name, "digest": self.dataset.digest, "channels": self.dataset.channels},
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
            cut_metrics(self.directory, self.state.step)


def _without_ascent(config: Config) -> Config:
    """The configuration of the meta-iterations between two with ascents."""
    return replace(config, alpha_low=0.0, alpha_up=0.0, ascent="gradient", ascent_every=1, perturb_at_test=False)
