"""The study of counts: its tracked record, its page, and the command on a few instances."""

from __future__ import annotations

import torch

from sharp_maml import read_result
from theory.check.verdicts import TRACKED
from theory.networks import counts
from theory.networks.counts import main, paired, table, tally
from theory.networks.search import Sines, search


def record():
    return read_result(TRACKED / "counts.json", "counts").payload


def test_the_tracked_record_has_200_instances_and_no_contradiction() -> None:
    found = record()
    instances = [one for cell in found["cells"] for one in cell["instances"]]
    certified = [one for one in instances if one["certified"]]
    assert len(certified) >= 200
    assert all(one["found"] <= one["points"] and one["outside"] == 0 for one in certified)
    assert all(one["certified"] or one["undetermined"] for one in instances)
    assert all(row["starts"] >= 1000 for row in found["indices"])


def test_a_tally_counts_pairs_and_leaves_out_what_is_open() -> None:
    one, three, open_ = ({"points": n, "certified": ok} for n, ok in ((1, True), (3, True), (9, False)))
    assert tally([(one, three), (three, three), (three, one), (open_, one)], "points") == {
        "fewer": 1, "as many": 1, "more": 1, "undetermined": 1
    }  # fmt: skip
    assert all(len(pairs) for pairs in paired(record()).values())


def test_the_command_measures_and_writes(tmp_path, monkeypatch, capsys) -> None:
    shape = counts.SHAPES[1]
    these = [{"shape": shape, "tasks": 1, "shared": True, "ratio": ratio} for ratio in (counts.Q(0), counts.Q(2))]
    monkeypatch.setattr(counts, "cells", lambda: these)
    assert main(["--share", "0.2", "--index-starts", "4", "--output", str(tmp_path)]) == 0
    page = (tmp_path / "COUNTS.md").read_text()
    assert page == table(read_result(tmp_path / "counts.json", "counts"), "counts.json")
    assert (tmp_path / "counts.png").stat().st_size > 10_000
    assert "2 instances, of which 2 are certified" in page
    assert "1 of 1" in capsys.readouterr().out


def test_newton_finds_the_three_points_of_a_double_well_with_their_indices() -> None:
    start = torch.linspace(-2, 2, 16, dtype=torch.float64)[:, None].expand(-1, 2)
    (found,) = search(lambda x, a: (x[0] ** 2 - a) ** 2 + x[1] ** 2, start[None], torch.tensor([1.0]).double())
    assert sorted(found.points[:, 0].round(9) + 0.0) == [-1.0, 0.0, 1.0]
    assert set(zip(found.indices.tolist(), found.values.round(9).tolist(), strict=True)) == {(0, 0.0), (1, 1.0)}


def test_the_indices_of_a_network_are_of_starts_that_ended() -> None:
    found = Sines(tasks=2, seed=1).indices(0.05, starts=20, seed=0)
    assert sum(found["by_index"].values()) == found["ended"] <= 20
    assert all(1 <= found["distinct"][i] <= n for i, n in found["by_index"].items())
