"""From a `Config` to a method: the network, the names that the inner loop adapts, and the settings put together.

Training and evaluation both build their method here, so that a checkpoint is judged by the method that trained it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

import torch

from sharp_maml.ascent import DIRECTIONS
from sharp_maml.base import Method, Params
from sharp_maml.compiled import compiled
from sharp_maml.config import Config
from sharp_maml.distributed import in_threads
from sharp_maml.matching import matching_method, matching_params
from sharp_maml.meta import sharp_maml_method
from sharp_maml.models import conv4, in_bfloat16


class Experiment(NamedTuple):
    """A method, and how its parameters begin.

    init: seed -> initial parameters.
    method: gradient, adaptation and prediction.
    """

    init: Callable[[int], Params]
    method: Method


def build(
    config: Config,
    *,
    channels: int,
    mean_over_ranks: Callable[[Params], Params] = lambda params: params,
) -> Experiment:
    """Make the method that a configuration describes.

    On a CUDA device this also says, for the whole process, whether products may use TF32: torch by itself lets
    convolutions do so.

    Args:
        config: The configuration.
        channels: Colour channels of the images.
        mean_over_ranks: See `meta_gradient`.

    Returns:
        Initial parameters by seed, and the method.

    Raises:
        ValueError: The configuration names a CUDA device, and there is none, or asks to compile without a compiler.
    """
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device is {config.device!r}, but torch finds no CUDA device here: choose cpu")
    if config.device.startswith("cuda"):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.precision == "tf32"
    matching = config.method != "sharp-maml"
    model = conv4(
        ways=None if matching else config.ways,
        filters=config.filters,
        image_size=config.image_size,
        channels=channels,
    )
    if config.precision == "bfloat16":
        model = in_bfloat16(model)
    dtype = getattr(torch, config.dtype)
    map_episodes = map if config.episode_threads == 1 else in_threads(config.episode_threads)

    def init(seed: int) -> Params:
        generator = torch.Generator().manual_seed(seed)
        params = model.init(generator)
        if config.method == "matching-fce":
            params |= matching_params(generator, features=config.filters * (config.image_size // 16) ** 2)
        return {name: value.to(device=config.device, dtype=dtype) for name, value in params.items()}

    if matching:
        method = matching_method(
            model.logits,
            fce=config.method == "matching-fce",
            ways=config.ways,
            batch_norm=config.batch_norm,
            mean_over_ranks=mean_over_ranks,
            map_episodes=map_episodes,
        )
    else:
        method = sharp_maml_method(
            model.logits,
            beta_low=config.beta_low,
            alpha_low=config.alpha_low,
            alpha_up=config.alpha_up,
            steps=config.steps,
            test_steps=config.test_steps,
            perturb_at_test=config.perturb_at_test,
            batch_norm=config.batch_norm,
            perturbation=config.perturbation,
            inner_params=inner_names(config.inner_params, model.init(torch.Generator())),
            first_order=config.first_order,
            direction=DIRECTIONS[config.ascent],
            mean_over_ranks=mean_over_ranks,
            map_episodes=map_episodes,
            compile_episode=compiled(config.device) if config.compile else lambda function: function,
        )
    return Experiment(init, method)


def inner_names(choice: str, params: Params) -> Collection[str] | None:
    """The names that an `inner_params` choice of the configuration stands for; None means all.

    Args:
        choice: `all`, `head` (ANIL), `body` (BOIL) or `all-but-norm` (the released code's inner loop).
        params: Parameters whose names begin with `head.`, `norm1.`, `conv1.`, ...

    Returns:
        Names among those of `params`.
    """
    keep: dict[str, Callable[[str], bool]] = {
        "head": lambda name: name.startswith("head."),
        "body": lambda name: not name.startswith("head."),
        "all-but-norm": lambda name: not name.startswith("norm"),
    }
    return None if choice == "all" else [name for name in params if keep[choice](name)]
