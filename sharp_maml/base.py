"""The types that every other module speaks: parameters, episodes, losses, methods and the two errors of the package.

Read next: `tree.py` (arithmetic on parameters), `ascent/gradient.py` (the perturbation), `meta.py` (the meta-gradient).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

from torch import Tensor

Params = dict[str, Tensor]
"""Parameters by name. Every update makes a new dictionary; nothing is changed in place."""


class Batch(NamedTuple):
    """Examples of one half of an episode.

    inputs: `n x ...` features, for images `n x channels x height x width`.
    targets: `n` class indices (long), or regression targets.
    """

    inputs: Tensor
    targets: Tensor


class Episode(NamedTuple):
    """One task: `support` (D_m of the source) adapts the parameters, `query` (D'_m) judges the adapted ones."""

    support: Batch
    query: Batch


LossFn = Callable[[Params, Batch], Tensor]
"""Mean loss over a batch: 0-dimensional and differentiable in the parameters."""

QueryLoss = Callable[[Params, Episode], Tensor]
"""Loss of adapted parameters on an episode's query set; it may also look at the support inputs."""


Logits = Callable[[Params, Tensor, Tensor | None], Tensor]
"""(params, inputs, context) -> logits; context: the inputs whose statistics batch norm uses, or None for `inputs`."""

BatchNorm = Literal["transductive", "support"]
"""Whose statistics normalise the query set: its own (as in the released code), or those of the support set."""

Perturbation = Literal["reused", "recomputed", "differentiated"]
"""What eps_m is at the upper ascent point theta + eps: see `meta_gradient`."""

Product = Callable[[Params], Params]
"""A linear map of parameters, such as the Hessian product v -> H v."""

Pullback = Callable[[Params], tuple[Params, Params]]
"""w -> ((du/dtheta)^T w, (du/dg)^T w) of a direction u. The first has only names on which u depends directly, often
none; the second has those of g."""

Direction = Callable[[Params, Params], tuple[Params, Pullback]]
"""A direction of ascent: (parameters theta, gradient g) -> (u, its pullback). The perturbation is u times the radius.

u has the names of g, which are some or all of those of theta, and is 0 where g gives no direction. The pullback is what
a gradient that flows through u needs."""


class Execution(NamedTuple):
    """How the work on a meta-batch is executed, which changes no result beyond rounding.

    mean_over_ranks: Mean of a tree over the processes that share the episodes; taken before the upper ascent.
    map_episodes: How the episodes are gone through: the built-in `map`, one after the other, or a function like it
    that gives the results in the order of the items, such as `in_threads(n)`.
    compile_episode: What wraps the function of one episode, such as `compiled()`; then `loss` and `query_loss` must be
    the same functions in every call.
    """

    mean_over_ranks: Callable[[Params], Params] = lambda params: params
    map_episodes: Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]] = map
    compile_episode: Callable[[Any], Callable[..., Any]] = lambda function: function


PLAIN = Execution()
"""One process, one episode after the other, nothing compiled: the default everywhere."""


class MetaGradient(NamedTuple):
    """What one evaluation of the meta-gradient gives.

    grad: gradient of the meta-loss, detached; the mean over episodes (and ranks).
    loss: meta-loss at `params`, before the upper ascent (0-dimensional).
    loss_ascent: meta-loss at the point where `grad` was taken (0-dimensional; `loss` itself without an upper ascent).
    """

    grad: Params
    loss: Tensor
    loss_ascent: Tensor


class Method(NamedTuple):
    """All that training and evaluation need of a method.

    gradient: (params, episodes) -> MetaGradient.
    adapt: (params, support) -> parameters adapted as at test, detached; `params` themselves where nothing is adapted.
    logits: (adapted, episode, batch norm mode) -> query logits, `n_query x ways`, detached; None is the mode of the
    training. The adaptation is the same in both modes.
    """

    gradient: Callable[[Params, Sequence[Episode]], MetaGradient]
    adapt: Callable[[Params, Batch], Params]
    logits: Callable[[Params, Episode, BatchNorm | None], Tensor]

    def predict(self, params: Params, episode: Episode) -> Tensor:
        """Query logits after adaptation to the support set, `n_query x ways`, in the mode of the training."""
        return self.logits(self.adapt(params, episode.support), episode, None)


class DataError(ValueError):
    """Data on disk is not what it should be. The message says what was expected, what was found and what to do."""


class NonFiniteError(RuntimeError):
    """A loss or a gradient is not finite. The message names step, episode, norms and the last good checkpoint."""
