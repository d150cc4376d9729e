"""The algorithm in two dimensions and its lower level, against closed forms and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from reproductions.method import figures, lower_level, plane
from reproductions.study import RECORDS
from sharp_maml import Batch, adapt, read_result

RECORD = read_result(RECORDS / "method.json", "method").payload


def gradient_of(function, x):
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(function(leaf), leaf)[0]


def iterate(x, low, up, steps):
    """Sharp-MAML both on the two tasks as the algorithm box has it, by autograd through the inner step."""
    shifts = [task.support.inputs for task in plane.tasks()]
    for _ in range(steps):

        def pass_at(point, eps):
            point = point.clone().requires_grad_()
            total = 0.0
            for shift, e in zip(shifts, eps, strict=True):
                inner = torch.autograd.grad(plane.two_basins(point + e - shift), point, create_graph=True)[0]
                total = total + plane.two_basins(point - plane.BETA_LOW * inner - shift)
            return torch.autograd.grad(total / len(shifts), point)[0]

        support = [gradient_of(lambda at, s=shift: plane.two_basins(at - s), x) for shift in shifts]
        eps = [low * g / g.norm() for g in support]
        g = pass_at(x, eps)
        x = x - plane.BETA_UP * pass_at(x + up * g / g.norm(), eps)
    return x


@pytest.mark.parametrize("variant", plane.VARIANTS)
def test_the_recorded_paths_are_those_of_a_plain_loop(variant):
    low, up = (on * RECORD["trajectories"]["radius"] for on in plane.VARIANTS[variant])
    path = RECORD["trajectories"]["paths"][variant]
    x = torch.tensor(plane.START, dtype=torch.float64)
    for steps in (1, 20):
        np.testing.assert_allclose(iterate(x, low, up, steps), path[steps], atol=2e-5)


def test_another_sign_of_the_ascent_gives_another_path():
    low, up = (on * RECORD["trajectories"]["radius"] for on in plane.VARIANTS["both"])
    x = iterate(torch.tensor(plane.START, dtype=torch.float64), low, -up, 20)
    assert np.abs(np.subtract(x.numpy(), RECORD["trajectories"]["paths"]["both"][20])).max() > 0.01


def test_the_minima_are_stationary_and_their_eigenvalues_those_of_finite_differences():
    shifts = [task.support.inputs for task in plane.tasks()]

    def objective(x):
        total = 0.0
        for shift in shifts:
            leaf = x.clone().requires_grad_()
            inner = torch.autograd.grad(plane.two_basins(leaf - shift), leaf)[0]
            total += float(plane.two_basins(x - plane.BETA_LOW * inner - shift)) / len(shifts)
        return total

    for minimum in RECORD["trajectories"]["minima"].values():
        x, h = torch.tensor(minimum["x"], dtype=torch.float64), 1e-4
        steps = torch.eye(2, dtype=torch.float64) * h
        slope = [(objective(x + e) - objective(x - e)) / (2 * h) for e in steps]
        hessian = [
            [
                (objective(x + a + b) - objective(x + a - b) - objective(x - a + b) + objective(x - a - b))
                / (4 * h * h)
                for b in steps
            ]
            for a in steps
        ]
        assert np.abs(slope).max() < 1e-4
        assert np.linalg.eigvalsh(hessian)[-1] == pytest.approx(minimum["eigenvalue"], rel=1e-3)


def test_every_start_is_counted_once_and_the_sharp_minimum_is_the_sharper():
    found = RECORD["trajectories"]
    for end in found["ends"]:
        assert end["flat"] + end["sharp"] == found["starts"]
    sharp, flat = found["minima"]["sharp"], found["minima"]["flat"]
    assert sharp["eigenvalue"] > 2 * flat["eigenvalue"]
    assert sharp["rise_in_ball"] > 2 * flat["rise_in_ball"]
    assert sharp["loss"] < flat["loss"]  # what leads to the flat one is not its value


def test_the_step_of_the_record_closes():
    step = RECORD["trajectories"]["one_step"]
    assert all(math.hypot(*eps) == pytest.approx(step["radius"], rel=1e-4) for eps in [*step["eps_m"], step["eps"]])
    for m, task in enumerate(plane.tasks()):
        for at, key in ((np.array(step["theta"]), "adapted"), (np.add(step["theta"], step["eps"]), "adapted_above")):
            point = torch.tensor(at + step["eps_m"][m], dtype=torch.float64)
            inner = gradient_of(lambda x, s=task.support.inputs: plane.two_basins(x - s), point)
            np.testing.assert_allclose(at - step["beta"] * inner.numpy(), step[key][m], atol=1e-4)


def test_the_sketch_recomputes():
    found = RECORD["sketch"]
    for x, train, test, highest in list(zip(found["x"], found["train"], found["test"], found["highest"], strict=True))[
        40:-40:60
    ]:
        at = np.linspace(x - found["radius"], x + found["radius"], 2001)
        values = [float(plane.two_basins(torch.tensor([a, 0.0], dtype=torch.float64))) for a in (x, x - found["shift"])]
        assert [train, test] == pytest.approx(values, rel=1e-4)
        ball = torch.stack([torch.from_numpy(at), torch.zeros(len(at), dtype=torch.float64)], 1)
        assert highest == pytest.approx(
            float(torch.func.vmap(plane.two_basins)(ball).max()), abs=2 * found["remainder"] + 1e-5
        )


@pytest.mark.parametrize("theta", [-2.9, -0.4, 0.01, 1.3, 3.0])
@pytest.mark.parametrize("alpha", [0.1, 0.5])
@pytest.mark.parametrize("beta", [0.01, 0.4])
def test_the_exact_lower_level_is_that_of_a_fine_grid(theta, alpha, beta):
    y = np.linspace(theta - beta, theta + beta, 2001)
    ball = y[:, None] + np.linspace(-alpha, alpha, 2001)
    values = (1 - np.cos(ball)).max(1) + (y - theta) ** 2 / (2 * beta)
    found = lower_level.exact_lower_level(theta, alpha=alpha, beta=beta)
    assert found == pytest.approx(y[values.argmin()], abs=2 * beta / 2000 + math.sqrt(2e-7 * beta))


def test_near_a_minimum_the_exact_lower_level_is_a_threshold_and_one_step_overshoots():
    """For l = h y^2 / 2 the solution is sign(theta) max(|theta| - beta h alpha, 0) / (1 + beta h)."""
    alpha, beta = 1e-3, 0.3
    for theta in (0.0, 1e-4, -2e-4):
        assert lower_level.exact_lower_level(theta, alpha=alpha, beta=beta) == pytest.approx(0, abs=1e-7)
    theta = 1e-3  # outside the threshold beta alpha
    expected = (theta - beta * alpha) / (1 + beta)
    assert lower_level.exact_lower_level(theta, alpha=alpha, beta=beta) == pytest.approx(expected, abs=1e-7)

    def wells(params, _):
        return 1 - torch.cos(params["x"])

    near = {"x": torch.tensor(1e-4, dtype=torch.float64)}
    empty = Batch(torch.empty(0), torch.empty(0))
    step = adapt(wells, near, empty, beta_low=beta, alpha_low=alpha)["x"]
    assert float(step) == pytest.approx(1e-4 - beta * math.sin(1e-4 + alpha), rel=1e-6)


def test_recorded_distances_recompute():
    found = RECORD["lower_level"]
    drawn = np.random.default_rng(found["seed"]).uniform(-1, 1, found["instances"])
    for row in found["rows"][::17]:
        thetas = drawn * (math.pi if row["place"] == "anywhere" else row["alpha"])
        exact = [lower_level.exact_lower_level(theta, alpha=row["alpha"], beta=row["beta"]) for theta in thetas]
        plain = np.abs(thetas - row["beta"] * np.sin(thetas) - exact)
        sharp = np.abs(thetas - row["beta"] * np.sin(thetas + row["alpha"] * np.sign(np.sin(thetas))) - exact)
        assert row["plain"] == pytest.approx(np.median(plain), rel=1e-3, abs=1e-7)
        assert row["sharp"] == pytest.approx(np.median(sharp), rel=1e-3, abs=1e-7)


def drawn_with(axis, label):
    (line,) = (line for line in axis.get_lines() if line.get_label() == label)
    return np.column_stack(line.get_data())


def test_the_figure_of_the_paths_shows_every_path_and_the_share_of_starts_that_end_in_the_flat_basin():
    found = RECORD["trajectories"]
    left, right = figures.drawn_trajectories(RECORD).axes
    for name, path in found["paths"].items():
        np.testing.assert_array_equal(drawn_with(left, name), path)
        flat = [(end["radius"], 100 * end["flat"] / found["starts"]) for end in found["ends"] if end["variant"] == name]
        shown = drawn_with(right, name)
        np.testing.assert_allclose(shown[:, 1], flat[0][1] if name == "maml" else np.array(flat)[:, 1])
        assert name == "maml" or shown[:, 0].tolist() == [radius for radius, _ in flat]


def test_the_figure_of_a_step_has_each_point_and_each_arrow_of_the_record():
    step = RECORD["trajectories"]["one_step"]
    theta, eps = np.array(step["theta"]), np.array(step["eps"])
    first, second = figures.drawn_step(RECORD).axes
    for axis, at, key, power in ((first, theta, "adapted", 1), (second, theta + eps, "adapted_above", 2)):
        for m, adapted in enumerate(step[key]):
            assert drawn_with(axis, rf"$\tilde\theta^{power}_{m + 1}$").tolist() == [adapted]
        arrows = [(text.xyann, text.xy) for text in axis.texts if text.arrow_patch is not None]
        for eps_m in step["eps_m"]:
            assert any(np.allclose(arrow, (at, at + eps_m)) for arrow in arrows)
    assert drawn_with(second, r"$\theta^{t+1}$").tolist() == [step["next"]]
    assert any(np.allclose((text.xyann, text.xy), (theta, theta + eps)) for text in second.texts if text.arrow_patch)


def test_the_figure_of_the_lower_level_has_a_solid_and_a_dashed_line_for_every_radius():
    rows = RECORD["lower_level"]["rows"]
    alphas = dict.fromkeys(row["alpha"] for row in rows)
    for axis, place in zip(
        figures.drawn_lower_level(RECORD).axes, dict.fromkeys(r["place"] for r in rows), strict=True
    ):
        expected = [
            [(row["beta"], row[key]) for row in rows if (row["alpha"], row["place"]) == (alpha, place)]
            for alpha in alphas
            for key in ("plain", "sharp")
        ]
        assert [np.column_stack(line.get_data()).tolist() for line in axis.get_lines()] == np.array(expected).tolist()
        assert [line.get_linestyle() for line in axis.get_lines()] == ["--", "-"] * len(alphas)


@pytest.mark.parametrize("part", ["trajectories", "step", "lower_level"])
def test_figures_are_drawn_from_the_record_alone(part, tmp_path):
    figure = getattr(figures, f"drawn_{part}")(RECORD)
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
