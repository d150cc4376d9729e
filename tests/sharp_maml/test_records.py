from __future__ import annotations

import dataclasses
import json
import math
import platform
import socket
import subprocess
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharp_maml import records
from sharp_maml.config import Config
from sharp_maml.estimates import Estimate, interval_over_episodes
from sharp_maml.records import (
    Record,
    RecordError,
    decode_accuracies,
    encode_accuracies,
    joined,
    provenance,
    read_records,
    write_record,
)

PROTOCOL = {
    "ways": 5,
    "shots": 1,
    "queries": 15,
    "test_steps": 5,
    "batch_norm": "transductive",
    "split": "test",
    "episodes": 3,
    "evaluation_seed": 0,
    "selection": "best on validation",
}


def record(**changes: Any) -> Record:
    accuracies = [15 / 75, 30 / 75, 75 / 75]
    config = Config(seed=3)
    values: dict[str, Any] = {
        "name": "maml",
        "config": config.to_dict(),
        "config_digest": config.digest,
        "provenance": {"commit": None, "dirty": None, "torch": "2.13.0"},
        "seed": 3,
        "dtype": "float32",
        "data_name": "miniImageNet",
        "data_digest": "d" * 64,
        "protocol": PROTOCOL,
        "episodes_digest": "e" * 64,
        "accuracies": {"transductive": accuracies, "support": accuracies[::-1]},
        "started": "2025-11-23T19:00:00+00:00",
        "seconds": 12.5,
        "peak_memory_bytes": 2**30,
        "metrics": {"accuracy": interval_over_episodes(accuracies)},
        "selected_step": 1000,
        "learning_curve": [{"step": 1000, "loss": 1.5, "validation_accuracy": 0.3}],
    }
    return Record(**{**values, **changes})


def changed(folder: Path, change: dict[str, Any], without: str = "") -> Path:
    """A record file of today's form with some fields of its payload changed and one taken out."""
    path = folder / "record.json"
    write_record(path, record())
    result = json.loads(path.read_text())
    result["payload"] |= change
    result["payload"].pop(without, None)
    path.write_text(json.dumps(result))
    return path


def earlier(folder: Path, **change: Any) -> Path:
    """A record file as it was before there was an envelope: the fields, among them schema and provenance, flat."""
    path = folder / "record.json"
    path.write_text(json.dumps(record().to_dict() | change))
    return path


finite = st.floats(allow_nan=False, allow_infinity=False)
fractions = st.integers(1, 200).flatmap(
    lambda denominator: st.tuples(
        st.lists(st.integers(0, denominator).map(lambda count: count / denominator)), st.just(denominator)
    )
)


@given(
    counts=st.lists(st.integers(0, 75), max_size=50),
    seconds=st.floats(0, 1e6) | st.integers(0, 10),
    curve=st.lists(st.dictionaries(st.sampled_from(["step", "loss", "validation_accuracy"]), finite | st.none())),
    free=st.dictionaries(st.text(), st.none() | st.booleans() | finite | st.text() | st.lists(st.text())),
    value=finite,
)
def test_a_record_survives_the_disk(
    tmp_path_factory: pytest.TempPathFactory,
    counts: list[int],
    seconds: float,
    curve: list[dict[str, float | None]],
    free: dict[str, Any],
    value: float,
) -> None:
    path = tmp_path_factory.mktemp("records") / "record.json"
    written = record(
        accuracies={"transductive": [count / 75 for count in counts]},
        protocol={**free, **PROTOCOL, "episodes": len(counts)},
        provenance=free,
        seconds=seconds,
        learning_curve=curve,
        metrics={"one seed": Estimate(value, -math.inf, math.inf, 1, "%"), "many": Estimate(value, value, value, 9)},
    )
    write_record(path, written)
    first = path.read_bytes()
    (read,) = read_records(path)
    assert read == written
    write_record(path, read)
    assert path.read_bytes() == first


@given(fractions)
def test_accuracies_survive_their_encoding(case: tuple[list[float], int]) -> None:
    accuracies, denominator = case
    assert decode_accuracies(encode_accuracies(accuracies, denominator)) == accuracies


