"""A whole meta-iteration as one CUDA graph: episodes cut on the device, meta-gradient and update, replayed at once.

On a GPU thousands of small operations take longer to ask for than to do. A graph asks once for all of them. What it
does must be the same in every iteration but for the numbers: all images stay on the device, and an iteration is given
the rows of its episodes; step size and number of steps lie there; losses are noted there, and read now and then. Read
next: `train.py`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sharp_maml.base import Batch, Episode, MetaGradient, NonFiniteError, Params
from sharp_maml.config import Config
from sharp_maml.data import Dataset, Protocol, episode_rows, pixels_as_inputs
from sharp_maml.distributed import Item, Result
from sharp_maml.tree import norm

log = logging.getLogger(__name__)

READ_AFTER = {"cpu": 1, "cuda": 100}
"""Meta-iterations between two readings of the losses, at most, by type of device: on a CPU nobody waits for a reading,
and a signal is heard after each of them."""
_WARM_UP = 3  # meta-iterations before the capture, in which libraries choose kernels and Adam makes its moments


class Iteration:
    """Meta-iterations that never wait for the device: rows in, parameters updated in place, four numbers noted.

    On a CUDA device the first three run one operation after the other, on the stream on which the next is captured, and
    from then on its graph is replayed. On a CPU there are no graphs, which a log line says, and all run like the first.
    """

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        gradient: Callable[[Params, Sequence[Episode]], MetaGradient],
        params: Params,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Copy the training images to the device; nothing is run yet.

        Args:
            config: The configuration.
            dataset: The images.
            gradient: The meta-gradient; it asks for no number on the host, and does the same whatever the numbers are.
            params: What is trained: leaves on the device, which the optimizer has.
            optimizer: Adam, with the state from which to go on. On a CUDA device it is made capturable.
        """
        self.config, self.dataset = config, dataset
        self.gradient, self.params, self.optimizer = gradient, params, optimizer
        self.protocol = Protocol(config.ways, config.shots, config.queries)
        one = next(iter(params.values())).detach()
        device = one.device
        self.images = torch.from_numpy(np.array(dataset.splits["train"].images)).to(device)
        labels = torch.arange(config.ways, device=device)
        self.targets = [labels.repeat_interleave(each) for each in (config.shots, config.queries)]
        self.rows = labels.new_zeros(config.meta_batch, config.ways, config.shots + config.queries)
        self.longest = READ_AFTER[device.type]
        self.noted, self.done = 0, 0
        self.numbers, self.at = one.new_zeros(self.longest, 4), labels.new_zeros(1)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            torch.backends.cudnn.benchmark = True  # which pays where all shapes stay
            make_capturable(optimizer, device)
        else:
            log.info("cuda_graphs = true on a CPU: the same meta-iterations, without a graph")

    def stretches(self, start: int) -> Iterator[Iterator[NDArray[np.intp]]]:
        """The meta-iterations from one reading of the losses to the next, until the last of the configuration.

        Args:
            start: Meta-iterations done.

        Yields:
            The rows of each meta-iteration, as `__call__` takes them, drawn when they are asked for. After the last one
            a checkpoint or a validation is due, or as many are noted as there is room for.
        """
        config = self.config
        while start < config.iterations:
            pauses = (self.longest, config.checkpoint_every, config.validate_every)
            stop = min(config.iterations, *(every * (start // every + 1) for every in pauses))
            yield map(self._drawn, range(start, stop))
            start = stop

    def __call__(self, rows: NDArray[np.intp], step_size: float) -> None:
        """Run a meta-iteration.

        Args:
            rows: The rows of its episodes, `meta_batch x ways x (shots + queries)`: see `episode_rows`.
            step_size: The outer step size.
        """
        given = torch.from_numpy(rows)
        with self._aside():
            for group in self.optimizer.param_groups:
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(step_size)
                else:
                    group["lr"] = step_size
            self.rows.copy_(given if self.stream is None else given.pin_memory(), non_blocking=True)
            if self.stream is None or self.done < _WARM_UP:
                self._run()
            else:
                if self.graph is None:
                    self.graph = torch.cuda.CUDAGraph()
                    with torch.cuda.graph(self.graph, stream=self.stream):
                        self._run()
                self.graph.replay()
        self.noted += 1
        self.done += 1

    def read(self, step: int) -> list[dict[str, float]]:
        """Wait for the device, and read what was noted since the last reading.

        Args:
            step: The number of the last meta-iteration, from 1, for the error.

        Returns:
            Losses and the gradient's norm, for each meta-iteration.

        Raises:
            NonFiniteError: A loss, or the norm of the gradient or of the parameters before the update, is not finite.
        """
        lines = self.numbers[: self.noted].tolist()
        first = step - self.noted  # as the trainer counts, from 0
        self.at.zero_()
        self.noted = 0
        results = []
        for number, (loss, loss_ascent, size, of_params) in enumerate(lines, first):
            if not math.isfinite(loss + loss_ascent + size + of_params):
                raise NonFiniteError(
                    f"step {number}: the loss, gradient or parameters are not finite; loss {loss:g}, loss at the upper "
                    f"ascent point {loss_ascent:g}, gradient norm {size:g}, parameter norm {of_params:g}. The "
                    "checkpoint `last` holds an earlier step, if one was saved; with cuda_graphs = false the episode "
                    "is named. Look for NaN in the data, or use smaller step sizes beta_low and beta_up or smaller "
                    "radii."
                )
            results.append({"loss": loss, "loss_ascent": loss_ascent, "grad_norm": size})
        return results

    def episode(self, rows: Tensor) -> Episode:
        """The training episode of these rows, `ways x (shots + queries)` on the device: what `data.episode` gives."""
        halves = zip(torch.split(rows, [*self.protocol[1:]], dim=1), self.targets, strict=True)
        dtype = getattr(torch, self.config.dtype)
        return Episode(
            *(Batch(pixels_as_inputs(self.images.index_select(0, of.flatten()), dtype), to) for of, to in halves)
        )

    def _drawn(self, step: int) -> NDArray[np.intp]:
        """The rows of a meta-iteration, from 0."""
        each, seed = self.config.meta_batch, self.config.seed
        indices = range(step * each, (step + 1) * each)
        return np.stack([episode_rows(self.dataset, "train", self.protocol, seed=seed, index=i) for i in indices])

    def _run(self) -> None:
        """What is captured."""
        params = {name: value.detach() for name, value in self.params.items()}
        result = self.gradient(params, [self.episode(rows) for rows in self.rows.unbind()])
        seen = torch.stack([result.loss, result.loss_ascent, norm(result.grad), norm(params)])
        self.numbers.index_copy_(0, self.at, seen.unsqueeze(0))
        self.at.add_(1)
        for name, value in self.params.items():
            value.grad = result.grad[name]
        self.optimizer.step()

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """On the graph's stream, after what was asked for before and before what comes after; on a CPU as it is."""
        if self.stream is None:
            yield
            return
        outside = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(outside)
        with torch.cuda.stream(self.stream):
            yield
        outside.wait_stream(self.stream)


def make_capturable(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Put Adam's step size and counts on the device: a graph holds Python's numbers as they were when it was captured.

    There torch computes 1 - beta^t in float32, so that the first step is off by up to 3e-5 of its length, and later
    ones by less.

    Args:
        optimizer: Adam, before its next step.
        device: Where its parameters are.
    """
    for group in optimizer.param_groups:
        group |= {"lr": torch.tensor(group["lr"], device=device), "capturable": True}
    for state in optimizer.state.values():
        state["step"] = state["step"].to(device)


def on_streams(device: str) -> Callable[[Callable[[Item], Result], Iterable[Item]], Iterable[Result]]:
    """A function like `map`, for `Execution`, that asks for each item on a stream of its own of a CUDA device.

    Small operations of several episodes then run beside each other, also in a CUDA graph that is captured around them.
    All streams begin after what the current stream was asked for before, and it goes on after all of them, so that no
    memory is used again too early. Activations of all episodes are on the device at once.

    Args:
        device: The CUDA device.

    Returns:
        The function.
    """
    streams: list[torch.cuda.Stream] = []

    def map_on_streams(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterable[Result]:
        outside, results = torch.cuda.current_stream(device), []
        for place, item in enumerate(items):
            if place == len(streams):
                streams.append(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]
            streams[place].wait_stream(outside)
            with torch.cuda.stream(streams[place]):
                results.append(function(item))
        for stream in streams[: len(results)]:
            outside.wait_stream(stream)
        return results

    return map_on_streams
