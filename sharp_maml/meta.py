"""The inner loop, the meta-loss and its gradient: MAML and every variant of Sharp-MAML in one formula.

With x_0 = theta (+ eps) and x_{k+1} = x_k - beta grad l(x_k + eps_k), the gradient of q(x_K) with respect to x_0 is
found by starting from v = grad q(x_K) and going back, v <- v - beta H(x_k + eps_k) v. Two primitives are all that this
takes: the gradient, and the gradient together with the product v -> H v. Inside a transform both come from
`torch.func`, so that the whole composes with `torch.func.vmap`. A variant is a pair of radii; 0, 0 is MAML. Read next:
`methods.py`, `train.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import wraps
from typing import NamedTuple, ParamSpec, TypeVar, get_args

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from sharp_maml.ascent import along_gradient, ascent
from sharp_maml.base import (
    PLAIN,
    Batch,
    Direction,
    Episode,
    Execution,
    LossFn,
    MetaGradient,
    Params,
    Perturbation,
    Product,
    QueryLoss,
)
from sharp_maml.tree import add_scaled, mean

Data = TypeVar("Data", Batch, Episode)
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def _out_of_inference_mode(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The function, called outside inference mode: there nothing has a gradient, and an inner step changes nothing."""

    @wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if not torch.is_inference_mode_enabled():
            return function(*args, **kwargs)
        with torch.inference_mode(False), torch.no_grad():
            # autograd saves no tensor that was made in inference mode: copies made here it does
            copies, named_copies = tree_map_only(Tensor, Tensor.clone, (args, kwargs))
            return function(*copies, **named_copies)

    return call


@_out_of_inference_mode
def adapt(
    loss: LossFn,
    params: Params,
    support: Batch,
    *,
    beta_low: float | Tensor,
    steps: int = 1,
    alpha_low: float | Tensor = 0.0,
    inner_params: Collection[str] | None = None,
    direction: Direction = along_gradient,
) -> Params:
    """Inner loop from x_0 = params: x_{k+1} = x_k - beta_low grad l(x_k + eps_k).

    The eps_k = alpha_low u(x_k, grad l(x_k)) are constants; differentiable in `params` through every step.

    Args:
        loss: Mean loss l of a batch.
        params: Parameters theta.
        support: The support set D_m.
        beta_low: Inner step size, >= 0.
        steps: Number K of inner steps, >= 0.
        alpha_low: Radius of the lower ascent, >= 0, in the units of the parameters; the Python number 0 skips it.
        inner_params: Names that the loop adapts and perturbs; None means all. The head alone is ANIL, the body alone
            BOIL.
        direction: u, what the ascent goes along; by default the normalised gradient.

    Returns:
        The adapted parameters theta'_m, with all names of `params`.

    Raises:
        ValueError: A step size, radius or number of steps is negative, or `inner_params` has an unknown name.

    Source: the lower level of the source's algorithm box.
    """
    _check_settings(params, steps, inner_params, beta_low=beta_low, alpha_low=alpha_low)
    is_differentiated = torch.is_grad_enabled() or _inside_transform()  # otherwise no graph is made
    for _ in range(steps):
        point = params
        if not _is_off(alpha_low):
            # eps is a constant: later derivatives go through the step, and not through the ascent
            constant = {name: value.detach() for name, value in params.items()}
            grad, _ = _gradient(loss, constant, support, inner_params)
            unit, _ = direction(constant, grad)
            point = add_scaled(params, unit, alpha_low)
        if is_differentiated:
            grad = _inner_gradient(loss, point, support, inner_params)
        else:
            grad, _ = _gradient(loss, point, support, inner_params)
        params = add_scaled(params, grad, -beta_low)
    return params


def meta_loss(
    loss: LossFn,
    params: Params,
    episodes: Sequence[Episode],
    *,
    beta_low: float | Tensor,
    steps: int = 1,
    alpha_low: float | Tensor = 0.0,
    inner_params: Collection[str] | None = None,
    query_loss: QueryLoss | None = None,
) -> Tensor:
    """F(theta) = (1/M) sum_m q_m(theta'_m(theta)), the mean query loss after adaptation.

    Differentiable any number of times, where the loss is; Hessians of F are taken through it.

    Args:
        loss: Mean loss l of a batch.
        params: Parameters theta.
        episodes: M >= 1 episodes.
        beta_low: See `adapt`.
        steps: See `adapt`.
        alpha_low: See `adapt`.
        inner_params: See `adapt`.
        query_loss: q_m; None means `loss` on the query batch.

    Returns:
        The meta-loss, 0-dimensional.

    Raises:
        ValueError: See `adapt`; or there are no episodes.

    Source: the upper level of the source's problem.
    """
    _check_episodes(episodes)
    on_query = query_loss or _query_batch_loss(loss)
    losses = []
    for episode in episodes:
        adapted = adapt(
            loss,
            params,
            episode.support,
            beta_low=beta_low,
            steps=steps,
            alpha_low=alpha_low,
            inner_params=inner_params,
        )
        losses.append(on_query(adapted, episode))
    return torch.stack(losses).mean()