@given(fractions)
def test_accuracies_in_single_precision_are_read_as_the_fractions_that_they_are(case: tuple[list[float], int]) -> None:
    accuracies, denominator = case
    rounded = [float(np.float32(accuracy)) for accuracy in accuracies]
    assert decode_accuracies(encode_accuracies(rounded, denominator)) == accuracies


def test_accuracies_are_written_as_counts() -> None:
    assert encode_accuracies([0.2, 0.4, 0.0, 1.0], 75) == "75: 15 30 0 75"


@pytest.mark.parametrize("accuracy", [0.5, -1 / 75, 76 / 75, math.nan, math.inf])
def test_an_accuracy_that_is_no_fraction_of_the_queries_is_refused(accuracy: float) -> None:
    with pytest.raises(RecordError, match=r"an accuracy must be one of 0, 1/75, \.\.\., 1, got"):
        encode_accuracies([accuracy], 75)


@pytest.mark.parametrize("text", ["", "75", "75: one", "0: 0", "x: 1", "75: 1: 2", None, 3])
def test_a_text_that_holds_no_accuracies_is_refused(text: Any) -> None:
    with pytest.raises(RecordError, match="accuracies must be written as"):
        decode_accuracies(text)


@pytest.mark.parametrize("text", ["75: 76", "75: -1", "-75: 1"])
def test_a_count_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(RecordError, match="a count must be between 0 and the denominator"):
        decode_accuracies(text)


def test_the_text_of_a_record_has_the_schema_first_and_small_things_on_one_line(tmp_path: Path) -> None:
    write_record(tmp_path / "record.json", record())
    lines = (tmp_path / "record.json").read_text().splitlines()
    assert lines[:3] == ["{", ' "kind": "table-cell",', ' "schema": 3,']
    assert lines[4:6] == [' "payload": {', '  "name": "maml",']
    assert '  "accuracies": {"support": "75: 75 30 15", "transductive": "75: 15 30 75"},' in lines
    assert all(len(line) <= 120 for line in lines)


def test_a_long_list_has_one_entry_a_line(tmp_path: Path) -> None:
    curve: list[dict[str, float | None]] = [
        {"step": step, "loss": 1.5, "validation_accuracy": 0.25} for step in range(1000, 60_001, 1000)
    ]
    write_record(tmp_path / "record.json", record(learning_curve=curve))
    text = (tmp_path / "record.json").read_text()
    assert '\n   {"loss": 1.5, "step": 1000, "validation_accuracy": 0.25},\n' in text
    assert read_records(tmp_path)[0].learning_curve == curve


def test_the_order_of_keys_does_not_change_the_text(tmp_path: Path) -> None:
    write_record(tmp_path / "a.json", record())
    write_record(tmp_path / "b.json", record(protocol=dict(reversed(PROTOCOL.items()))))
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_what_is_not_finite_is_null(tmp_path: Path) -> None:
    curve: list[dict[str, float | None]] = [{"step": 1, "loss": math.nan, "validation_accuracy": 0.2}]
    provenance = {"pair": (1.0, math.inf)}
    write_record(tmp_path / "record.json", record(learning_curve=curve, provenance=provenance))
    read = read_records(tmp_path)[0]
    assert read.learning_curve == [{"step": 1, "loss": None, "validation_accuracy": 0.2}]
    assert read.provenance == {"pair": [1.0, None]}


