"""A short form of what `tests/torture/numbers.py` measures, its controls, and the tracked record."""

from __future__ import annotations

import contextlib
import copy
import math
from pathlib import Path

import pytest
import torch

from sharp_maml import read_result
from sharp_maml import train as training
from tests.sharp_maml.tiny import tiny_dataset
from tests.torture import numbers

ROOT = Path(__file__).parents[2]
RESULT = read_result(ROOT / "records/numbers.json", "numbers")
RECORD = RESULT.payload


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return numbers.images(tmp_path_factory.mktemp("numbers") / "images")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny data set, and the run that no number spoils."""
    place = tmp_path_factory.mktemp("finite")
    dataset = tiny_dataset(place / "tiny")
    return dataset, numbers.whole_run(dataset, place / "whole")


@pytest.mark.parametrize("stage", numbers.STAGES)
def test_an_infinity_stops_the_run_at_every_stage_and_costs_nothing(stage, tiny, tmp_path):
    dataset, whole = tiny
    assert numbers.lost(stage, math.inf, dataset, tmp_path / "run", whole) == ""


def test_a_number_that_nobody_notices_is_told(tiny, tmp_path, monkeypatch):
    dataset, whole = tiny
    monkeypatch.setitem(numbers.STAGES, "nowhere", lambda value: contextlib.nullcontext())
    assert numbers.lost("nowhere", math.nan, dataset, tmp_path / "one", whole) == "the run went on"
    monkeypatch.setattr(training._Run, "_require_finite_state", lambda self: None)
    said = numbers.lost("Adam's second moment", math.inf, dataset, tmp_path / "two", whole)
    assert said == "the run went on"
    said = numbers.lost("Adam's first moment", math.inf, dataset, tmp_path / "three", whole)
    assert said == "the checkpoint has numbers that are not finite"


@pytest.mark.parametrize("method", numbers.METHODS)
def test_a_meta_gradient_in_float32_is_that_of_float64_up_to_rounding(method, images):
    found = numbers.drift(images, method, 1)
    assert 0 < found["rounding"][1] <= numbers.TOLERANCE["float32"]


@pytest.mark.parametrize("dtype", numbers.DTYPES)
def test_once_more_and_in_threads_of_episodes_are_the_same_bits_and_two_threads_are_close(dtype, images):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one, again = (numbers.fixed(images, dtype) for _ in range(2))
        torch.set_num_threads(2)
        in_threads, two = numbers.fixed(images, dtype, episode_threads=2), numbers.fixed(images, dtype)
    finally:
        torch.set_num_threads(threads)
    for name, value in one.items():
        assert torch.equal(again[name], value)
        assert torch.equal(in_threads[name], value)
        assert (two[name] - value).norm() <= numbers.TOLERANCE[dtype] * value.norm()


@pytest.mark.parametrize("dtype", numbers.DTYPES)
def test_this_machine_computes_the_tracked_losses_and_meta_gradients(dtype, images):
    """Wherever this runs; the record names the processor that it was measured on."""
    found = {name: numbers.summary(value) for name, value in numbers.fixed(images, dtype).items()}
    assert numbers.farthest(found, RECORD["numbers"][dtype]) <= numbers.TOLERANCE[dtype]
    spoiled = found | {"both": [found["both"][0], *(1.001 * value for value in found["both"][1:])]}
    assert numbers.farthest(spoiled, RECORD["numbers"][dtype]) > numbers.TOLERANCE[dtype]


def test_this_machine_computes_the_numbers_of_another_processor():
    found = numbers.another_processor()
    assert found["points"] == 4 * 51 + 9
    assert found["largest"] <= numbers.SIX_DIGITS + numbers.TOLERANCE["float64"]


def test_the_tracked_record_has_every_part_nothing_lost_and_the_page_is_its():
    assert RESULT.provenance["dirty"] is False
    assert RECORD["iterations"] == numbers.ITERATIONS
    assert RECORD["drift"].keys() == numbers.METHODS.keys()
    assert {stage: entry["put in"] for stage, entry in RECORD["faults"].items()} == dict.fromkeys(numbers.STAGES, 3)
    assert RECORD["ways"].keys() == numbers.WAYS.keys()
    assert numbers.outside(RECORD) == []
    page = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    assert page.endswith(numbers.page(RESULT, "../records/numbers.json"))


def test_a_record_with_a_lost_run_other_bits_or_another_number_is_told():
    spoiled = copy.deepcopy(dict(RECORD))
    spoiled["faults"]["the loss"] |= {"lost": 1, "shown": {"nan": "the run went on"}}
    spoiled["ways"]["once more"]["float32"] = 1e-9
    spoiled["ways"]["two processes"]["float64"] = math.nan
    spoiled["another_processor"]["largest"] = 1e-5
    found = numbers.outside(spoiled)
    assert [line.split(":")[0] for line in found] == ["the loss", "once more", "two processes", "another processor"]
