"""What a record of the regime says: its ratios, the page and the figure.

The constants, steps and radii that the theorem speaks of are measured at conv4 networks: as they began, on their way,
and as the best checkpoint of their training has them. Tasks are fixed episodes of the validation classes, with samples
drawn anew from the same classes; the support loss of a task is the mean over support sets of the episode's size, so
that a set is a sample of it with batch norm and all. Everything is in float64.

A measurement at a point refutes a constant that it exceeds, and a step that is too long for the curvature found there.
That a bound or an assumption holds everywhere it cannot show: a ratio of at most 1 means *not refuted here*. Constants
are those of the losses of single samples, the largest over tasks; elsewhere they may be larger, and those of the
expected losses may be smaller. ReLU and max-pooling have kinks, so that neither gradient nor Hessian of such a network
is Lipschitz on all of the space; the quotients say whether that is felt at the length of the steps taken. The theorem's
update is a multiple of the meta-gradient, which Adam's is not: for a network trained by Adam, eta L_F is that of a
plain step of the same eta, the largest of its schedule. An order such as O(1/sqrt T) is neither true nor false at a
single T: what is given is the constant in front of it.

Read next: `regime.py`, which measures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import style
from matplotlib.figure import Figure

from sharp_maml import Estimate, Result, interval_over_seeds
from sharp_maml.paper import say
from synthetic import Constants
from theory.check.figures import MARKERS
from theory.check.verdicts import commit_of
from theory.networks.local import SCALES
from theory.rate.theorem import bias, evaluate, rate, smoothness, variance_fresh, variance_shared

INITIAL = "initial"
"""The state of a network before its training."""

QUESTIONS = {
    "step": ("eta L_F", "assumed: a step of at most 1/L_F"),
    "fold": ("beta times the largest inner eigenvalue", "not assumed; above 1 an inner step folds space (Lemma 1)"),
    "L1": (
        "gradient: quotient / abs. eigenvalue",
        "A1: the quotients along a step do not exceed the curvature at its start",
    ),
    "L2": ("Hessian: quotient at step/100 / at step", "A1: a Lipschitz constant does not depend on the length"),
    "smoothness": ("L_F / (kappa^2 Lq + beta L2 L0)", "the formula for L_F"),
    "bias": ("bias / b", "the formula for the bias of the meta-gradient"),
    "informative": ("b / norm of grad F", "above 1 the theorem allows a bias as large as the gradient"),
    "bound": ("G / norm of grad F", "at the longest step allowed; above 1 the rate says nothing here"),
}
"""Ratios of which at most 1 agrees with the theorem: what each is called, and what it is about."""


def average(values: Sequence[float]) -> Estimate:
    """A mean over tasks or meta-batches with Student's 95 per cent interval."""
    return interval_over_seeds(list(values))


def quotient(found: Mapping[str, Any], constant: str, scale: float) -> float:
    """The largest quotient of a network at a scale, over tasks and both directions."""
    return max(
        float(task[f"{constant} {name} {scale:g}"]) for task in found["tasks"] for name in ("gradient", "random")
    )


def constants(found: Mapping[str, Any]) -> Constants:
    """The theorem's constants as measured, the largest over tasks; L2 is that along the inner step."""
    largest = {name: max(task[name] for task in found["tasks"]) for name in ("L0", "L1", "Lq", "sg", "sH", "sq")}
    return Constants(L2=quotient(found, "L2", 1.0), **largest)


def root(squares: Sequence[float]) -> tuple[float, float, float]:
    """Root of the mean of estimated squares, which may be negative, and of its interval's ends; 0 for negative ones."""
    of = average(squares)
    mean, low, high = (math.sqrt(max(value, 0.0)) for value in (of.mean, of.low, of.high))
    return mean, low, high


