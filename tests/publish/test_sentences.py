"""The figure of every page says one sentence, which is of its record, and is saved as pixels and as lines."""

from __future__ import annotations

import math
import re
from copy import deepcopy
from dataclasses import replace
from functools import partial

import pytest
from matplotlib.figure import Figure

from benchmarks import figure as bench
from publish import pages
from reproductions.landscape import figures as landscape
from reproductions.study import RECORDS
from reproductions.tables.lines import Line
from sharp_maml import Estimate, read_result
from sharp_maml.paper import PAGE, save_figure, say
from theory.check import calibration
from theory.networks import certificate, counts, rate, regime_page

DRAWN = {
    "theory/calibration": calibration.draw,
    "theory/certificate": certificate.draw,
    "theory/counts": counts.draw,
    "theory/network-rate": rate.draw,
    "theory/regime": regime_page.draw,
    "bench/speed": bench.draw,
    "landscape/demo": landscape.landscapes,
}


def payload(name: str):
    path = RECORDS / f"{name}.json"
    return read_result(path, name.split("/")[0] if name.startswith("landscape") else path.stem).payload


@pytest.mark.parametrize("name", DRAWN)
def test_a_pages_figure_says_a_sentence_that_fits_above_it(name: str) -> None:
    figure = DRAWN[name](payload(name))
    figure.draw_without_rendering()
    assert re.fullmatch(r"[A-Z][^`*]*\.", figure.get_suptitle())
    box = figure._suptitle.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert box.y1 <= figure.bbox.y1


def test_a_figure_is_saved_as_pixels_and_as_lines_with_no_date_in_them(tmp_path) -> None:
    figure = Figure(figsize=(PAGE, 2))
    say(figure, "A sentence.")
    for folder in ("one", "other"):
        save_figure(figure, tmp_path / folder / "drawn.png")
    for suffix, start in ((".png", b"\x89PNG"), (".pdf", b"%PDF")):
        one, other = ((tmp_path / folder / f"drawn{suffix}").read_bytes() for folder in ("one", "other"))
        assert one == other
        assert one.startswith(start)


def speed(factor: float) -> str:
    found = deepcopy(payload("bench/speed"))
    for row in found["rows"]:
        row["ratio"]["plain"]["median"] = factor * bench.TARGETS[int(row["work"].split("@")[1])]
    return bench.says(found)


def bound(of_guessing: float) -> str:
    (one, *_) = certificate.certificates_of(payload("theory/certificate"))
    value = of_guessing * one.guessing
    rows = tuple(replace(row, theorem=value, kl=value, pac_bus=value) for row in one.rows)
    return certificate.says([replace(one, rows=rows)])


def landscapes(*verdicts: str) -> str:
    return landscape.says({"decisions": [{"verdict": verdict} for verdict in verdicts]})


def numbers(erm: int) -> str:
    found = deepcopy(payload("theory/counts"))
    for cell in found["cells"]:
        for instance in cell["instances"]:
            instance["points"] = erm if cell["ratio"] == "0" else 5
    return counts.says(found)


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        (partial(speed, 1.0), "is 2.0 to 2.5 times as fast .* target in 16 of 16"),
        (partial(speed, 0.9), "is 1.8 to 2.2 times as fast .* target in 0 of 16"),
        (partial(bound, 0.5), "of 1 of 1 trained networks: the smallest is 0.400, and guessing has 0.8"),
        (partial(bound, 1.1), "of 0 of 1 trained networks: the smallest is 0.880, and guessing has 0.8"),
        (
            partial(landscapes, "smoother", "less smooth", "smoother"),
            "in 3 measures.*: 2 smoother, 1 less smooth, 0 not decided",
        ),
        (partial(numbers, 5), "on 0 of 80 networks at beta L1 = 1/2, 0 of 66 .* 2, 0 of 57 .* 8"),
        (partial(numbers, 4), "on 80 of 80 networks at beta L1 = 1/2, 66 of 66 .* 2, 57 of 57 .* 8"),
    ],
)
def test_the_sentence_changes_with_the_record(says, expected: str) -> None:
    assert re.search(expected, says())


def test_the_rates_sentence_has_the_slopes_of_power_laws_and_their_share_of_the_bound() -> None:
    found = deepcopy(payload("theory/network-rate"))
    for one in found["horizons"]:
        for name in one["averages"]:
            power = -0.25 if name == "both" else -0.75
            one["averages"][name] = [one["T"] ** power] * 5
            one["bounds"][name] = 4 * one["T"] ** power
    assert "slopes of -0.75 to -0.25" in rate.says(found)
    assert "is 0.25 to 0.25 of the bound" in rate.says(found)
    for one in found["horizons"]:
        one["bounds"] = dict.fromkeys(one["bounds"])
    assert "and no step is short enough for the bound" in rate.says(found)


def line(label: str, differences: Estimate | None, verdict: str) -> Line:
    return Line(label, None, False, None, None, None, differences, None, verdict, differences.n if differences else 1)


def test_verdicts_are_said_with_the_rows_and_the_seeds_that_they_stand_on() -> None:
    of_three, of_five = Estimate(1.0, 0.5, 1.5, 3), Estimate(-0.1, -0.4, 0.2, 5)
    lines = [
        line("MAML", None, "baseline"),
        line("Sharp-MAML low", of_three, "more accurate"),
        line("Sharp-MAML up", of_five, "gain excluded"),
        line("Sharp-MAML both", of_five, "gain excluded"),
    ]
    assert pages.decided(lines) == "3 to 5 seeds: more accurate for *low*; gain excluded for *up*, *both*"
    assert pages.decided(lines[2:]) == "5 seeds: gain excluded for *up*, *both*"


def test_of_one_seed_the_differences_are_said_and_that_they_decide_nothing() -> None:
    one = Estimate(-0.125, -math.inf, math.inf, 1)
    lines = [line("MAML", None, "baseline"), line("Sharp-MAML both", one, "one seed decides nothing")]
    assert pages.decided(lines) == "one seed, which decides nothing: *both* -0.12 points"
