"""What is printed is what the records say, and the command says where it is not."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from publish import __main__ as command
from publish import figures, tables
from publish.fresh import PLACES, bring
from publish.landscapes import flatness, smoothness
from publish.pages import FILLED, assumptions, larger_and_smaller, sensitivities
from reproductions.landscape.accuracy import Point
from reproductions.landscape.measure import MEASURES
from reproductions.sensitivity.measure import CHOICES
from reproductions.study import RECORDS, ROOT
from reproductions.tables.specification import load
from sharp_maml import KINDS, Result, interval_over_seeds, read_records, read_result, write_record, write_result
from tests.reproductions.tables.records_for_tests import TABLE, TIER, record
from theory.check.claim import Item
from theory.check.verdicts import read

CLEAN = {"commit": "c" * 40, "dirty": False, "sources": {}}
FIRST = next(iter(MEASURES))
PAGES = (
    *FILLED,
    "docs/settings.md",
    "docs/tables.md",
    "docs/gpu.md",
    "docs/reliability.md",
    "docs/theory",
    "docs/figures",
)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the records and of all that is printed from them."""
    place = tmp_path_factory.mktemp("checkout")
    for name in ("records", *PAGES):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, place / name)
    return place


@pytest.fixture
def verdicts_once(monkeypatch):
    """The verdicts of the repository, read once."""
    found = read(RECORDS / "theory")
    monkeypatch.setattr(command, "read", lambda _: found)


def files(place: Path) -> dict[Path, bytes]:
    """All that is tracked: figures as lines lie beside those as pixels, and are not."""
    return {path: path.read_bytes() for path in place.rglob("*") if path.is_file() and path.suffix != ".pdf"}


def test_what_is_printed_is_what_the_records_say(capsys):
    assert command.main(["--check"]) == 0, f"write it anew, `make publish`: {capsys.readouterr().out}"


def test_a_changed_number_is_found_wherever_it_is_printed_and_written_there(checkout, verdicts_once, capsys):
    path = checkout / "records/bench/speed.json"
    speed = read_result(path, "speed")
    speed.payload["rows"][0]["median_seconds"]["ours"] = 123.45
    write_result(path, speed)
    before = files(checkout)
    assert command.main(["--check"], checkout) == 1
    expected = {"README.md", "docs/performance.md", "docs/figures/performance.png"}
    assert set(capsys.readouterr().out.splitlines()) == {f"{name} is out of date" for name in expected}
    assert files(checkout) == before
    assert command.main([], checkout) == 0
    after = files(checkout)
    assert {str(path.relative_to(checkout)) for path in after if after[path] != before[path]} == expected
    assert "| 123.45 |" in (checkout / "README.md").read_text(encoding="utf-8")
    assert command.main(["--check"], checkout) == 0


def test_a_record_that_is_missing_is_named_with_the_command_that_makes_it(checkout, verdicts_once, capsys):
    path = checkout / "records/theory/regime.json"
    hidden = path.rename(path.with_suffix(".hidden"))
    assert command.main(["--check"], checkout) == 2
    hidden.rename(path)
    assert "regime.json is missing; make it with: make regime" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--only", "theory"], ["--networks"], ["--check", "--from", "results"]])