def ratios(found: Mapping[str, Any]) -> dict[str, float | None]:
    """For each question, what was measured over what the theorem asks; at most 1 agrees with it.

    Args:
        found: A network of the record.

    Returns:
        The ratios by question; None for formulas of one inner step where there are several, and for a share of the
        gradient whose square was estimated as negative.
    """
    config, known = found["config"], constants(found)
    beta, eta = config["beta_low"], config["beta_up"]
    largest = max(batch["L_F"] for batch in found["meta_batches"])
    ratio: dict[str, float | None] = dict.fromkeys(QUESTIONS)
    ratio["step"], ratio["fold"] = eta * largest, beta * max(task["high"] for task in found["tasks"])
    ratio["L1"] = max(quotient(found, "L1", scale) for scale in SCALES) / known.L1
    ratio["L2"] = quotient(found, "L2", SCALES[-1]) / known.L2
    if config["steps"] != 1:
        return ratio
    slope, _, _ = root([batch["slope^2"] for batch in found["meta_batches"]])
    values = {"beta": beta, "alpha_up": config["alpha_up"], "alpha_low": config["alpha_low"]}
    formula = evaluate(smoothness, known, beta=beta)
    bound = evaluate(bias, known, **values)
    # cross-entropy is not negative, so that F itself is at least F - inf F
    values |= {
        "Delta": average([batch["loss"] for batch in found["meta_batches"]]).mean,
        "M": config["meta_batch"],
        "T": config["iterations"],
        "eta": min(eta, 1 / formula),
    }
    is_perturbed = config["alpha_up"] > 0 or config["alpha_low"] > 0
    square = evaluate(rate(variance_shared if is_perturbed else variance_fresh), known, **values)
    ratio["smoothness"] = largest / formula
    ratio["bias"] = root([batch["bias^2"] for batch in found["meta_batches"]])[0] / bound
    if slope > 0:
        ratio["informative"], ratio["bound"] = bound / slope, math.sqrt(square) / slope
    return ratio


def kind_of(network: Mapping[str, Any]) -> str:
    """A network's images, their size, and the optimizer of its training: what is shown apart."""
    images = network["data"].replace("-", " ")
    optimizer = {"adam": "Adam", "sgd": "SGD"}[network["config"]["optimizer"]]
    return f"{images}, {network['config']['image_size']} pixels, {optimizer}"


