"""The landscape's decisions, with controls; and the whole command on the smoke tier."""

from __future__ import annotations

import io
import re
import shutil

import numpy as np
import pytest
from rich.console import Console

from reproductions.landscape.__main__ import main
from reproductions.landscape.decide import decide
from reproductions.landscape.figures import decisions as shown_decisions
from reproductions.landscape.figures import landscapes
from reproductions.landscape.measure import MEASURES, SMOKE
from reproductions.study import RECORDS
from reproductions.tables.__main__ import main as train_table
from sharp_maml import Estimate, read_result

ROWS = ("maml", "low", "up", "both")


def tracked():
    """What the repository's record of the demo tier holds."""
    return read_result(RECORDS / "landscape/demo.json", "landscape").payload


def cells(shift, noise=0.1, seeds=6):
    """Measured cells in which every variant's measures are MAML's plus a shift; what seeds do to all is shared."""
    generator = np.random.default_rng(0)
    shared = generator.normal(scale=10, size=seeds)
    return [
        {"row": row, "seed": seed}
        | {name: shared[seed] + generator.normal(scale=noise) + (shift if row != "maml" else 0) for name in MEASURES}
        for row in ROWS
        for seed in range(seeds)
    ]


@pytest.mark.parametrize(("shift", "verdict"), [(-2.0, "smoother"), (2.0, "less smooth"), (0.0, "not decided")])
def test_the_paired_difference_decides_three_ways(shift, verdict):
    lines = decide(cells(shift))
    assert len(lines) == 3 * len(MEASURES)
    assert {line["verdict"] for line in lines} == {verdict}


def test_noise_between_seeds_that_methods_share_does_not_hide_a_difference_and_own_noise_does():
    assert {line["verdict"] for line in decide(cells(-2.0, noise=30.0))} == {"not decided"}


def test_one_seed_decides_nothing():
    lines = decide(cells(-2.0, seeds=1))
    assert {line["verdict"] for line in lines} == {"not decided"}
    assert all(Estimate.from_dict(line["difference"]).low == -np.inf for line in lines)


def test_verdicts_are_corrected_for_their_number():
    """A difference that one t-test would take for real at 5 per cent is not taken where 18 are made."""
    measured = cells(0.0)
    for cell in measured:
        if cell["row"] == "low":
            base = next(c for c in measured if c["row"] == "maml" and c["seed"] == cell["seed"])
            cell["rise"] = base["rise"] - 1 + [0.9, -0.6, 0.3, -0.7, 0.4, 0.1][cell["seed"]]
    line = next(line for line in decide(measured) if (line["row"], line["measure"]) == ("low", "rise"))
    assert line["p"] < 0.05
    assert line["verdict"] == "not decided"


def test_a_missing_checkpoint_names_the_command_that_trains_it(tmp_path, capsys):
    assert main(["--tier", "smoke", "--results", str(tmp_path)]) == 2
    assert "make reproduce-table1 TABLE=landscape TIER=smoke SEEDS=1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["maml", "flat"], "unknown rows ['flat']; networks that adapt are those of ['maml', 'low', "),
        (["low", "up"], "--rows must have maml, which the others are compared with"),
        (["maml", "maml"], "and one of those at least"),
    ],
)
def test_rows_that_cannot_be_compared_are_refused(tmp_path, capsys, rows, message):
    assert main(["--tier", "smoke", "--results", str(tmp_path), "--rows", *rows]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_measures_trained_networks_and_goes_on_where_it_was(tmp_path, capsys):
    trained = ["--tier", "smoke", "--results", str(tmp_path), "--table", "landscape", "--allow-dirty"]
    assert train_table(trained) == 0
    command = ["--tier", "smoke", "--results", str(tmp_path)]
    assert main(command) == 0
    path = tmp_path / "landscape" / "smoke.json"
    result = read_result(path, "landscape")
    record = result.payload
    assert "reproductions.landscape.measure" in result.provenance["sources"]
    assert result.caveat == ""
    assert path.with_suffix(".png").stat().st_size > 10_000
    middle = SMOKE.points // 2
    for cell in record["cells"]:
        assert cell["plane"][middle][middle] == pytest.approx(cell["meta_loss"], rel=1e-4)
    capsys.readouterr()
    assert main(command) == 0
    assert "measured" not in capsys.readouterr().out
    assert read_result(path, "landscape").payload["cells"] == record["cells"]
    assert main([*command, "--rows", "up", "maml"]) == 0
    assert {cell["row"] for cell in read_result(path, "landscape").payload["cells"]} == {"up", "maml"}
    assert main([*command, "--seeds", "2"]) == 0  # the second was not trained
    assert re.search(r"networks\s+are\s+missing\s+in\s+\S+:\s+seeds\s+6\b", capsys.readouterr().out)
    assert read_result(path, "landscape").payload["cells"] == record["cells"]
    known = path.rename(tmp_path / "known.json")
    shutil.rmtree(tmp_path / "smoke")
    assert main([*command, "--known", str(known)]) == 0  # of networks that are gone, too
    assert read_result(path, "landscape") == read_result(known, "landscape")


def test_the_tracked_record_was_made_by_committed_code_and_its_decisions_are_todays():
    record = tracked()
    assert all(not cell["measured"]["dirty"] and not cell["trained"]["dirty"] for cell in record["cells"])
    assert decide(record["cells"]) == record["decisions"]


@pytest.mark.parametrize("width", [80, 100])
def test_the_tracked_decisions_fit_the_terminal(width):
    record, shown = tracked(), io.StringIO()
    Console(file=shown, width=width).print(shown_decisions(record))
    assert max(map(len, shown.getvalue().splitlines())) <= width
    assert "…" not in shown.getvalue()
    for line in record["decisions"]:
        difference = line["difference"]
        assert f"{difference['mean']:+.3g} [{difference['low']:.3g}, {difference['high']:.3g}]" in shown.getvalue()
    for verdict in ("smoother", "less smooth", "not decided"):
        count = sum(line["verdict"] == verdict for line in record["decisions"])
        assert len(re.findall(rf"\d  {verdict}\s*$", shown.getvalue(), re.MULTILINE)) == count


def test_more_than_four_variants_are_drawn_in_two_rows_of_planes(tmp_path):
    record = tracked()
    more = [{**cell, "row": f"{cell['row']}-chosen"} for cell in record["cells"] if cell["row"] != "maml"]
    measured = [*record["cells"], *more]
    labels = record["labels"] | {f"{row}-chosen": f"Sharp-MAML {row}, chosen radius" for row in ROWS[1:]}
    decisions = decide(measured)
    assert {line["row"] for line in decisions} == labels.keys() - {"maml"}
    figure = landscapes({**record, "cells": measured, "labels": labels, "decisions": decisions})
    figure.savefig(tmp_path / "landscape.png", dpi=50)
    planes = [axes for axes in figure.axes if axes.get_title().replace("\n", " ") in labels.values()]
    assert len(planes) == 7
    assert len({round(axes.get_position().y0, 3) for axes in planes}) == 2
