"""The inner loop, the meta-loss and its gradient: MAML and every variant of Sharp-MAML in one formula.

With x_0 = theta (+ eps) and x_{k+1} = x_k - beta grad l(x_k + eps_k), the gradient of q(x_K) with respect to x_0 is
found by starting from v = grad q(x_K) and going back, v <- v - beta H(x_k + eps_k) v. Two primitives are all that this
takes: the gradient, and the gradient together with the product v -> H v. Inside a transform both come from
`torch.func`, so that the whole composes with `torch.func.vmap`. A variant is a pair of radii; 0, 0 is MAML. Read next:
`models.py`, `train.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sharp_maml.ascent import Direction, Product, along_gradient, ascent
from sharp_maml.base import Batch, BatchNorm, Episode, LossFn, MetaGradient, Method, Params, QueryLoss
from sharp_maml.tree import add_scaled, mean

Perturbation = Literal["reused", "recomputed", "differentiated"]
"""What eps_m is at the upper ascent point theta + eps: see `meta_gradient`."""

Logits = Callable[[Params, Tensor, Tensor | None], Tensor]
"""(params, inputs, context) -> logits; context: the inputs whose statistics batch norm uses, or None for `inputs`."""

MapEpisodes = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""The built-in `map`, or one like it: results in the order of the items."""

CompileEpisode = Callable[[Any], Callable[..., Any]]
"""What wraps the function of one episode: nothing, or `compiled()`."""