def trained(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The last state of every training that a record has; a start is none."""
    last: dict[tuple[str, str, int], Mapping[str, Any]] = {}
    for network in record["networks"]:
        training = (kind_of(network), network["row"], network["config"]["seed"])
        if network["step"] > last.get(training, {"step": 0})["step"]:
            last[training] = network
    return list(last.values())


def shown(values: Sequence[float]) -> str:
    """The range of a ratio over seeds, bold where any exceeds 1."""
    if not values:
        return "unknown"
    low, high = (f"{float(f'{value:.2g}'):g}" for value in (min(values), max(values)))
    text = low if low == high else f"{low} to {high}"
    return f"**{text}**" if max(values) > 1 else text


def table(result: Result, link: str) -> str:
    """The result in markdown, which links its record."""
    record = result.payload
    lines = [*_head(result), *_ratios(record), *_steps(record), *_tasks(record), *_objective(record)]
    return "\n".join([*lines, "", f"[Record]({link}).", ""])


def _head(result: Result) -> list[str]:
    """What was measured and how, and which code did."""
    first, second = (" ".join(part.split()) for part in (__doc__ or "").split("\n\n")[1:3])
    settings = result.payload["settings"]
    return [
        "# The regime of trained networks",
        "",
        first,
        "",
        second,
        "",
        f"{settings['meta_batches']} meta-batches, {settings['samples']} samples of every task; "
        f"{commit_of(result.provenance)}. "
        "Intervals are Student's, 95 per cent, over meta-batches or over the first task of each.",
        *(["", result.caveat] if result.caveat else []),
    ]


def verdicts(record: Mapping[str, Any]) -> list[str]:
    """A line for each question: at how many trained networks the ratio is above 1, and its range, each kind apart."""
    by_kind: dict[str, list[dict[str, float | None]]] = {}
    for network in trained(record):
        by_kind.setdefault(kind_of(network), []).append(ratios(network))
    lines = [f"| measured / asked | about | {' | '.join(by_kind)} |", "|---|---|" + "---|" * len(by_kind)]
    for name, (ratio, about) in QUESTIONS.items():
        cells = []
        for of_kind in by_kind.values():
            known = [value for one in of_kind if (value := one[name]) is not None]
            above = f", above 1 at {sum(value > 1 for value in known)} of {len(known)}" if known else ""
            cells.append(f"{shown(known)}{above}")
        lines.append(f"| {ratio} | {about} | {' | '.join(cells)} |")
    return lines


def _ratios(record: Mapping[str, Any]) -> list[str]:
    """The ratios of trained networks, and those along their training."""
    return [
        "",
        "## What holds, and by what factor it does not",
        "",
        "Each number is what was measured over what the theorem asks, at the best checkpoint of a training; its range "
        "is that over rows of the table and training seeds, and it is bold where it exceeds 1. kappa = 1 + beta L1; b "
        "bounds the bias and G the root of the mean squared gradient (`theory/rate/theorem.py`), both with the "
        "constants measured here. Unknown are formulas of one inner step where there are several, and shares of a "
        "gradient whose square was estimated as negative.",
        "",
        *verdicts(record),
        "",
        "![ratios and quotients](regime.png)",
        "",
        "*Left: how the quotients of the Hessian grow as the length of the difference shrinks, largest over tasks and "
        "directions; a Lipschitz Hessian would bound them. Right: the ratios of the table, a point a network; those "
        "left of the line agree with the theorem.*",
        *_along(record),
    ]


def _along(record: Mapping[str, Any]) -> list[str]:
    """The ratios of every row and state, each a range over training seeds."""
    found: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for network in record["networks"]:
        found.setdefault((kind_of(network), network["row"], network["state"]), []).append(network)
    lines = [
        "",
        "## Along the training",
        "",
        "These ratios for every row and state, each a range over training seeds. Rows of one seed begin as one "
        "network; where they are named *all rows* it was measured once, without perturbations.",
        "",
        f"| data and optimizer | row | state | step | seeds | {' | '.join(ratio for ratio, _ in QUESTIONS.values())} |",
        "|---|---|---|---|---|" + "---|" * len(QUESTIONS),
    ]
    for (kind, row, state), networks in sorted(found.items(), key=lambda item: item[0][0]):
        every = [ratios(network) for network in networks]
        columns = [shown([value for one in every if (value := one[name]) is not None]) for name in QUESTIONS]
        steps = " or ".join(map(str, sorted({network["step"] for network in networks})))
        total = networks[0]["config"]["iterations"]
        cells = [kind, row, state, f"{steps} of {total}", str(len(networks)), *columns]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _steps(record: Mapping[str, Any]) -> list[str]:
    """Steps and radii of every training."""
    lines = [
        "",
        "## Steps and radii",
        "",
        "Radii over the norm of the parameters at the end, and the constants in front of the orders that the theorem "
        "prescribes. Networks trained by SGD with a constant step take the theorem's own update: beta_low and beta_up, "
        "which do not change during the run, are the prescribed c / sqrt T with these constants c. Whether they are "
        "proper ones, such that beta_up is at most 1/L_F, is what the first ratio above says.",
        "",
        "| data and optimizer | network | step | schedule | alpha_low / norm | alpha_up / norm | beta_low sqrt T | "
        "beta_up sqrt T | alpha_up sqrt T | alpha_low |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for network in trained(record):
        config, length = network["config"], network["parameter_norm"]
        numbers = [
            config["alpha_low"] / length,
            config["alpha_up"] / length,
            *(config[name] * math.sqrt(config["iterations"]) for name in ("beta_low", "beta_up", "alpha_up")),
            config["alpha_low"],
        ]
        cells = [kind_of(network), network["name"], f"{network['step']} of {config['iterations']}", config["schedule"]]
        cells += [f"{number:.3g}" for number in numbers]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _tasks(record: Mapping[str, Any]) -> list[str]:
    """The constants of the tasks at every network."""
    lines = [
        "",
        "## Numbers of the tasks",
        "",
        "Means over tasks; the inner step is the longest. Eigenvalues are of the Hessian of one support loss; L2 is "
        "the larger of the two quotients along the inner step and a random direction of its length; sH is a proxy, off "
        "by a factor of at most sqrt 2.",
        "",
        "| data and optimizer | network | inner step / norm | smallest eigenvalue | largest | L2 | L0 | Lq | "
        "norm of support gradient | sg | sH | sq |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for network in record["networks"]:
        tasks = network["tasks"]
        every = [[task[name] for task in tasks] for name in ("low", "high", "L0", "Lq", "slope", "sg", "sH", "sq")]
        every.insert(2, [max(task["L2 gradient 1"], task["L2 random 1"]) for task in tasks])
        step = max(task["step"] for task in tasks) / network["parameter_norm"]
        cells = [kind_of(network), network["name"], f"{step:.3g}", *(f"{average(values):.3g}" for values in every)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _objective(record: Mapping[str, Any]) -> list[str]:
    """The meta-objective at every network."""
    lines = [
        "",
        "## Numbers of the meta-objective",
        "",
        "Means over meta-batches. Bias and gradient are roots of mean squares, each made of two halves of the samples "
        "so that their noise cancels; the intervals hold the Monte Carlo error. With N samples in a half, about one "
        "part in N of the bias is missed. The bias is to the theorem's F, whose inner step follows the expected "
        "support loss; of the mean over support sets of one size, MAML's meta-gradient has no bias by definition.",
        "",
        "| data and optimizer | network | F | smallest eigenvalue | largest | norm of grad F | norm of the bias | "
        "bias / gradient |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for network in record["networks"]:
        batches = network["meta_batches"]
        slope, bias_found = (root([one[key] for one in batches]) for key in ("slope^2", "bias^2"))
        cells = [kind_of(network), network["name"]]
        cells += [f"{average([one[name] for one in batches]):.3g}" for name in ("loss", "low", "high")]
        cells += [f"{mean:.3g} [{low:.2g}, {high:.2g}]" for mean, low, high in (slope, bias_found)]
        cells.append(shown([bias_found[0] / slope[0]] if slope[0] else []))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def says(record: Mapping[str, Any]) -> str:
    """What the figure says, in a sentence."""
    every = [ratios(network) for network in trained(record)]
    answers = [{value > 1 for of in every if (value := of[question]) is not None} for question in QUESTIONS]
    return (
        f"The theorem asks {len(QUESTIONS)} things: {answers.count({True})} are exceeded at every trained network, "
        f"and {answers.count({False})} at none."
    )


def draw(record: Mapping[str, Any]) -> Figure:
    """Quotients of the Hessian against the length, and all ratios: a colour a kind, a marker a part of the training."""
    kinds = list(dict.fromkeys(map(kind_of, record["networks"])))
    ends = trained(record)
    with style.context("sharp_maml.paper"):
        figure = Figure(figsize=(6.8, 3.9), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.3))
        for network in record["networks"]:
            colour = f"C{kinds.index(kind_of(network))}"
            part = 0 if network["step"] == 0 else 2 if network in ends else 1
            look: dict[str, Any] = {"color": colour, "marker": MARKERS[part]}
            look["markerfacecolor"] = colour if part == 2 else "none"
            left.plot(SCALES, [quotient(network, "L2", scale) for scale in SCALES], ls=(":", "--", "-")[part], **look)
            known = [(i, value) for i, value in enumerate(ratios(network).values()) if value]
            place = (kinds.index(kind_of(network)) + part / 3 + 1 / 6) / len(kinds) - 0.5
            right.plot([value for _, value in known], [i + 0.7 * place for i, _ in known], ls="", **look)
        for place, kind in enumerate(kinds):
            right.plot([], [], "s", color=f"C{place}", label=kind)
        for marker, line, label in zip(MARKERS, (":", "--", "-"), ("initial", "early", "trained"), strict=False):
            face = "0.4" if label == "trained" else "none"
            right.plot([], [], marker=marker, ls=line, color="0.4", markerfacecolor=face, label=label)
        left.set(xscale="log", yscale="log", xlabel="length, in inner steps", ylabel="quotient of the Hessian")
        right.axvline(1, color="0.4", ls="--", lw=1)
        right.set(xscale="log", xlabel="measured / what the theorem asks", ylim=(len(QUESTIONS) - 0.5, -0.5))
        right.set_yticks(range(len(QUESTIONS)), [ratio for ratio, _ in QUESTIONS.values()])
        figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        say(figure, says(record))
    return figure
