"""Sharp-MAML for a classifier as a `Method`; and from a `Config` to the method that it describes.

Training and evaluation both build their method here, so that a checkpoint is judged by the method that trained it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sharp_maml.ascent import ASCENTS, along_gradient
from sharp_maml.base import (
    PLAIN,
    Batch,
    BatchNorm,
    Direction,
    Episode,
    Execution,
    Logits,
    MetaGradient,
    Method,
    Params,
    Perturbation,
)
from sharp_maml.compiled import compiled
from sharp_maml.config import Config
from sharp_maml.distributed import in_threads, mean_over_ranks
from sharp_maml.graphs import on_streams
from sharp_maml.matching import matching_method, matching_params
from sharp_maml.meta import adapt, meta_gradient
from sharp_maml.models import MODELS, Form, Model, in_bfloat16
from sharp_maml.vectors import Vectors


def sharp_maml_method(
    logits: Logits,
    *,
    beta_low: float,
    alpha_low: float = 0.0,
    alpha_up: float = 0.0,
    steps: int = 1,
    test_steps: int | None = None,
    perturb_at_test: bool = False,
    batch_norm: BatchNorm = "transductive",
    perturbation: Perturbation = "reused",
    inner_params: Collection[str] | None = None,
    first_order: bool = False,
    direction: Direction = along_gradient,
    execution: Execution = PLAIN,
) -> Method:
    """MAML or Sharp-MAML for classification with cross-entropy.

    Args:
        logits: The network, (params, inputs, context) -> `n x ways`.
        beta_low: Inner step size, in training and at test.
        alpha_low: See `meta_gradient`.
        alpha_up: See `meta_gradient`.
        steps: Inner steps in training.
        test_steps: Inner steps at test; None means `steps`.
        perturb_at_test: Perturb the inner steps at test too; by default they are plain gradient steps.
        batch_norm: `transductive` normalises the query set by its own statistics, `support` by the support set's.
        perturbation: See `meta_gradient`.
        inner_params: See `meta_gradient`.
        first_order: See `meta_gradient`.
        direction: See `meta_gradient`.
        execution: See `meta_gradient`.

    Returns:
        The method.

    Raises:
        ValueError: `batch_norm` is neither of the two. Other settings are checked when they are used.
    """
    if batch_norm not in get_args(BatchNorm):
        raise ValueError(f"batch_norm must be one of {', '.join(get_args(BatchNorm))}, got {batch_norm!r}")

    def loss(params: Params, batch: Batch) -> Tensor:
        return cross_entropy(logits(params, batch.inputs, None), batch.targets)

    def query_logits(params: Params, episode: Episode, mode: BatchNorm | None = None) -> Tensor:
        is_by_support = (mode or batch_norm) == "support"
        return logits(params, episode.query.inputs, episode.support.inputs if is_by_support else None)

    def query_loss(params: Params, episode: Episode) -> Tensor:
        return cross_entropy(query_logits(params, episode), episode.query.targets)

    def gradient(params: Params, episodes: Sequence[Episode]) -> MetaGradient:
        return meta_gradient(
            loss,
            params,
            episodes,
            beta_low=beta_low,
            alpha_low=alpha_low,
            alpha_up=alpha_up,
            steps=steps,
            query_loss=query_loss,
            perturbation=perturbation,
            inner_params=inner_params,
            first_order=first_order,
            direction=direction,
            execution=execution,
        )

    @torch.no_grad()
    def adapt_at_test(params: Params, support: Batch) -> Params:
        return adapt(
            loss,
            params,
            support,
            beta_low=beta_low,
            steps=steps if test_steps is None else test_steps,
            alpha_low=alpha_low if perturb_at_test else 0.0,
            inner_params=inner_params,
            direction=direction,
        )

    return Method(gradient, adapt_at_test, torch.no_grad()(query_logits))


class Experiment(NamedTuple):
    """A method, and how its parameters begin.

    init: seed -> initial parameters.
    method: gradient, adaptation and prediction.
    """

    init: Callable[[int], Params]
    method: Method


def network(config: Config, *, channels: int, form: Form = "fused") -> Model:
    """The network of a configuration, with a head where the method has one.

    Args:
        config: The configuration.
        channels: Colour channels of the images.
        form: `elementary` for third derivatives, such as those of a Hessian of the meta-loss, and under `vmap`.

    Returns:
        The network.
    """
    return MODELS[config.model](
        ways=config.ways if config.method == "sharp-maml" else None,
        filters=config.filters,
        image_size=config.image_size,
        channels=channels,
        batch_norm_form=form,
    )


def _execution(config: Config) -> Execution:
    """How the work of a meta-gradient is executed: by which ranks, threads or streams, compiled or not."""
    execution = Execution(mean_over_ranks)
    if config.episode_threads > 1:
        execution = execution._replace(map_episodes=in_threads(config.episode_threads))
    if config.cuda_graphs and config.device.startswith("cuda"):
        execution = execution._replace(map_episodes=on_streams(config.device))
    return execution._replace(compile_episode=compiled(config.device)) if config.compile else execution


def build(config: Config, *, channels: int) -> Experiment:
    """Make the method that a configuration describes.

    In a process group the meta-gradient is the mean over its processes. On a CUDA device this also says, for the whole
    process, whether products may use TF32: torch by itself lets convolutions do so. Sharp-MAML's meta-gradient is taken
    on vectors there.

    Args:
        config: The configuration.
        channels: Colour channels of the images.

    Returns:
        Initial parameters by seed, and the method.

    Raises:
        ValueError: The configuration names a CUDA device, and there is none; asks to compile without a compiler; or
            speaks of a head or of normalisation layers that its network does not have.
    """
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device is {config.device!r}, but torch finds no CUDA device here: choose cpu")
    if config.device.startswith("cuda"):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.precision == "tf32"
    model = network(config, channels=channels)
    if config.precision == "bfloat16":
        model = in_bfloat16(model)
    dtype = getattr(torch, config.dtype)
    execution = _execution(config)

    def init(seed: int) -> Params:
        generator = torch.Generator().manual_seed(seed)
        params = model.init(generator)
        if config.method == "matching-fce":
            if model.features is None:
                raise ValueError(
                    f"method = 'matching-fce' needs the width of features, which {config.model} leaves out"
                )
            params |= matching_params(generator, features=model.features)
        return {name: value.to(device=config.device, dtype=dtype) for name, value in params.items()}

    if config.method == "sharp-maml":
        ascent, inner = ASCENTS[config.ascent], inner_names(config.inner_params, model)
        make = partial(
            sharp_maml_method,
            beta_low=config.beta_low,
            alpha_low=config.alpha_low,
            alpha_up=config.alpha_up,
            steps=config.steps,
            test_steps=config.test_steps,
            perturb_at_test=config.perturb_at_test,
            batch_norm=config.batch_norm,
            perturbation=config.perturbation,
            first_order=config.first_order,
            execution=execution,
        )
        method = make(model.logits, inner_params=inner, direction=ascent.for_names(model.norm))
        if config.device != "cpu":
            norm = model.norm if ascent.norm_only else ()
            vectors = Vectors(model.init(torch.Generator()), inner or (), norm)
            on_vectors = make(
                vectors.logits(model.logits),
                inner_params=None if inner is None else vectors.groups(inner),
                direction=ascent.for_names(vectors.groups(norm)),
            )
            method = method._replace(gradient=vectors.gradient(on_vectors.gradient))
    else:
        method = matching_method(
            model.logits,
            fce=config.method == "matching-fce",
            ways=config.ways,
            batch_norm=config.batch_norm,
            execution=execution,
        )
    return Experiment(init, method)


def inner_names(choice: str, model: Model) -> Collection[str] | None:
    """The names that an `inner_params` choice of the configuration stands for; None means all.

    Args:
        choice: `all`, `head` (ANIL), `body` (BOIL) or `all-but-norm` (the released code's inner loop).
        model: The network, which says what its head and its normalisation layers have.

    Returns:
        Names of its parameters, in their order.

    Raises:
        ValueError: The network has no such parameters.
    """
    if choice == "all":
        return None
    group = model.norm if choice == "all-but-norm" else model.head
    names = [name for name in model.init(torch.Generator()) if (name in group) == (choice == "head")]
    if not names:
        raise ValueError(f"inner_params = {choice!r} leaves nothing to adapt: the network has no such parameters")
    return names
