from __future__ import annotations

import numpy as np
import pytest

from theory.rate.pep import attained, worst_case


def theorem(T: int, *, eta: float, b: float, Delta: float) -> float:
    """For L = 2."""
    step = 2.0 * eta
    return float(max(np.roots([2 - step, -2 * (1 - step) * b, -2 * Delta / (eta * T) - step * b**2]).real)) ** 2


def descend(T: int, *, L: float, eta: float, b: float, Delta: float) -> float:
    x, total = np.sqrt(2 * Delta / L), 0.0
    for _ in range(T):
        gradient = L * x
        total += gradient**2
        x -= eta * (gradient - b * np.sign(x))
    return float(total / T)


@pytest.mark.parametrize("T", [1, 2, 5])
@pytest.mark.parametrize(("L", "eta", "Delta"), [(1.0, 1.0, 1.0), (1.0, 0.5, 1.0), (4.0, 0.1, 0.3)])
def test_without_errors_a_quadratic_is_the_worst_function(T: int, L: float, eta: float, Delta: float) -> None:
    r = 1 - eta * L
    exact = 2 * L * Delta / T * sum(r ** (2 * t) for t in range(T))
    found = worst_case(T, L=L, eta=eta, b=0.0, Delta=Delta)
    assert found.value == pytest.approx(exact, rel=1e-6)
    assert found.value >= exact * (1 - 1e-9)


@pytest.mark.parametrize("T", [1, 2, 3, 5])
@pytest.mark.parametrize(("L", "b", "Delta"), [(1.0, 0.25, 1.0), (1.0, 1.0, 1.0), (3.0, 0.5, 0.2)])
def test_the_longest_step_has_a_closed_worst_case(T: int, L: float, b: float, Delta: float) -> None:
    exact = (2 * L * Delta + (T - 1) * b**2) / T
    assert worst_case(T, L=L, eta=1 / L, b=b, Delta=Delta).value == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("b", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("eta", [0.2, 0.5])
def test_the_worst_case_lies_between_an_explicit_function_and_the_theorem(eta: float, b: float) -> None:
    for T in (2, 5):
        value = worst_case(T, L=2.0, eta=eta, b=b, Delta=0.7).value
        assert attained(T, L=2.0, eta=eta, b=b, Delta=0.7) <= value * (1 + 1e-9)
        assert value <= theorem(T, eta=eta, b=b, Delta=0.7) * (1 + 1e-6)


def test_a_quadratic_is_not_the_worst_function_for_errors_and_short_steps() -> None:
    arguments = {"L": 1.0, "eta": 0.5, "b": 0.25, "Delta": 1.0}
    assert worst_case(8, **arguments).value > 1.01 * attained(8, **arguments)


def test_weaker_theorems_are_refuted() -> None:
    T, eta, b, Delta = 5, 0.5, 0.25, 1.0
    value = worst_case(T, L=2.0, eta=eta, b=b, Delta=Delta).value
    assert value > 1.05 * theorem(T, eta=eta, b=0.0, Delta=Delta)
    assert value > 1.7 * theorem(T, eta=eta, b=b, Delta=Delta / 2)


@pytest.mark.parametrize("eta", [0.1, 0.25, 0.5])
def test_without_errors_the_theorem_is_the_worst_case_but_for_what_dies_out(eta: float) -> None:
    found = worst_case(8, L=2.0, eta=eta, b=0.0, Delta=0.7).value
    stated = theorem(8, eta=eta, b=0.0, Delta=0.7)
    assert found == pytest.approx(stated * (1 - (1 - 2 * eta) ** 16), rel=1e-6)
    assert found < stated * (1 + 1e-6)


def test_the_attained_average_is_that_of_the_method() -> None:
    arguments = {"L": 2.0, "eta": 0.3, "b": 0.4, "Delta": 0.9}
    assert attained(6, **arguments) == pytest.approx(descend(6, **arguments), rel=1e-12)


def test_grows_with_the_errors_and_with_the_height() -> None:
    by_b = [worst_case(3, L=1.0, eta=0.5, b=b, Delta=1.0).value for b in (0.0, 0.1, 0.5, 2.0)]
    by_height = [worst_case(3, L=1.0, eta=0.5, b=0.5, Delta=Delta).value for Delta in (0.0, 0.1, 1.0, 10.0)]
    assert (np.diff(by_b) > 0.01).all()
    assert (np.diff(by_height) > 0.01).all()


@pytest.mark.parametrize("c", [0.01, 50.0])
def test_scales_with_the_units(c: float) -> None:
    value = worst_case(3, L=1.0, eta=0.5, b=0.5, Delta=0.8).value
    # F(sqrt(c) x): gradients grow by sqrt(c). c F(x / sqrt(c)): gradients and radii by sqrt(c), heights by c.
    steeper = worst_case(3, L=c, eta=0.5 / c, b=0.5 * c**0.5, Delta=0.8).value
    higher = worst_case(3, L=1.0, eta=0.5, b=0.5 * c**0.5, Delta=0.8 * c).value
    assert steeper == pytest.approx(c * value, rel=1e-6)
    assert higher == pytest.approx(c * value, rel=1e-6)


def test_nothing_moves_from_a_minimum_without_errors() -> None:
    assert worst_case(4, L=1.0, eta=1.0, b=0.0, Delta=0.0).value == 0
    assert worst_case(1, L=1.0, eta=1.0, b=1.0, Delta=0.0).value == 0


@pytest.mark.parametrize("function", [worst_case, attained])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"T": 0}, "T must be at least 1, got 0"),
        ({"L": 0.0}, "L must be positive and finite, got 0.0"),
        ({"eta": 0.0}, r"eta must be in \(0, 1/L\] = \(0, 0.5\], got 0.0"),
        ({"eta": -0.1}, r"eta must be in \(0, 1/L\] = \(0, 0.5\], got -0.1"),
        ({"eta": 0.6}, r"eta must be in \(0, 1/L\] = \(0, 0.5\], got 0.6"),
        ({"b": -1.0}, "b must be at least 0 and finite, got -1.0"),
        ({"b": float("nan")}, "b must be at least 0 and finite, got nan"),
        ({"Delta": -1.0}, "Delta must be at least 0 and finite, got -1.0"),
    ],
)
def test_arguments_out_of_range_are_named(function, changed: dict[str, float], message: str) -> None:
    arguments = {"T": 2, "L": 2.0, "eta": 0.5, "b": 0.1, "Delta": 1.0} | changed
    with pytest.raises(ValueError, match=message):
        function(arguments.pop("T"), **arguments)


def test_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    worst_case(2, L=1.0, eta=1.0, b=0.1, Delta=1.0)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("T", "b", "Delta"), [(1, 1e3, 1e-3), (3, 1.0, 0.0), (3, 1e-3, 1e3), (3, 1e3, 1e-3)])
def test_is_as_accurate_at_small_steps_and_unequal_scales(T: int, b: float, Delta: float) -> None:
    found = worst_case(T, L=10.0, eta=0.001, b=b, Delta=Delta)
    assert found.value >= attained(T, L=10.0, eta=0.001, b=b, Delta=Delta) * (1 - 1e-9)


def test_an_inaccurate_solution_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("theory.rate.pep._TOLERANCE", 1e-2)
    with pytest.raises(RuntimeError, match="relative to the value, above 1e-06"):
        worst_case(3, L=1.0, eta=0.5, b=0.5, Delta=1.0)