@_out_of_inference_mode
def meta_gradient(
    loss: LossFn,
    params: Params,
    episodes: Sequence[Episode],
    *,
    beta_low: float | Tensor,
    alpha_low: float | Tensor = 0.0,
    alpha_up: float | Tensor = 0.0,
    steps: int = 1,
    query_loss: QueryLoss | None = None,
    perturbation: Perturbation = "reused",
    inner_params: Collection[str] | None = None,
    ascent_episodes: Sequence[Episode] | None = None,
    first_order: bool = False,
    direction: Direction = along_gradient,
    execution: Execution = PLAIN,
) -> MetaGradient:
    """Meta-gradient of Sharp-MAML: grad F at theta + eps, where eps = alpha_up u(theta, grad F(theta)).

    F(theta) = (1/M) sum_m q_m(x_K) with x_0 = theta and x_{k+1} = x_k - beta_low grad l_m(x_k + eps_{m,k}); eps_{m,k}
    is alpha_low u(x_k, grad l_m(x_k)), and in the source u is the normalised gradient. Two radii of 0 give MAML; a
    positive alpha_low alone gives Sharp-MAML low, alpha_up alone up, and two positive radii both. One
    support-set graph per episode and inner step is kept (two with `differentiated`), and none of the query gradient.

    Args:
        loss: Mean loss l of a batch; 0-dimensional.
        params: Parameters theta.
        episodes: M >= 1 episodes.
        beta_low: See `adapt`.
        alpha_low: See `adapt`.
        alpha_up: Radius of the upper ascent, like `alpha_low`.
        steps: See `adapt`.
        query_loss: See `meta_loss`.
        perturbation: What eps_{m,k} is at theta + eps. `reused`: the one made at theta, a constant (the algorithm
            box). `recomputed`: made anew there, a constant. `differentiated`: made anew, and the gradient flows through
            it, also in the pass at theta (the authors' released code); where u depends on the parameters by itself, as
            in ASAM, through that dependence too. eps itself is always a constant.
        inner_params: See `adapt`.
        ascent_episodes: Samples of their own, M episodes, for the perturbations: the pass that makes eps runs wholly on
            them, and their support sets make every eps_{m,k}. None: the episodes themselves.
        first_order: Leave the Hessian products out (first-order MAML).
        direction: u, what both ascents go along.
        execution: How the work is executed.

    Returns:
        The gradient, the meta-loss at theta (with an upper ascent: on `ascent_episodes`), and the meta-loss where the
        gradient was taken.

    Raises:
        ValueError: A setting is out of range, settings contradict each other, or there are no episodes.

    Source: the source's algorithm box. The adjoint form is derived here.
    """
    _check_episodes(episodes)
    _check_settings(params, steps, inner_params, beta_low=beta_low, alpha_low=alpha_low, alpha_up=alpha_up)
    if perturbation not in get_args(Perturbation):
        raise ValueError(f"perturbation must be one of {', '.join(get_args(Perturbation))}, got {perturbation!r}")
    if perturbation == "differentiated" and first_order:
        raise ValueError("perturbation='differentiated' needs second derivatives, which first_order=True leaves out")
    if ascent_episodes is not None and len(ascent_episodes) != len(episodes):
        raise ValueError(f"ascent_episodes must be as many as episodes ({len(episodes)}), got {len(ascent_episodes)}")

    # one object for what all episodes have in common, equal to that of the next call: a compiled graph is found by it
    one_episode = execution.compile_episode(
        _EpisodeGradient(
            loss=loss,
            query_loss=query_loss,
            beta=beta_low,
            alpha=alpha_low,
            steps=steps,
            names=None if inner_params is None else tuple(inner_params),
            differentiated=perturbation == "differentiated",
            first_order=first_order,
            direction=direction,
        )
    )
    # the gradient is returned as numbers: nothing goes back through what made the parameters
    params = {name: value.detach() for name, value in params.items()}
    makers = episodes if ascent_episodes is None else ascent_episodes
    made_anew: list[list[Params] | None] = [None] * len(episodes)

    def mean_gradient(
        at: Params, over: Sequence[Episode], given: Sequence[list[Params] | None]
    ) -> tuple[Params, Tensor, list[list[Params] | None]]:
        grads, losses, made = zip(
            *execution.map_episodes(lambda triple: one_episode(at, *triple), zip(over, makers, given, strict=True)),
            strict=True,
        )
        value = execution.mean_over_ranks({"loss": torch.stack(losses).mean()})["loss"]
        return execution.mean_over_ranks(mean(grads)), value, list(made)

    if _is_off(alpha_up):
        grad, value, _ = mean_gradient(params, episodes, made_anew)
        return MetaGradient(grad, value, value)
    grad, value, made = mean_gradient(params, makers, made_anew)
    # up to here the makers alone were looked at: eps is made on them, and the gradient returned is that of the episodes
    above = ascent(params, grad, alpha=alpha_up, direction=direction)
    grad, value_above, _ = mean_gradient(above, episodes, made if perturbation == "reused" else made_anew)
    return MetaGradient(grad, value, value_above)


