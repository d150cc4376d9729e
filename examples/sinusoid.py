"""Few-shot regression of sinusoids, the first experiment of the MAML paper: Sharp-MAML, and a figure of adaptation.

A task is a sine of its own amplitude and phase, to be told from ten points. Source: Finn, Abbeel and Levine,
"Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017, section 5.1.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import seaborn as sns
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from sharp_maml import Batch, Episode, SharpMAML

GRID = torch.linspace(-5, 5, 100)[:, None]
NEW_TASKS = 50
INNER_STEPS = (0, 1, 2, 5, 10)


def draw_task(generator: torch.Generator, shots: int = 10) -> Episode:
    """A support set of `shots` points, and the whole curve as the query set."""
    amplitude, phase, *x = torch.rand(2 + shots, generator=generator)
    amplitude, phase = 0.1 + 4.9 * amplitude, math.pi * phase
    points = 10 * torch.stack(x)[:, None] - 5

    def curve(inputs: Tensor) -> Batch:
        return Batch(inputs, amplitude * torch.sin(inputs - phase))

    return Episode(curve(points), curve(GRID))


def errors(maml: SharpMAML, tasks: list[Episode]) -> list[float]:
    """Mean squared error on the tasks' curves after each number of inner steps."""
    every = torch.cat([task.query.targets for task in tasks])
    return [
        mse_loss(torch.cat([maml.predict(task, steps=steps) for task in tasks]), every).item() for steps in INNER_STEPS
    ]


def draw(maml: SharpMAML, curves: dict[str, list[float]], task: Episode, path: Path) -> None:
    """Left: the network adapts to one task. Right: error on new tasks by inner steps, before and after training."""
    colours = sns.color_palette("viridis", 3)
    with sns.axes_style("whitegrid"):
        left, right = Figure(figsize=(9, 3.5), layout="constrained").subplots(1, 2)
    sns.lineplot(x=GRID[:, 0], y=task.query.targets[:, 0], color="black", linestyle="--", label="task", ax=left)
    sns.scatterplot(x=task.support.inputs[:, 0], y=task.support.targets[:, 0], color="black", zorder=3, ax=left)
    for steps, colour in zip((0, 1, INNER_STEPS[-1]), colours, strict=True):
        after = maml.predict(task, steps=steps)[:, 0]
        sns.lineplot(x=GRID[:, 0], y=after, color=colour, label=f"after {steps} inner steps", ax=left)
    left.set(xlabel="x", ylabel="y", title="One new task")
    for (label, values), colour in zip(curves.items(), colours, strict=False):
        sns.lineplot(x=INNER_STEPS, y=values, color=colour, marker="o", label=label, ax=right)
    right.set(xlabel="inner steps", ylabel="mean squared error", title=f"{NEW_TASKS} new tasks", ylim=(0, None))
    path.parent.mkdir(parents=True, exist_ok=True)
    left.figure.savefig(path, dpi=150)


def main(arguments: list[str] | None = None) -> None:
    """Train, print errors, draw."""
    parser = argparse.ArgumentParser(description="Sharp-MAML on the sinusoid regression of the MAML paper.")
    parser.add_argument("--steps", type=int, default=500, help="meta-iterations (default: 500; the paper: 70,000)")
    parser.add_argument("--radii", type=float, nargs=2, default=(0.005, 0.005), help="alpha_low alpha_up; 0 0 is MAML")
    parser.add_argument("--output", type=Path, default=Path("results/sinusoid.png"), help="where the figure goes")
    options = parser.parse_args(arguments)

    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    tasks = [draw_task(generator) for _ in range(NEW_TASKS)]
    network = nn.Sequential(nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1))
    alpha_low, alpha_up = options.radii
    maml = SharpMAML(network, beta_low=0.01, alpha_low=alpha_low, alpha_up=alpha_up, loss=mse_loss)
    curves = {"random network": errors(maml, tasks)}
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(options.steps):
        optimizer.zero_grad()
        maml.backward([draw_task(generator) for _ in range(5)])
        optimizer.step()
    curves[f"after {options.steps} meta-iterations"] = errors(maml, tasks)
    for label, values in curves.items():
        print(
            f"{label}: error {values[0]:.2f} before, {values[1]:.2f} after 1 and {values[-1]:.2f} after 10 inner steps"
        )
    draw(maml, curves, tasks[0], options.output)
    print(options.output)


if __name__ == "__main__":
    main()
