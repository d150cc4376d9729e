"""The sampler: episode i is a pure function of (data digest, split, protocol, seed, i), whatever was drawn before.

So resumed runs, other methods and other processes see the same data by construction, and any episode can be replayed.
Read next: `cache.py` (where the images come from), `../meta.py` (what is done with an episode).
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sharp_maml.base import Batch, Episode
from sharp_maml.data.cache import ClassImages, Dataset

_SAMPLER = "philox-argsort-1"  # part of every key: another way of drawing must have another name


class Protocol(NamedTuple):
    """The form of an episode.

    ways: classes.
    shots: support images per class.
    queries: query images per class.
    """

    ways: int
    shots: int
    queries: int


def episode(
    dataset: Dataset,
    split: str,
    protocol: Protocol,
    *,
    seed: int,
    index: int,
    dtype: torch.dtype = torch.float32,
) -> Episode:
    """Draw episode `index`: distinct classes, and of each class distinct images for support and query.

    Args:
        dataset: where the images come from.
        split: `train`, `validation` or `test`.
        protocol: ways, shots, queries.
        seed: names a sequence of episodes.
        index: position in that sequence, from 0.
        dtype: floating-point type of the inputs.

    Returns:
        Inputs in [0, 1], `n x channels x height x width` (channels last in memory); targets 0 ... ways-1, class after
        class.

    Raises:
        ValueError: the split does not exist or is too small for the protocol, or a number is out of range.
    """
    rows = episode_rows(dataset, split, protocol, seed=seed, index=index)
    images = dataset.splits[split].images
    return Episode(_batch(images, rows[:, : protocol.shots], dtype), _batch(images, rows[:, protocol.shots :], dtype))


def episode_rows(dataset: Dataset, split: str, protocol: Protocol, *, seed: int, index: int) -> NDArray[np.intp]:
    """Which images episode `index` has, as their rows in the images of the split.

    Args:
        dataset: where the images come from.
        split: `train`, `validation` or `test`.
        protocol: ways, shots, queries.
        seed: names a sequence of episodes.
        index: position in that sequence, from 0.

    Returns:
        Rows, `ways x (shots + queries)`: of each class first the support images, then the query images.

    Raises:
        ValueError: see `episode`.
    """
    source = _checked(dataset, split, protocol)
    if index < 0:
        raise ValueError(f"index: must be at least 0, got {index}")
    # Only the raw stream of a bit generator is guaranteed to stay the same in later versions of numpy, hence argsort.
    key = hashlib.sha256(f"{_key(dataset, split, protocol, seed)}/{index}".encode()).digest()[:16]
    stream = np.random.Philox(key=int.from_bytes(key, "little"))
    ways, shots, queries = protocol
    return np.stack(
        [
            source.starts[label] + _distinct(stream, source.counts[label], shots + queries)
            for label in _distinct(stream, len(source.names), ways)
        ]
    )


def episode_digest(dataset: Dataset, split: str, protocol: Protocol, seed: int, count: int) -> str:
    """A short name for the first `count` episodes of a sequence: equal names, equal episodes."""
    return hashlib.sha256(f"{_key(dataset, split, protocol, seed)}x{count}".encode()).hexdigest()[:16]


def check_protocol(dataset: Dataset, protocol: Protocol) -> None:
    """Refuse a data set of which any split is too small for the protocol: before training, not at the first validation.

    Args:
        dataset: where the images come from.
        protocol: ways, shots, queries.

    Raises:
        ValueError: naming the first split that is too small, and what to do; or a number is out of range.
    """
    for split in dataset.splits:
        _checked(dataset, split, protocol)


def as_inputs(images: NDArray[np.uint8], dtype: torch.dtype = torch.float32) -> Tensor:
    """Pixels as a network takes them.

    Args:
        images: `n x height x width x channels`, uint8.
        dtype: floating-point type of the inputs.

    Returns:
        Inputs in [0, 1], `n x channels x height x width` (channels last in memory).
    """
    return pixels_as_inputs(torch.from_numpy(images), dtype)


def pixels_as_inputs(images: Tensor, dtype: torch.dtype) -> Tensor:
    """As `as_inputs`, from a tensor on any device."""
    return images.permute(0, 3, 1, 2).to(dtype) / 255


class EpisodeStream:
    """The episodes of iterations `start` ... `stop - 1`, made ahead of their use by a background thread.

    Iteration t has the episodes `t * meta_batch` ... `t * meta_batch + meta_batch - 1`; each rank gets an equal,
    contiguous share of them, so that the shares in order of rank are the batch of a single process. What goes wrong in
    the thread is raised where the episodes are awaited. Use it in a `with` statement, or call `close`.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        protocol: Protocol,
        *,
        seed: int,
        meta_batch: int,
        stop: int,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
        dtype: torch.dtype = torch.float32,
        prefetch: int = 2,
        pin_memory: bool = False,
    ) -> None:
        """Check the arguments and begin to draw.

        Args:
            dataset: where the images come from.
            split: `train`, `validation` or `test`.
            protocol: ways, shots, queries.
            seed: names the sequence of episodes.
            meta_batch: episodes per iteration, over all ranks.
            stop: iteration before which to end.
            start: first iteration.
            rank: this process, 0 ... world_size-1.
            world_size: number of processes; divides `meta_batch`.
            dtype: floating-point type of the inputs.
            prefetch: iterations held ready at most.
            pin_memory: put the tensors into pinned memory, from which a GPU copies without waiting.

        Raises:
            ValueError: a number is out of range, or the split is too small for the protocol.
        """
        _checked(dataset, split, protocol)
        for name, value, low in (
            ("meta_batch", meta_batch, 1),
            ("start", start, 0),
            ("stop", stop, start),
            ("world_size", world_size, 1),
            ("rank", rank, 0),
            ("prefetch", prefetch, 1),
        ):
            if value < low:
                raise ValueError(f"{name}: must be at least {low}, got {value}")
        if rank >= world_size:
            raise ValueError(f"rank: must be below world_size ({world_size}), got {rank}")
        if meta_batch % world_size:
            raise ValueError(f"meta_batch: must be a multiple of world_size ({world_size}), got {meta_batch}")
        share = meta_batch // world_size
        draw = partial(episode, dataset, split, protocol, seed=seed, dtype=dtype)
        self._iterations = iter(range(start, stop))
        place = _pinned if pin_memory else lambda drawn: drawn
        self._draw = lambda t: [place(draw(index=t * meta_batch + rank * share + i)) for i in range(share)]
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="episodes")
        self._ready: deque[Future[list[Episode]]] = deque()
        for _ in range(prefetch):
            self._submit()

    def __iter__(self) -> Iterator[list[Episode]]:
        """The stream itself: it can be gone through once."""
        return self

    def __next__(self) -> list[Episode]:
        """The episodes of the next iteration."""
        if not self._ready:
            self.close()
            raise StopIteration
        try:
            episodes = self._ready.popleft().result()
        except BaseException:
            self.close()
            raise
        self._submit()
        return episodes

    def __enter__(self) -> Self:
        """Nothing: the thread already works."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Stop the thread and drop what it holds ready; the stream is then at its end."""
        self._iterations = iter(range(0))
        self._ready.clear()
        self._thread.shutdown(cancel_futures=True)

    def _submit(self) -> None:
        for iteration in self._iterations:
            self._ready.append(self._thread.submit(self._draw, iteration))
            break