class _EpisodeGradient(NamedTuple):
    """The settings of an inner loop; called, the gradient of q(x_K) with respect to x_0 on one episode."""

    loss: LossFn
    query_loss: QueryLoss | None
    beta: float | Tensor
    alpha: float | Tensor
    steps: int
    names: Collection[str] | None
    differentiated: bool
    first_order: bool
    direction: Direction

    def __call__(
        self, x: Params, episode: Episode, maker: Episode, given: list[Params] | None
    ) -> tuple[Params, Tensor, list[Params]]:
        """Forward over the steps, then back over them: v <- v - beta H(x_k + eps_k) v.

        Args:
            x: Starting point x_0.
            episode: The episode.
            maker: The episode whose support set makes the perturbations.
            given: Perturbations made before, one per step; None makes them here.

        Returns:
            The gradient, the query loss, and the perturbations.
        """
        products: list[Product] = []
        made: list[Params] = []
        for k in range(self.steps):
            point, through_eps = x, None
            if not _is_off(self.alpha):
                eps, through_eps = self.perturbation(x, maker.support) if given is None else (given[k], None)
                # `reused` gives them again at theta + eps
                made.append(eps)
                point = add_scaled(x, eps, 1.0)
            if self.first_order:
                grad, _ = _gradient(self.loss, point, episode.support, self.names)
            else:
                grad, product = gradient_and_product(self.loss, point, episode.support, self.names)
                # the graph of a step stays until its product is taken: memory grows with the steps
                products.append(product if through_eps is None else _through_both(product, through_eps))
            x = add_scaled(x, grad, -self.beta)

        # all names: what the inner loop leaves alone is trained by the outer one
        v, value = _gradient(self.query_loss or _query_batch_loss(self.loss), x, episode, None)
        while products:
            # popped, so that a step's graph is gone before the next product is taken
            v = add_scaled(v, products.pop()(v), -self.beta)
        return v, value, made

    def perturbation(self, x: Params, support: Batch) -> tuple[Params, Product | None]:
        """The vector eps = alpha u(x, g) and, if the gradient flows through it, the product w -> (d eps / d x)^T w.

        With the gradient g and the Hessian H at x, that product is alpha (H (du/dg)^T w + (du/dx)^T w).
        """
        if self.differentiated:
            grad, product = gradient_and_product(self.loss, x, support, self.names)
        else:
            grad, _ = _gradient(self.loss, x, support, self.names)
        unit, pullback = self.direction(x, grad)
        eps = {name: self.alpha * value for name, value in unit.items()}
        if not self.differentiated:
            return eps, None

        def through_eps(w: Params) -> Params:
            # w has all names, and the ascent only moves those of `unit`
            of_params, of_grad = pullback({name: w[name] for name in unit})
            through_grad = product({name: self.alpha * value for name, value in of_grad.items()})
            return add_scaled(through_grad, of_params, self.alpha)

        return eps, through_eps


def _gradient(
    loss: Callable[[Params, Data], Tensor], params: Params, data: Data, names: Collection[str] | None
) -> tuple[Params, Tensor]:
    """Gradient of the loss on `names` (None: all), and the loss. No graph is kept."""
    if _inside_transform():
        value, pullback = torch.func.vjp(lambda x: loss({**params, **x}, data), _select(params, names))  # type: ignore[misc]
        with torch.no_grad():
            # torch.func keeps the graph unless it is told that no second call comes
            (grad,) = pullback(torch.ones_like(value), retain_graph=False)
        return grad, value
    x = _leaves(_select(params, names))
    with torch.enable_grad():
        value = loss({**params, **x}, data)
    return _pulled_back({"": value}, {"": torch.ones_like(value)}, x), value.detach()


