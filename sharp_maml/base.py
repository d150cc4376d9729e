"""The types that every other module speaks: parameters, episodes, losses, methods and the two errors of the package.

Read next: `tree.py` (arithmetic on parameters), `ascent.py` (the perturbation), `meta.py` (the meta-gradient).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

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


BatchNorm = Literal["transductive", "support"]
"""Whose statistics normalise the query set: its own (as in the released code), or those of the support set."""


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