def test_options_that_do_not_go_together_are_refused(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(arguments)
    assert "error: --" in capsys.readouterr().err


def test_every_tracked_record_is_a_result_of_a_known_kind_by_committed_code():
    kinds = {
        path: kind
        for place, kind in {
            **PLACES,
            "tables/*/*.json": "table-cell",
            "bench/two-cores.json": "two-cores",
            "bench/xeon.json": "speed",
        }.items()
        for path in RECORDS.glob(place)
    }
    assert set(kinds) == set(RECORDS.rglob("*.json"))
    assert set(KINDS) - set(kinds.values()) <= {"sensitivity", "alarms", "gpu"}
    for path, kind in kinds.items():
        result = read_result(path, kind)
        assert result.provenance["dirty"] is False, path
        assert str(result) == path.read_text(encoding="utf-8"), path


def test_a_figure_holds_the_digest_of_its_records_and_its_pixels_are_as_drawn(tmp_path):
    path = tmp_path / "figure.png"
    picture = Image.effect_noise((30, 20), 50)
    drawing = figures.Drawing("a record", picture.save)
    figures.write(path, drawing)
    assert figures.digest_of(path) == drawing.digest
    with Image.open(path) as image:
        assert image.tobytes() == picture.tobytes()
    assert figures.digest_of(tmp_path / "nothing.png") is None
    picture.save(path)
    assert figures.digest_of(path) is None


def test_cells_are_counted_as_larger_and_smaller_where_that_is_decided():
    labels = {"a": 99, "b": 1, "c": 50, "chosen d": 100, "chosen e": 40}
    items = [Item.share(label, count, 100, 0.5) for label, count in labels.items()]
    assert larger_and_smaller(items) == (
        "larger in 1 and smaller in 2 of 5 cells (landscape, start, alpha, constant or decaying radius), the others "
        "being undecided; with the best alpha for each, smaller in 1 of the 2 cells"
    )


def test_decisions_on_a_landscape_are_counted_by_row():
    lines = [
        {"row": row, "verdict": "not decided", "difference": {"n": 5}, "p": 0.3 - 0.02 * place}
        for row in ("low", "up")
        for place in range(len(MEASURES))
    ]
    lines[-1]["p"] = 0.01
    nearest = "; the smallest p is 0.01 (*up, chosen radius*), and Holm asks for 0.0042"
    assert smoothness(lines, {"low": "low", "up": "up, chosen radius"}).endswith(f"none{nearest}")
    lines[0]["verdict"] = lines[1]["verdict"] = "smoother"
    said = "5 seeds: smoother in 2 (*low*), 0 (*up, chosen radius*) of 6 measures; less smooth in "
    named = {"low": "low", "up": "up, chosen radius"}
    assert smoothness(lines, named) == f"{said}none"
    lines[-1]["verdict"] = "less smooth"
    assert smoothness(lines, named) == f"{said}1"


def test_flat_networks_are_said_to_be_more_accurate_where_the_interval_of_the_rank_correlation_says_so():
    def network(row: str, seed: int, test: float, eigenvalue: float) -> Point:
        return Point(row, seed, test, test + seed, dict.fromkeys(MEASURES, 1.0 + seed % 3) | {FIRST: eigenvalue})

    named = {"low": "low"}
    flat = [
        network(row, seed, 30 + seed + i, -seed - i / 2) for seed in range(6) for i, row in enumerate(("maml", "low"))
    ]
    assert "are more accurate in 1 of 6 measures, less accurate in none" in flatness(flat, named)
    assert flatness(flat, named).endswith("in points less MAML's: *low* +0.00 [0.00, 0.00]")
    sharp = [replace(point, sharpness=point.sharpness | {FIRST: -point.sharpness[FIRST]}) for point in flat]
    assert "are more accurate in none of 6 measures, less accurate in 1" in flatness(sharp, named)
    assert "over 12 networks" in flatness(sharp, named)


@pytest.mark.parametrize(("gain", "words"), [(1.9, "less than"), (1.5, "the largest not less than")])
def test_how_far_the_protocol_moves_a_number_stands_beside_the_smallest_gain(tmp_path, gain, words):
    moved = {name: 0.25 * place for place, name in enumerate(CHOICES)}
    accuracies = {str(seed): {name: 30 + seed + shift for name, shift in moved.items()} for seed in range(3)}
    payload = {"label": "MAML", "gains": {"low": gain, "both": 2.5}, "accuracies": accuracies}
    write_result(tmp_path / "sensitivity/cpu.json", Result("sensitivity", CLEAN, payload))
    found = sensitivities(tmp_path)
    assert found["sensitivity-cpu-range"] == f"0.25 to 1.75 points, {words} the smallest gain printed"
    assert "| 1 test step | +0.25 | [0.25, 0.25] |" in found["sensitivity-cpu"]
    assert "MAML, tier cpu, 3 networks; commit cccccccccc." in found["sensitivity-cpu"]


def test_curves_of_a_larger_budget_stand_beside_those_of_the_same_rows_at_a_smaller_one():
    tables_of, tiers = load()
    for larger, smaller in tables.BESIDE.items():
        rows, others = ({row.name for row in tables_of[tiers[name].tables[0]].rows} for name in (larger, smaller))
        assert rows <= others
        assert tiers[larger].data == tiers[smaller].data
    ends = {"maml": 0.5, "low": 0.25}
    records = [
        record(row, learning_curve=[{"step": 6, "loss": 1.0, "validation_accuracy": end}]) for row, end in ends.items()
    ]
    said = "On the validation classes, with one seed, MAML ends highest, at 50.0 %, and Sharp-MAML low at 25.0 %."
    small = tables.Shown(TABLE, replace(TIER, name="small"), records[:1])
    one, both = tables.Shown(TABLE, TIER, records), tables.Shown(TABLE, TIER, records, beside=small)
    assert one.shows_in_curves == said + repr([(each.name, 0, each.learning_curve) for each in records])
    assert both.shows_in_curves == f"Tier {TIER.name}: o{said[1:]}" + repr(
        [(each.name, 0, each.learning_curve) for each in records[:1] + records]
    )


def test_checkpoints_that_are_judged_otherwise_are_compared_seed_by_seed_without_verdicts():
    """A gain of 2 and of 4 points with one test step, none in support mode; what was not measured is a dash."""
    way = "accuracy_transductive, test_steps 1"

    def judged(row: str, seed: int, percent: float):
        made = record(row, seed)
        return replace(made, metrics={**made.metrics, way: interval_over_seeds([percent / 100], unit="fraction")})

    made = [judged("maml", 0, 40), judged("maml", 1, 41), judged("low", 0, 42), judged("low", 1, 45)]
    tier = replace(TIER, also=({"test_steps": 1}, {"split": "train"}))
    half = stats.t.ppf(0.975, 1) * np.std([2, 4], ddof=1) / np.sqrt(2)
    assert tables.Shown(
        TABLE, tier, [*made, record("matching", 1), record("low", 2)]
    ).judged_otherwise.splitlines() == [
        "Other test steps and batch statistics with these checkpoints, secondary and without verdicts: "
        "difference to MAML, 95% over seeds.",
        "",
        "| Method | 1 test step | support-set norm |",
        "| --- | --: | --: |",
        "| Matching Nets | — | +0.00 [one run: no interval] |",
        f"| Sharp-MAML low | +3.00 [{3 - half:.2f}, {3 + half:.2f}] | +0.00 [0.00, 0.00] |",
    ]
    assert tables.Shown(TABLE, TIER, made).judged_otherwise == ""
    assert tables.Shown(replace(TABLE, split="validation"), tier, made).judged_otherwise == ""


def test_a_mark_that_no_record_fills_is_named(checkout, verdicts_once, capsys):
    page = checkout / "README.md"
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace("<!-- landscape-demo: begin -->", "<!-- landscape-moon: begin -->"), encoding="utf-8")
    assert command.main([], checkout) == 2
    assert "README.md: nothing is printed between the marks 'landscape-moon'" in capsys.readouterr().err
    page.write_text(text, encoding="utf-8")


