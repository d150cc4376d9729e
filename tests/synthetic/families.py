"""What every family of tasks must satisfy, and its gradients and Hessians by autograd, one for every sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from sharp_maml import Batch, Episode, meta_loss
from synthetic import Family, apart

FAR = 5.0
"""Standard errors that a sampled mean may be away."""


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(generator: torch.Generator, *size: int) -> Tensor:
    return torch.randn(size, generator=generator, dtype=torch.float64)


def orthogonal(generator: torch.Generator, *size: int) -> Tensor:
    return torch.linalg.qr(normal(generator, *size))[0]


def relative_error(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def tensors(episodes: Sequence[Episode]) -> list[Tensor]:
    return [tensor for episode in episodes for batch in episode for tensor in batch]


def lane(episodes: Sequence[Episode], i: int) -> list[Episode]:
    """Sample i of the n that `draw` gives."""
    return [Episode(*(Batch(*(tensor[i] for tensor in batch)) for batch in episode)) for episode in episodes]


def half_loss(family: Family, half: str):
    """The loss of one half as a function of x and an episode."""
    if half == "support":
        return lambda x, episode: family.loss({"x": x}, episode.support)
    return lambda x, episode: family.query_loss({"x": x}, episode)


def hessian(loss):
    """Backward over backward: forward mode would import `torch.jit.script`, which is deprecated and warns."""
    return torch.func.jacrev(torch.func.grad(loss))


def gradients(family: Family, half: str, x: Tensor, episode: Episode) -> Tensor:
    """One a lane of the episode, at one x: `n x d`."""
    return torch.vmap(torch.func.grad(half_loss(family, half)), (None, 0))(x, episode)


def hessians(family: Family, half: str, x: Tensor, episode: Episode) -> Tensor:
    """One Hessian per lane of the episode, at one x: `n x d x d`."""
    return torch.vmap(hessian(half_loss(family, half)), (None, 0))(x, episode)


def root_mean_square(deviations: Tensor) -> float:
    """The root of the mean squared norm of vectors (`n x d`) or, in the operator norm, of matrices (`n x d x d`)."""
    norms = deviations.norm(dim=-1) if deviations.dim() == 2 else torch.linalg.matrix_norm(deviations, 2)
    return float(norms.square().mean().sqrt())


def assert_mean(samples: Tensor, expected: Tensor) -> None:
    """The mean over the first dimension is within `FAR` standard errors, entry by entry."""
    error = samples.std(0) / len(samples) ** 0.5
    assert bool(((samples.mean(0) - expected).abs() <= FAR * error + 1e-12).all())


def assert_closed_forms_equal_the_core(family: Family, clean: list[Episode], x: Tensor, beta: float) -> None:
    """F and grad F by hand against the core's meta-loss on episodes without noise, differentiated by autograd."""
    leaf = x.clone().requires_grad_()
    value = meta_loss(family.loss, {"x": leaf}, clean, beta_low=beta, query_loss=family.query_loss)
    (gradient,) = torch.autograd.grad(value, leaf)
    assert relative_error(family.meta_loss(x, beta), value.detach()) <= 1e-10
    assert relative_error(family.meta_gradient(x, beta), gradient) <= 1e-10


def assert_batches_equal_one_by_one(family: Family, dim: int, seed: int) -> None:
    generator = seeded(seed)
    x = normal(generator, 4, 3, dim)
    betas = torch.rand(4, 3, generator=generator, dtype=torch.float64)
    for beta in (betas, betas[:, :1], 0.3, torch.tensor(0.3, dtype=torch.float64)):
        each = torch.as_tensor(beta, dtype=torch.float64).expand(4, 3)
        losses, grads = family.meta_loss(x, beta), family.meta_gradient(x, beta)
        assert losses.shape == (4, 3)
        assert grads.shape == x.shape
        for i, j in np.ndindex(4, 3):
            alone = x[i, j], float(each[i, j])
            torch.testing.assert_close(losses[i, j], family.meta_loss(*alone), rtol=1e-12, atol=1e-14)
            torch.testing.assert_close(grads[i, j], family.meta_gradient(*alone), rtol=1e-12, atol=1e-14)


def assert_draw_is_pure(family: Family, n: int = 6) -> None:
    """A seed gives the same samples whatever else is drawn; another seed, others; M episodes, n samples each."""
    first = apart(family.sample(seeded(1), n))
    torch.rand(5)
    again, other = apart(family.sample(seeded(1), n)), apart(family.sample(seeded(2), n))
    assert len(first) == family.tasks
    assert {len(tensor) for tensor in tensors(first)} == {n}
    assert {tensor.dtype for tensor in tensors(first)} == {torch.float64}
    assert all(map(torch.equal, tensors(first), tensors(again)))
    assert not all(map(torch.equal, tensors(first), tensors(other)))


def assert_slopes_are_independent(family: Family, n: int = 5000) -> None:
    """No two entries of the linear terms of any task's halves are correlated."""
    slopes = torch.cat([batch.inputs[:, 1] for episode in apart(family.sample(seeded(3), n)) for batch in episode], 1)
    correlations = torch.corrcoef(slopes.T) - torch.eye(slopes.shape[1], dtype=torch.float64)
    assert correlations.abs().max() <= FAR / n**0.5


def found_minimum(family: Family, starts: Tensor, beta: float) -> float:
    """Lowest F that is reached by L-BFGS from the best ten of many starts (`n x d`)."""

    def value_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        at = torch.from_numpy(x)
        return float(family.meta_loss(at, beta)), family.meta_gradient(at, beta).numpy()

    best = starts[family.meta_loss(starts, beta).argsort()[:10]]
    return min(minimize(value_and_gradient, x.numpy(), jac=True, method="L-BFGS-B").fun for x in best)
