"""Sharp-MAML around any `nn.Module`: `backward` fills `.grad`, and optimizer, scheduler and loop are PyTorch's.

The functional core does the work (`meta.py`); this file lends it the module as a function of its parameters
(`from_module`), and sees to what a module brings along: random draws, attention kernels, errors in torch's words.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy
from torch.utils._pytree import tree_leaves

from sharp_maml.ascent import along_gradient
from sharp_maml.base import Batch, Direction, Episode, LossFn, Params, Perturbation
from sharp_maml.meta import adapt, meta_gradient
from sharp_maml.models import from_module


@dataclass(eq=False)
class SharpMAML:
    """MAML and Sharp-MAML for a module, whose parameters stay its own.

    The gradient that `backward` leaves is that of `meta_gradient`: grad F at theta + eps, where F is the mean over
    episodes of the query loss after `steps` inner steps. The settings are plain attributes, which may change during a
    training. What holds for every pass through the module:

    - It runs in the mode that it is in: call `module.eval()` before a test, as ever.
    - Random draws, such as dropout's masks, are made in the first pass over a batch and held in all others of that
      call, so that every loss is one function of the parameters. The next call draws anew.
    - Buffers never change. Layers that update running averages are refused: use GroupNorm, batch norm with
      `track_running_stats=False`, or freeze them with `eval()`; so is any other layer whose pass writes into a buffer.
    - Parameters that do not require a gradient are constants; one that several layers share is one parameter.
    - Attention and recurrent layers run on kernels that can be differentiated twice.
    - The module must not be used by another thread meanwhile, because its parameters are exchanged for the pass.

    Args:
        module: Maps the inputs of a `Batch` to predictions. Inputs that are a tuple of tensors are its positional
            arguments, those that are a dictionary its keywords.
        loss: (predictions, targets) -> mean loss, 0-dimensional; for regression `torch.nn.functional.mse_loss`.
        beta_low: See `meta_gradient`, as for all that follow. Both radii 0 are MAML.
        alpha_low: Radius of the lower ascent.
        alpha_up: Radius of the upper ascent.
        steps: Number of inner steps.
        perturbation: `reused`, `recomputed` or `differentiated`.
        inner_params: Names among `module.named_parameters()`.
        first_order: Leave second derivatives out (first-order MAML).
        direction: What both ascents go along.

    Source: the source's algorithm box.
    """

    module: nn.Module
    _: KW_ONLY
    loss: Callable[[Any, Any], Tensor] = cross_entropy
    beta_low: float
    alpha_low: float = 0.0
    alpha_up: float = 0.0
    steps: int = 1
    perturbation: Perturbation = "reused"
    inner_params: Collection[str] | None = None
    first_order: bool = False
    direction: Direction = along_gradient

    def backward(self, episodes: Sequence[Episode], *, ascent_episodes: Sequence[Episode] | None = None) -> Tensor:
        """Add the meta-gradient to `.grad` of the module's parameters, as `backward` of a loss does.

        Hooks of the parameters see it; `optimizer.zero_grad()` is up to you.

        Args:
            episodes: The M >= 1 episodes of the meta-batch.
            ascent_episodes: Samples of their own for the perturbations, as many, see `meta_gradient`; None: `episodes`.

        Returns:
            The meta-loss at the module's parameters, detached and 0-dimensional. With an upper ascent it is taken on
            `ascent_episodes`.

        Raises:
            ValueError: A setting, an episode or the module is not what it must be; the message says what to do.
        """
        every = [*episodes, *(ascent_episodes or ())]
        for each in every:
            if not isinstance(each, Episode):
                raise ValueError(
                    f"episodes must be a list of Episode(support, query), got a {type(each).__name__} in it"
                )
        with self._as_functions([half for each in every for half in each]) as (params, _, loss):
            result = meta_gradient(loss, params, episodes, ascent_episodes=ascent_episodes, **self._settings())
        own = dict(self.module.named_parameters())
        torch.autograd.backward([own[name] for name in result.grad], list(result.grad.values()))
        return result.loss

    def adapt(self, support: Batch, *, steps: int | None = None) -> nn.Module:
        """A copy of the module adapted to a support set, by plain gradient steps without perturbation.

        Args:
            support: The support set.
            steps: Number of inner steps; None means those of the training.

        Returns:
            The adapted module. It shares no memory with the one that it comes from, which is unchanged.

        Raises:
            ValueError: As in `backward`.
        """
        with self._as_functions([support]) as (params, _, loss):
            adapted = self._adapted(loss, params, support, steps)
            result = copy.deepcopy(self.module)
        own = dict(result.named_parameters())
        with torch.no_grad():
            for name, value in adapted.items():
                own[name].copy_(value)
        return result

    def predict(self, episode: Episode, *, steps: int | None = None) -> Any:
        """What the module adapted to an episode's support set says of its query inputs.

        Args:
            episode: The episode; its query targets are not looked at.
            steps: Number of inner steps; None means those of the training.

        Returns:
            What the module returns, detached; for classification the logits, `n_query x ways`.

        Raises:
            ValueError: As in `backward`.
        """
        with self._as_functions(episode) as (params, predictions, loss), torch.no_grad():
            return predictions(self._adapted(loss, params, episode.support, steps), episode.query)

    def _settings(self) -> dict[str, Any]:
        """The keywords of `meta_gradient`: all attributes but the module and its loss."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in ("module", "loss")}

    @torch.no_grad()
    def _adapted(self, loss: LossFn, params: Params, support: Batch, steps: int | None) -> Params:
        return adapt(
            loss,
            params,
            support,
            beta_low=self.beta_low,
            steps=self.steps if steps is None else steps,
            inner_params=self.inner_params,
        )

    @contextmanager
    def _as_functions(
        self, batches: Sequence[Batch]
    ) -> Iterator[tuple[Params, Callable[[Params, Batch], Any], LossFn]]:
        """The module's parameters, and its predictions and loss as functions, for the passes over these batches."""
        model = from_module(self.module)
        devices = sorted({value.get_device() for value in self.module.parameters() if value.is_cuda})
        drawn: dict[int, list[Tensor]] = {}  # states of the generators before the first pass over a batch

        def predictions(params: Params, batch: Batch) -> Any:
            with _draws_held(drawn, batch, devices):
                return model.logits(params, batch.inputs, None)

        def loss(params: Params, batch: Batch) -> Tensor:
            is_first = id(batch) not in drawn
            predicted = predictions(params, batch)
            if is_first and (self.loss is cross_entropy or isinstance(self.loss, nn.CrossEntropyLoss)):
                _check_classes(predicted, batch.targets)
            value = self.loss(predicted, batch.targets)
            if value.ndim:
                raise ValueError(f"loss must return the mean over a batch, 0-dimensional; got {tuple(value.shape)}")
            return value

        # In inference mode nothing has a gradient, and an adaptation would change nothing without a word.
        with torch.inference_mode(False), _twice_differentiable(self.module):
            try:
                yield model.init(torch.Generator()), predictions, loss
            except RuntimeError as error:
                reason = _reason(error, self.module, batches)
                if reason is None:
                    raise
                raise ValueError(reason) from error


