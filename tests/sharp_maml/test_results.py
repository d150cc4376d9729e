"""The envelope of results: what it survives, what it refuses, and what it says of the code."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharp_maml import KINDS, RecordError, Result, provenance, read_result, sources, write_result

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(
    kind=st.sampled_from(list(KINDS)),
    origin=st.dictionaries(st.text(), JSON, max_size=3),
    payload=st.dictionaries(st.text(), JSON, max_size=5),
)
def test_a_result_survives_the_disk_with_the_order_of_its_keys(tmp_path_factory, kind, origin, payload):
    path = tmp_path_factory.mktemp("results") / "result.json"
    written = Result(kind, origin, payload)
    write_result(path, written)
    read = read_result(path, kind)
    assert read == written
    assert str(read) == str(written) == path.read_text(encoding="utf-8")
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "kind": kind,
        "schema": KINDS[kind].schema,
        "provenance": origin,
        "payload": payload,
    }


def test_numbers_that_json_does_not_have_are_written_as_what_it_has(tmp_path):
    path = tmp_path / "result.json"
    numbers = {"half": Fraction(1, 2), "single": np.float32(0.5), "none": [math.nan, (math.inf, 1)]}
    write_result(path, Result("method", {}, numbers))
    assert read_result(path, "method").payload == {"half": 0.5, "single": 0.5, "none": [None, [None, 1]]}


def test_what_cannot_be_written_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "result.json"
    write_result(path, Result("method", {}, {"x": 1}))
    with pytest.raises(RecordError, match=r"result\.json: the record cannot be written .*not JSON serializable"):
        write_result(path, Result("method", {}, {"x": object()}))
    assert read_result(path, "method").payload == {"x": 1}


def test_there_is_no_result_of_an_unknown_kind():
    with pytest.raises(RecordError, match=r"kind must be one of table-cell, landscape, .*, got 'landscpae'"):
        Result("landscpae", {}, {})


WHOLE: dict[str, Any] = {"kind": "regime", "schema": KINDS["regime"].schema, "provenance": {}, "payload": {}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "expected a result, a JSON object of kind, schema, provenance and payload"),
        ({"schema": 1, "networks": []}, "expected a result, a JSON object of kind, schema, provenance and payload"),
        ({**WHOLE, "kind": "method"}, "expected a result of kind regime, found 'method'"),
        ({**WHOLE, "schema": 99}, "expected schema 1, found 99: it was written by a newer sharp_maml; upgrade"),
        ({**WHOLE, "schema": 0}, "expected schema 1, found 0: make it with: make regime"),
        ({**WHOLE, "schema": True}, "expected schema 1, found True: make it with: make regime"),
        ({**WHOLE, "payload": []}, r"expected payload to be a JSON object, found \[\]"),
    ],
)
def test_what_is_no_result_of_the_kind_is_refused_by_name(tmp_path, values, message):
    path = tmp_path / "regime.json"
    path.write_text(json.dumps(values))
    with pytest.raises(RecordError, match=rf"regime\.json: {message}"):
        read_result(path, "regime")


def test_a_result_that_is_missing_is_named_with_the_command_that_makes_it(tmp_path):
    with pytest.raises(RecordError, match=r"method\.json is missing; make it with: make method"):
        read_result(tmp_path / "method.json", "method")


def test_a_result_says_which_code_has_changed_since_and_nothing_where_none_has():
    origin = provenance(module="theory.networks.local")
    assert origin["sources"] == sources("theory.networks.local")
    assert Result("regime", origin, {}).caveat == ""
    origin["sources"]["sharp_maml.meta"] = "0" * 16
    said = "**Measured by earlier code**: sharp_maml.meta changed since; `make regime` measures anew."
    assert Result("regime", origin, {}).caveat == said


@pytest.mark.parametrize(("commit", "said"), [("a" * 40, "a" * 10), (None, "unknown")])
def test_a_result_without_digests_says_so(commit, said):
    caveat = Result("method", {"commit": commit, "sources": None}, {}).caveat
    assert caveat == f"Measured before records held digests of their sources, at commit {said}."