def gradient_and_product(
    loss: LossFn, params: Params, batch: Batch, names: Collection[str] | None, *, keep_graph: bool = False
) -> tuple[Params, Product]:
    """Gradient on `names` (None: all), and the product v -> H v that shares its forward pass.

    H has a row for each of `params` and a column for each of `names`: the Jacobian of the gradient, transposed.

    Args:
        loss: Mean loss of a batch.
        params: Parameters.
        batch: The batch.
        names: Names that the gradient has; None means all.
        keep_graph: The product can be called often, and holds the graph of the gradient as long as it lives. By
            default it can be called once, and then lets the graph go.

    Returns:
        The gradient on `names`, detached; and the product, from vectors on `names` to vectors on all of `params`.
    """
    if _inside_transform():
        grad, pullback = torch.func.vjp(lambda x: _inner_gradient(loss, x, batch, names), params)  # type: ignore[misc]

        def product_inside(v: Params) -> Params:
            # what is wanted is the product, not its derivative: without this its own graph would be made
            with torch.no_grad():
                (result,) = pullback({name: v[name] for name in grad}, retain_graph=keep_graph)
            return dict(result)

        return grad, product_inside
    x = _leaves(params)
    with torch.enable_grad():
        value = loss(x, batch)
        grad = _pulled_back({"": value}, {"": torch.ones_like(value)}, _select(x, names), create_graph=True)

    def product(v: Params) -> Params:
        return _pulled_back(grad, v, x, retain_graph=keep_graph)

    return {name: value.detach() for name, value in grad.items()}, product


def _inside_transform() -> bool:
    """Whether derivatives must come from `torch.func`: inside a transform such as `vmap`, and under `torch.compile`.

    Elsewhere autograd by itself gives the same numbers and spends less time on each operation, which shows on small
    images.
    """
    return torch._C._are_functorch_transforms_active() or torch.compiler.is_compiling()


def _leaves(params: Params) -> Params:
    return {name: value.detach().requires_grad_() for name, value in params.items()}


def _pulled_back(
    outputs: Params, v: Params, x: Params, *, create_graph: bool = False, retain_graph: bool = False
) -> Params:
    """Sum over `outputs` of (d output / d x)^T v: zeros where nothing depends on x, as `torch.func` has it."""
    # autograd refuses an output that depends on nothing; its part of the sum is zero
    of = [name for name, value in outputs.items() if value.requires_grad]
    grads = torch.autograd.grad(
        [outputs[name] for name in of],
        list(x.values()),
        [v[name] for name in of],
        create_graph=create_graph,
        retain_graph=create_graph or retain_graph,
        materialize_grads=True,
    )
    return dict(zip(x, grads, strict=True))


def _inner_gradient(loss: LossFn, params: Params, batch: Batch, names: Collection[str] | None) -> Params:
    """Gradient of the loss on `names` (None: all), differentiable in all of `params`."""
    return dict(torch.func.grad(lambda x: loss({**params, **x}, batch))(_select(params, names)))


def _through_both(product: Product, through_eps: Product) -> Product:
    """The product v -> w + (d eps / d x)^T w, where w = H v."""

    def both(v: Params) -> Params:
        w = product(v)
        return add_scaled(w, through_eps(w), 1.0)

    return both


def _select(params: Params, names: Collection[str] | None) -> Params:
    return params if names is None else {name: value for name, value in params.items() if name in names}


def _is_off(radius: float | Tensor) -> bool:
    """True for the Python number 0 only: a tensor may hold another radius for each lane of a `vmap`."""
    return not isinstance(radius, Tensor) and radius == 0


def _query_batch_loss(loss: LossFn) -> QueryLoss:
    return lambda params, episode: loss(params, episode.query)


def _check_episodes(episodes: Sequence[Episode]) -> None:
    if len(episodes) == 0:
        raise ValueError("episodes is empty: at least one episode is needed")


def _check_settings(params: Params, steps: int, inner_params: Collection[str] | None, **sizes: float | Tensor) -> None:
    """Refuse negative sizes and unknown names; tensors are trusted, since a `vmap` cannot look into them."""
    for name, value in sizes.items():
        # as a negation, so that nan is refused, too
        if not isinstance(value, Tensor) and not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be a finite number >= 0, got {value}")
    if steps < 0:
        raise ValueError(f"steps must be >= 0, got {steps}")
    if inner_params is not None:
        unknown = sorted(set(inner_params) - set(params))
        if unknown or not inner_params:
            found = ", ".join(unknown) or "no name at all"
            raise ValueError(f"inner_params must name some of {', '.join(params)}; got {found}")