def _pinned(drawn: Episode) -> Episode:
    return Episode(*(Batch(*(tensor.pin_memory() for tensor in batch)) for batch in drawn))


def _checked(dataset: Dataset, split: str, protocol: Protocol) -> ClassImages:
    if split not in dataset.splits:
        raise ValueError(f"split: must be one of {', '.join(dataset.splits)}, got {split!r}")
    for name, value in zip(protocol._fields, protocol, strict=True):
        if value < 1:
            raise ValueError(f"{name}: must be at least 1, got {value}")
    source = dataset.splits[split]
    if protocol.ways > len(source.names):
        raise ValueError(
            f"ways: at most {len(source.names)}, the classes of {dataset.name}/{split}; got {protocol.ways}: use fewer "
            f"ways, or add classes (a pool that is shared out needs {len(dataset.splits) * protocol.ways})"
        )
    fewest = min(source.counts)
    if protocol.shots + protocol.queries > fewest:
        raise ValueError(
            f"shots + queries: at most {fewest}, the images of class {source.names[source.counts.index(fewest)]} of "
            f"{dataset.name}/{split}; got {protocol.shots} + {protocol.queries}: use fewer, or add images to the class"
        )
    return source


def _key(dataset: Dataset, split: str, protocol: Protocol, seed: int) -> str:
    return json.dumps([_SAMPLER, dataset.digest, split, *protocol, seed])


def _distinct(stream: np.random.Philox, n: int, k: int) -> NDArray[np.intp]:
    """`k` distinct numbers below `n`, in random order."""
    return np.argsort(stream.random_raw(n), kind="stable")[:k]


def _batch(images: NDArray[np.uint8], rows: NDArray[np.intp], dtype: torch.dtype) -> Batch:
    ways, each = rows.shape
    return Batch(as_inputs(images[rows.ravel()], dtype), torch.arange(ways).repeat_interleave(each))