Data = TypeVar("Data", Batch, Episode)


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
    """Inner loop: x_{k+1} = x_k - beta_low grad l(x_k + eps_k) from x_0 = params, eps_k = alpha_low grad l(x_k) / |.|.

    Differentiable in `params` through every step; the eps_k are constants.

    Args:
        loss: Mean loss l of a batch.
        params: Parameters theta.
        support: The support set D_m.
        beta_low: Inner step size, >= 0.
        steps: Number K of inner steps, >= 0.
        alpha_low: Radius of the lower ascent, >= 0; the Python number 0 skips it.
        inner_params: Names that the loop adapts and perturbs; None means all. The head alone is ANIL, the body alone
            BOIL.
        direction: What the ascent goes along, at length alpha_low; by default the normalised gradient.

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
            constant = {name: value.detach() for name, value in params.items()}
            grad, _ = _gradient(loss, constant, support, inner_params)
            point = ascent(params, grad, alpha=alpha_low, direction=direction)
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
        beta_low: Inner step size, >= 0.
        steps: Number K of inner steps, >= 0.
        alpha_low: Radius of the lower ascent, >= 0.
        inner_params: Names that the inner loop adapts and perturbs; None means all.
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
    mean_over_ranks: Callable[[Params], Params] = lambda params: params,
    map_episodes: MapEpisodes = map,
    compile_episode: CompileEpisode = lambda function: function,
) -> MetaGradient:
    """Meta-gradient of Sharp-MAML: grad F at theta + eps, where eps = alpha_up grad F(theta) / |grad F(theta)|.

    F(theta) = (1/M) sum_m q_m(x_K) with x_0 = theta and x_{k+1} = x_k - beta_low grad l_m(x_k + eps_{m,k}); eps_{m,k}
    is alpha_low times the normalised gradient of l_m at x_k. Radii alpha_low, alpha_up = 0, 0 give MAML; only the first
    positive, Sharp-MAML low; only the second, up; both, both. Episodes go one after the other; of each, one support-set
    graph an inner step is kept (two with `differentiated`), and never a graph of the query gradient.

    Args:
        loss: Mean loss l of a batch; 0-dimensional.
        params: Parameters theta.
        episodes: M >= 1 episodes.
        beta_low: Inner step size, >= 0.
        alpha_low: Radius of the lower ascent, >= 0, in the units of the parameters.
        alpha_up: Radius of the upper ascent, >= 0. Only the Python number 0 skips an ascent.
        steps: Number K of inner steps, >= 0.
        query_loss: q_m; None means `loss` on the query batch.
        perturbation: What eps_{m,k} is at theta + eps. `reused`: the one made at theta, a constant (the algorithm
            box). `recomputed`: made anew there, a constant. `differentiated`: made anew, and the gradient flows through
            it, also in the pass at theta (the authors' released code). eps itself is always a constant.
        inner_params: Names that the inner loop adapts and perturbs; None means all.
        ascent_episodes: As many samples of their own for the perturbations: the pass that makes eps runs wholly on
            them, and their support sets make every eps_{m,k}. None: the episodes themselves.
        first_order: Leave the Hessian products out (first-order MAML).
        direction: What both ascents go along, at length alpha_low and alpha_up; by default the normalised gradient.
        mean_over_ranks: Mean of a tree over the processes that share the episodes; taken before the upper ascent.
        map_episodes: How the episodes are gone through: `map`, one after the other, or `distributed.in_threads(n)`.
        compile_episode: `compiled()`, to compile the work of an episode; then `loss` and `query_loss` must be the same
            functions in every call. By default nothing is compiled.

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

    one_episode = compile_episode(
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
    params = {name: value.detach() for name, value in params.items()}
    makers = episodes if ascent_episodes is None else ascent_episodes
    made_anew: list[list[Params] | None] = [None] * len(episodes)

    def mean_gradient(
        at: Params, over: Sequence[Episode], given: Sequence[list[Params] | None]
    ) -> tuple[Params, Tensor, list[list[Params] | None]]:
        grads, losses, made = zip(
            *map_episodes(lambda triple: one_episode(at, *triple), zip(over, makers, given, strict=True)), strict=True
        )
        value = mean_over_ranks({"loss": torch.stack(losses).mean()})["loss"]
        return mean_over_ranks(mean(grads)), value, list(made)

    if _is_off(alpha_up):
        grad, value, _ = mean_gradient(params, episodes, made_anew)
        return MetaGradient(grad, value, value)
    grad, value, made = mean_gradient(params, makers, made_anew)
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
            given: Perturbations made before, one a step; None makes them here.

        Returns:
            The gradient, the query loss, and the perturbations.
        """
        products: list[Product] = []
        made: list[Params] = []
        for k in range(self.steps):
            point, through_eps = x, None
            if not _is_off(self.alpha):
                eps, through_eps = self.perturbation(x, maker.support) if given is None else (given[k], None)
                made.append(eps)
                point = add_scaled(x, eps, 1.0)
            if self.first_order:
                grad, _ = _gradient(self.loss, point, episode.support, self.names)
            else:
                grad, product = gradient_and_product(self.loss, point, episode.support, self.names)
                products.append(product if through_eps is None else _through_both(product, through_eps))
            x = add_scaled(x, grad, -self.beta)

        v, value = _gradient(self.query_loss or _query_batch_loss(self.loss), x, episode, None)
        while products:
            v = add_scaled(v, products.pop()(v), -self.beta)
        return v, value, made

    def perturbation(self, x: Params, support: Batch) -> tuple[Params, Product | None]:
        """The vector eps = alpha g / |g| and, if the gradient flows through it, the product w -> (d eps / d x)^T w.

        With u the direction that the gradient g gives and H the Hessian at x, that product is alpha H (du/dg)^T w.
        """
        if self.differentiated:
            grad, product = gradient_and_product(self.loss, x, support, self.names)
        else:
            grad, _ = _gradient(self.loss, x, support, self.names)
        unit, through_unit = self.direction(grad)
        eps = {name: self.alpha * value for name, value in unit.items()}
        if not self.differentiated:
            return eps, None

        def through_eps(w: Params) -> Params:
            of_grad = through_unit({name: w[name] for name in unit})
            return product({name: self.alpha * value for name, value in of_grad.items()})

        return eps, through_eps


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
    mean_over_ranks: Callable[[Params], Params] = lambda params: params,
    map_episodes: MapEpisodes = map,
    compile_episode: CompileEpisode = lambda function: function,
) -> Method:
    """MAML or Sharp-MAML for classification with cross-entropy.

    Args:
        logits: The network, (params, inputs, context) -> `n x ways`.
        beta_low: Inner step size, in training and at test.
        alpha_low: Radius of the lower ascent.
        alpha_up: Radius of the upper ascent.
        steps: Inner steps in training.
        test_steps: Inner steps at test; None means `steps`.
        perturb_at_test: Perturb the inner steps at test too; by default they are plain gradient steps.
        batch_norm: `transductive` normalises the query set by its own statistics, `support` by the support set's.
        perturbation: See `meta_gradient`.
        inner_params: Names that the inner loop adapts and perturbs; None means all.
        first_order: First-order MAML.
        direction: Of both ascents, see `meta_gradient`.
        mean_over_ranks: See `meta_gradient`.
        map_episodes: See `meta_gradient`.
        compile_episode: See `meta_gradient`.

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
            mean_over_ranks=mean_over_ranks,
            map_episodes=map_episodes,
            compile_episode=compile_episode,
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


def _gradient(
    loss: Callable[[Params, Data], Tensor], params: Params, data: Data, names: Collection[str] | None
) -> tuple[Params, Tensor]:
    """Gradient of the loss on `names` (None: all), and the loss. No graph is kept."""
    if _inside_transform():
        value, pullback = torch.func.vjp(lambda x: loss({**params, **x}, data), _select(params, names))  # type: ignore[misc]
        with torch.no_grad():
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
        names: Of the gradient.
        keep_graph: The product can be called often, and holds the graph of the gradient as long as it lives. By
            default it can be called once, and then lets the graph go.

    Returns:
        The gradient on `names`, detached; and the product, from vectors on `names` to vectors on all of `params`.
    """
    if _inside_transform():
        grad, pullback = torch.func.vjp(lambda x: _inner_gradient(loss, x, batch, names), params)  # type: ignore[misc]

        def product_inside(v: Params) -> Params:
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
        if not isinstance(value, Tensor) and not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be a finite number >= 0, got {value}")
    if steps < 0:
        raise ValueError(f"steps must be >= 0, got {steps}")
    if inner_params is not None:
        unknown = sorted(set(inner_params) - set(params))
        if unknown or not inner_params:
            found = ", ".join(unknown) or "no name at all"
            raise ValueError(f"inner_params must name some of {', '.join(params)}; got {found}")
