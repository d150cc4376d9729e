"""The benchmark's work, its size in floating-point operations, and the two sides that do it. Read next: `bench.py`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.peers import PEERS
from benchmarks.plain import plain_meta_gradient
from sharp_maml import Batch, Episode, Execution, LossFn, Model, Params, in_threads, meta_gradient
from sharp_maml.compiled import compiled
from sharp_maml.distributed import mean_over_ranks
from sharp_maml.models import Form, conv4, in_bfloat16

ALPHA = 5e-4
"""Radius of both ascents, as in the released code."""


class Work(NamedTuple):
    """A meta-iteration: 4 episodes of 5 ways, 1 shot and 15 queries for conv4-64, second order.

    processes: processes that share the episodes. threads: of each process; 0 leaves torch's choice. compile: whether
    the package compiles the work of an episode. bfloat16: whether it computes the network in bfloat16. kernels:
    whether it may use its native kernels.
    """

    variant: str
    pixels: int
    episodes: int = 4
    ways: int = 5
    shots: int = 1
    queries: int = 15
    filters: int = 64
    channels: int = 3
    processes: int = 1
    threads: int = 0
    compile: bool = False
    bfloat16: bool = False
    kernels: bool = True

    @classmethod
    def named(cls, name: str) -> Work:
        """From `both-5@84`: ascents, inner steps, pixels."""
        variant, pixels = name.split("@")
        return cls(variant, int(pixels))

    @property
    def steps(self) -> int:
        """Inner steps."""
        return int(self.variant.split("-")[1])

    @property
    def alpha_low(self) -> float:
        """Radius of the lower ascent; 0 without one."""
        return ALPHA if self.variant.startswith(("low", "both")) else 0.0

    @property
    def alpha_up(self) -> float:
        """Radius of the upper ascent; 0 without one."""
        return ALPHA if self.variant.startswith(("up", "both")) else 0.0

    @property
    def episode_threads(self) -> int:
        """Two at 42 pixels; at 84 the two query passes would be in memory at once, more than the goal allows."""
        return 2 if self.pixels <= 42 and self.threads != 1 else 1

    @property
    def settings(self) -> dict[str, Any]:
        """What both sides are called with."""
        return {"beta_low": 0.1, "alpha_low": self.alpha_low, "alpha_up": self.alpha_up, "steps": self.steps}

    def data(self, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Params, list[Episode]]:
        """Random parameters and images."""
        generator = torch.Generator().manual_seed(seed)
        params = self.model("fused").init(generator)

        def batch(a_class: int) -> Batch:
            size = (self.ways * a_class, self.channels, self.pixels, self.pixels)
            images = torch.rand(size, generator=generator, dtype=torch.float32).to(dtype)
            return Batch(images, torch.arange(self.ways).repeat(a_class))

        episodes = [Episode(batch(self.shots), batch(self.queries)) for _ in range(self.episodes)]
        return {name: value.to(dtype) for name, value in params.items()}, episodes

    def model(self, form: Form) -> Model:
        """The network, with its block in one of its two forms."""
        return conv4(
            ways=self.ways,
            filters=self.filters,
            image_size=self.pixels,
            channels=self.channels,
            batch_norm_form=form,
        )


def ours(work: Work, params: Params, episodes: list[Episode], *, form: Form = "fused") -> Params:
    """The meta-gradient by the package."""
    return meta_gradient(
        loss_of(work, form),
        params,
        episodes,
        **work.settings,
        execution=execution(work),
    ).grad


@cache
def loss_of(work: Work, form: Form) -> LossFn:
    """The network's loss on a batch; one object a work, so that what is compiled for it is found again."""
    model = work.model(form)
    logits = (in_bfloat16(model) if work.bfloat16 else model).logits

    def loss(params: Params, batch: Batch) -> Tensor:
        return cross_entropy(logits(params, batch.inputs, None), batch.targets)

    return loss


@cache
def execution(work: Work) -> Execution:
    """How its work is executed; one object a work, so that what is compiled for it is found again."""
    found = Execution(mean_over_ranks)
    if work.episode_threads > 1:
        found = found._replace(map_episodes=in_threads(work.episode_threads))
    return found._replace(compile_episode=compiled()) if work.compile else found


def plain(work: Work, params: Params, episodes: list[Episode]) -> Params:
    """The meta-gradient by the plain loop."""
    return plain_meta_gradient(params, episodes, **work.settings).grad


def by_peer(name: str) -> Callable[[Work, Params, list[Episode]], Params]:
    """The meta-gradient by a public library, which knows MAML only."""

    def gradient(work: Work, params: Params, episodes: list[Episode]) -> Params:
        return PEERS[name](params, episodes, beta_low=work.settings["beta_low"], steps=work.steps)

    return gradient


SIDES: dict[str, Callable[[Work, Params, list[Episode]], Params]] = {
    "ours": ours,
    "plain": plain,
    **{name: by_peer(name) for name in PEERS},
}


def flops(work: Work) -> float:
    """Operations of the meta-iteration if every convolution is done directly; the rest is below one per cent.

    A forward pass costs F = sum_l F_l over the convolutions; a gradient 3 F - F_1, since each convolution has two
    adjoints, of which the first one's in the images is not needed; a Hessian-vector product on top of a gradient
    6 F - 4 F_1, since each of these operations, linear in two arguments, has a derivative in both.
    """
    convolutions = []
    size, inward = work.pixels, work.channels
    for _ in range(4):
        convolutions.append(2 * 9 * inward * work.filters * size * size)
        size, inward = size // 2, work.filters
    forward, first = sum(convolutions), convolutions[0]
    gradient, product = 3 * forward - first, 6 * forward - 4 * first

    support, query = work.ways * work.shots, work.ways * work.queries
    passes = 2 if work.alpha_up else 1
    one_pass = support * work.steps * (gradient + product) + query * gradient
    lower_ascent = support * work.steps * gradient if work.alpha_low else 0  # its perturbation is used by both passes
    return float(work.episodes * (passes * one_pass + lower_ascent))