def test_the_ledger_says_what_the_theorem_asks_at_the_trained_networks_of_the_record():
    record = read_result(RECORDS / "theory/regime.json", "regime").payload
    trained = [network for network in record["networks"] if network["state"] == "best"]
    assert 0 < len(trained) < len(record["networks"])
    by_sgd = [network for network in trained if network["config"]["optimizer"] == "sgd"]
    steps = [one["config"]["beta_up"] * max(batch["L_F"] for batch in one["meta_batches"]) for one in by_sgd]
    head, _, step, *rest = assumptions(RECORDS)["regime"].strip().splitlines()
    column = [cell.strip() for cell in head.split("|")].index("synthetic images, 16 pixels, SGD")
    assert f", above 1 at {sum(step > 1 for step in steps)} of {len(steps)} " in step.split("|")[column]
    assert len(rest) == 7


@pytest.fixture
def results(tmp_path) -> Path:
    """Fresh results: two studies, and a cell of a table."""
    write_result(tmp_path / "results/method.json", Result("method", CLEAN, {"x": 1}))
    write_result(tmp_path / "results/theory/regime.json", Result("regime", CLEAN, {"x": 2}))
    (record,) = read_records(RECORDS / "tables/demo/maml-seed0.json")
    write_record(tmp_path / "results/demo/maml/seed0/record.json", record)
    return tmp_path / "results"


def test_fresh_results_are_brought_to_their_places_all_or_those_that_are_named(results, tmp_path):
    every = ["method.json", "tables/demo/maml-seed0.json", "theory/regime.json"]
    for only, names in {(): every, ("theory", "tables/demo"): every[1:], ("method.json",): every[:1]}.items():
        records = tmp_path / f"records{len(only)}"
        assert bring(results, records, only)
        found = sorted(str(path.relative_to(records)) for path in records.rglob("*.json"))
        assert found == names
    assert read_result(records / "method.json", "method") == Result("method", CLEAN, {"x": 1})


@pytest.mark.parametrize(
    ("name", "result", "message"),
    [
        ("method.json", Result("method", {**CLEAN, "dirty": True}, {}), "made with uncommitted changes"),
        (
            "theory/claims/x.json",
            Result("claim", {**CLEAN, "budget": {"name": "test"}}, {}),
            "claims of the full budget",
        ),
        ("bench/speed.json", Result("speed", CLEAN, {"rows": []}), "of a quick or unfinished run"),
        ("bench/gpu.json", Result("gpu", CLEAN, {"training": {"maml": {}}}), "of an unfinished run; go on with"),
        ("method.json", Result("regime", CLEAN, {}), "expected a result of kind method, found 'regime'"),
    ],
)
def test_what_could_not_be_made_again_is_refused_and_nothing_is_brought(results, tmp_path, name, result, message):
    write_result(results / name, result)
    with pytest.raises(ValueError, match=rf"{Path(name).name}: .*{message}"):
        bring(results, tmp_path / "records")
    assert not (tmp_path / "records").exists()


def test_a_cell_of_uncommitted_code_is_refused_before_anything_is_brought(results, tmp_path):
    path = results / "demo/maml/seed0/record.json"
    (record,) = read_records(path)
    write_record(path, replace(record, provenance={**record.provenance, "dirty": True}))
    with pytest.raises(ValueError, match="made with uncommitted changes"):
        bring(results, tmp_path / "records")
    assert not (tmp_path / "records").exists()


def test_where_there_is_nothing_to_bring_it_says_so(results, tmp_path):
    with pytest.raises(ValueError, match=r"has nothing that records could take of theory/certificate\.json"):
        bring(results, tmp_path / "records", ["theory/certificate.json"])