def test_a_record_that_json_cannot_hold_is_refused_and_leaves_the_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_record(path, record())
    with pytest.raises(RecordError, match=r"record\.json: the record cannot be written .*not JSON serializable"):
        write_record(path, record(provenance={"tensor": torch.ones(1)}))
    assert read_records(path) == [record()]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match=r"file/record\.json: the record cannot be written"):
        write_record(tmp_path / "file" / "record.json", record())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": "3"}, "seed must be of type int, got '3'"),
        ({"seed": True}, "seed must be of type int, got True"),
        ({"seconds": "long"}, "seconds must be of type float, got 'long'"),
        ({"learning_curve": {}}, "learning_curve must be of type list"),
        ({"protocol": {"ways": 5}}, "protocol must name ways, .*; it leaves out shots, queries, test_steps"),
        ({"protocol": {**PROTOCOL, "ways": "5"}}, "ways and queries of the protocol must be whole numbers, got '5'"),
        ({"accuracies": {"support": [0.2]}}, r"accuracies\['support'\] must be one an episode, 3, got 1"),
        ({"accuracies": {"support": [0.2, 0.2, 0.5]}}, "an accuracy must be one of 0, 1/75, ..., 1, got 0.5"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        record(**change)


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        record().seed = 1  # type: ignore[misc]


def test_a_directory_is_read_in_the_order_of_its_paths(tmp_path: Path) -> None:
    for name in ("b", "a/x", "c"):
        write_record(tmp_path / f"{name}.json", record(name=name))
    assert [read.name for read in read_records(tmp_path)] == ["a/x", "b", "c"]


def test_run_directories_are_read_without_their_configs(tmp_path: Path) -> None:
    write_record(tmp_path / "maml" / "seed3" / "record.json", record())
    (tmp_path / "maml" / "seed3" / "config.json").write_text(json.dumps(Config().to_dict()))
    assert read_records(str(tmp_path), pattern="**/record.json") == [record()]


def test_several_paths_are_read_in_the_order_given(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_record(tmp_path / f"{name}.json", record(name=name))
    assert [read.name for read in read_records([tmp_path / "b.json", str(tmp_path)])] == ["b", "a", "b"]


def test_an_empty_directory_has_no_records(tmp_path: Path) -> None:
    assert read_records(tmp_path) == []


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="nowhere: the record cannot be read"):
        read_records(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"<html></html>", b"\xff\xfe", b"[" * 100_000],
    ids=["empty", "cut", "html", "bytes", "nested"],
)
def test_a_file_that_is_not_json_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "record.json").write_bytes(content)
    with pytest.raises(RecordError, match=r"record\.json: expected a JSON record, found"):
        read_records(tmp_path)


@pytest.mark.parametrize("content", ["[]", "3", '{"schema": "1"}', '{"ways": 5}'])
def test_json_that_is_no_record_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "record.json").write_text(content)
    with pytest.raises(RecordError, match=r"record\.json: expected a record, a JSON object with a schema number"):
        read_records(tmp_path)


def test_a_record_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"record\.json: expected schema 3 or older, found 4: .*upgrade"):
        read_records(earlier(tmp_path, schema=4))


def test_records_of_all_forms_that_there_were_are_read_as_one(tmp_path: Path) -> None:
    """Schema 1 had another digest of the configuration, 1 and 2 had no envelope."""
    assert read_records(earlier(tmp_path, schema=1, config_digest="0" * 64)) == [record()]
    assert read_records(earlier(tmp_path, schema=2)) == [record()]
    assert read_records(changed(tmp_path, {})) == [record()]


def test_a_record_of_schema_1_with_unknown_settings_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"record\.json: .*config are not as they are written.*unknown setting"):
        read_records(earlier(tmp_path, schema=1, config={"setps": 1}))


def test_a_missing_and_an_unknown_field_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"record\.json: .*missing: data_digest, unknown: data_digset"):
        read_records(changed(tmp_path, {"data_digset": "d"}, without="data_digest"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accuracies": []}, "accuracies, metrics or config are not as they are written"),
        ({"accuracies": {"support": "75: 76"}}, "a count must be between 0 and the denominator 75"),
        ({"metrics": {"accuracy": 0.5}}, "accuracies, metrics or config are not as they are written"),
        ({"metrics": {"accuracy": {"mean": 0.5}}}, "accuracies, metrics or config are not as they are written"),
        ({"name": 3}, "name must be of type str, got 3"),
    ],
)
def test_a_field_in_another_form_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecordError, match=rf"record\.json: .*{message}"):
        read_records(changed(tmp_path, change))


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", *identity, "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git checkout with a file of code, a record and a result; the repository's own rules say which is which."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("sharp_maml/code.py", "records/tables/demo/maml.json", "docs/theory/REPORT.md"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("one\n")
    rules = Path(__file__).parents[2] / ".gitattributes"
    (tmp_path / rules.name).write_text(rules.read_text(encoding="utf-8"), encoding="utf-8")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "one")
    return tmp_path


