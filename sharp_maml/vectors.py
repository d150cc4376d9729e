"""Parameters as one vector: how the meta-gradient is taken on a GPU, where an operation costs more than its arithmetic.

The updates of `meta.py` take one or two operations for each name of the parameters. With all of them in one vector,
which the network takes apart into views, that is one or two in all, of the same numbers up to rounding. Read next:
`methods.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from sharp_maml.base import Episode, Logits, MetaGradient, Params

Gradient = Callable[[Params, Sequence[Episode]], MetaGradient]


class Vectors:
    """A layout of parameters in vectors, one for each group of names that a method does not tell apart.

    A vector has the entries of its tensors one after the other, those of a convolution's kernels in the order of
    `channels_last`, which convolutions take and give without a copy.
    """

    def __init__(self, like: Params, *told_apart: Collection[str]) -> None:
        """Group the names.

        Args:
            like: Parameters with the names and shapes.
            told_apart: Sets of names that the method treats in another way than the rest; in a group all names are in
                the same of these sets.
        """
        self.shapes = {name: value.shape for name, value in like.items()}
        self.members: dict[str, list[str]] = {}
        for name in like:
            group = "".join(str(int(name in names)) for names in told_apart)
            self.members.setdefault(group, []).append(name)

    def groups(self, names: Collection[str]) -> list[str]:
        """The groups of names that are all among these."""
        return [group for group, members in self.members.items() if set(members) <= set(names)]

    def pack(self, params: Params) -> Params:
        """Vectors by group, made of parameters by name."""
        return {
            group: torch.cat([_entries_last(params[name]).flatten() for name in members])
            for group, members in self.members.items()
        }

    def unpack(self, vectors: Params) -> Params:
        """Parameters by name, as views of vectors by group."""
        views = {
            name: _entries_first(part, self.shapes[name])
            for group, members in self.members.items()
            for name, part in zip(
                members, torch.split(vectors[group], [self.shapes[name].numel() for name in members]), strict=True
            )
        }
        return {name: views[name] for name in self.shapes}

    def logits(self, logits: Logits) -> Logits:
        """A network, as a function of vectors by group."""
        return lambda vectors, inputs, context: logits(self.unpack(vectors), inputs, context)

    def gradient(self, gradient: Gradient) -> Gradient:
        """A meta-gradient by vectors, as one by parameters."""

        def by_name(params: Params, episodes: Sequence[Episode]) -> MetaGradient:
            result = gradient(self.pack(params), episodes)
            return result._replace(grad={name: value.contiguous() for name, value in self.unpack(result.grad).items()})

        return by_name


def _entries_last(value: Tensor) -> Tensor:
    return value.permute(0, 2, 3, 1) if value.dim() == 4 else value


def _entries_first(part: Tensor, shape: torch.Size) -> Tensor:
    if len(shape) != 4:
        return part.view(shape)
    outward, inward, height, width = shape
    return part.view(outward, height, width, inward).permute(0, 3, 1, 2)