@contextmanager
def _draws_held(drawn: dict[int, list[Tensor]], batch: Batch, devices: Sequence[int]) -> Iterator[None]:
    """The first pass over a batch draws as it would anyway; every other one draws the same, and nothing further."""
    if id(batch) not in drawn:
        drawn[id(batch)] = [torch.get_rng_state(), *map(torch.cuda.get_rng_state, devices)]
        yield
        return
    with torch.random.fork_rng(devices):
        on_cpu, *on_devices = drawn[id(batch)]
        torch.set_rng_state(on_cpu)
        for device, state in zip(devices, on_devices, strict=True):
            torch.cuda.set_rng_state(state, device)
        yield


@contextmanager
def _twice_differentiable(module: nn.Module) -> Iterator[None]:
    """Kernels that have second derivatives: torch's fused attention and cuDNN's recurrent layers have none."""
    fast_path, cudnn = torch.backends.mha.get_fastpath_enabled(), torch.backends.cudnn.enabled
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        if any(isinstance(layer, nn.RNNBase) for layer in module.modules()):
            torch.backends.cudnn.enabled = False
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        torch.backends.cudnn.enabled = cudnn


def _check_classes(predicted: Tensor, targets: Tensor) -> None:
    """Refuse class indices that the predictions have no column for, which a GPU would answer by an aborted process."""
    if targets.is_floating_point() or not targets.numel() or predicted.ndim < 2:
        return
    largest, ways = int(targets.max()), predicted.shape[1]
    if largest >= ways:
        raise ValueError(
            f"targets go up to {largest}, but the module predicts {ways} classes, 0 to {ways - 1}: give its last layer "
            f"{largest + 1} outputs, or number the classes of each episode from 0"
        )


def _reason(error: RuntimeError, module: nn.Module, batches: Sequence[Batch]) -> str | None:
    """One line on what was wrong and what to do, where an error of torch has a cause that is known here."""
    devices = {value.device for value in module.parameters()}
    dtypes = {value.dtype for value in module.parameters() if value.is_floating_point()}
    for batch in batches:
        for part, values in zip(Batch._fields, batch, strict=True):
            for value in tree_leaves(values):
                if not isinstance(value, Tensor):
                    continue
                if value.device not in devices:
                    return (
                        f"{part} are on {value.device}, the module on {_listed(devices)}: move one of them with .to()"
                    )
                if value.is_floating_point() and value.dtype not in dtypes:
                    return (
                        f"{part} are {value.dtype}, the module's parameters {_listed(dtypes)}: convert one of them "
                        "with .to()"
                    )
    if "derivative for" in str(error):
        return (
            f"the meta-gradient takes second derivatives, and the module has a layer without them ({error}): replace "
            "that layer, or leave second derivatives out with first_order=True"
        )
    return None


def _listed(values: Collection[object]) -> str:
    return " and ".join(sorted(map(str, values)))