def test_a_clean_checkout_is_its_commit(checkout: Path) -> None:
    assert records._commit(checkout / "sharp_maml" / "code.py") == (git(checkout, "rev-parse", "HEAD"), False)


@pytest.mark.parametrize(
    ("changed_file", "dirty"),
    [
        ("sharp_maml/code.py", True),
        ("sharp_maml/new.py", True),
        ("README.md", True),
        ("records/tables/demo/maml.json", False),
        ("records/tables/demo/low.json", False),
        ("reproductions/code.py", True),
        ("docs/theory/REPORT.md", False),
        ("docs/figures/landscape.png", False),
        ("docs/reliability.md", False),
        ("docs/page.md", True),
    ],
)
def test_only_a_change_outside_the_results_makes_a_commit_dirty(checkout: Path, changed_file: str, dirty: bool) -> None:
    (checkout / changed_file).parent.mkdir(exist_ok=True)
    (checkout / changed_file).write_text("two\n")
    assert records._commit(checkout / "sharp_maml" / "code.py")[1] is dirty


def test_a_result_that_is_taken_away_to_be_made_anew_leaves_the_commit_clean(checkout: Path) -> None:
    (checkout / "records/tables/demo/maml.json").unlink()
    assert records._commit(checkout / "sharp_maml" / "code.py")[1] is False


def test_a_git_that_runs_a_hook_elsewhere_does_not_mislead(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(checkout / "nowhere"))
    assert records._commit(checkout / "sharp_maml" / "code.py") == (commit, False)


def test_code_that_is_installed_inside_a_checkout_has_no_commit(checkout: Path) -> None:
    (checkout / "installed.py").write_text("")
    assert records._commit(checkout / "installed.py") == (None, None)


def test_a_machine_without_git_has_no_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert records._commit(checkout / "sharp_maml" / "code.py") == (None, None)


def test_the_provenance_names_versions_and_device_but_not_the_machine() -> None:
    found = provenance()
    assert (found["python"], found["torch"]) == (platform.python_version(), torch.__version__)
    assert (found["numpy"], found["threads"]) == (np.__version__, torch.get_num_threads())
    assert found["device"]
    assert socket.gethostname() not in found.values()


@pytest.mark.parametrize("installed", [True, False])
def test_the_version_is_that_of_the_installed_package(monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    def version(name: str) -> str:
        if not installed:
            raise PackageNotFoundError(name)
        return "0.1.0"

    monkeypatch.setattr("importlib.metadata.version", version)
    assert provenance()["sharp_maml"] == ("0.1.0" if installed else None)


def test_the_device_of_a_gpu_run_is_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: f"GPU behind {device}")
    assert provenance("cuda:1")["device"] == "GPU behind cuda:1"


def test_the_processor_is_named_by_its_model(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n")
    assert records._processor(tmp_path / "cpuinfo") == "Some CPU @ 2 GHz"


@pytest.mark.parametrize("content", [None, "processor\t: 0\n"])
def test_a_processor_without_a_model_is_named_by_its_architecture(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "cpuinfo").write_text(content)
    assert records._processor(tmp_path / "cpuinfo") == (platform.processor() or platform.machine())


def test_joined_provenance_is_dirty_if_either_is_and_names_what_changed():
    clean = {"commit": "a", "dirty": False, "torch": "2"}
    assert joined(clean, clean) == clean
    assert joined(clean, {**clean, "commit": "b"})["commit"] == "a, then b"
    assert joined(clean, {**clean, "dirty": True})["dirty"] is True
    assert joined({**clean, "dirty": True}, clean)["dirty"] is True
    assert joined({**clean, "dirty": None}, {**clean, "dirty": None})["dirty"] is None
