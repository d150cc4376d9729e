"""The tracked records were brought to today's schema by this command: it changes the digest and nothing else."""

from __future__ import annotations

import json

from reproductions.migrate import main
from sharp_maml import Config, write_record
from tests.reproductions.records_for_tests import record


def of_schema_1(path):
    write_record(path, record("maml"))
    values = json.loads(path.read_text()) | {"schema": 1, "config_digest": "0" * 64}
    path.write_text(json.dumps(values))
    return values


def test_a_record_of_schema_1_is_migrated_once_and_nothing_but_its_digest_changes(tmp_path, capsys):
    path = tmp_path / "old" / "record.json"
    before = of_schema_1(path)
    write_record(tmp_path / "new.json", record("low"))
    assert main([str(tmp_path)]) == 0
    digest = Config.from_mapping(before["config"]).digest
    assert json.loads(path.read_text()) == before | {"schema": 2, "config_digest": digest}
    assert capsys.readouterr().out == f"{path}: schema 2\n"
    written = path.stat().st_mtime_ns
    assert main([str(tmp_path)]) == 0
    assert path.stat().st_mtime_ns == written


def test_nothing_is_migrated_where_one_file_cannot_be_read(tmp_path, capsys):
    path = tmp_path / "a.json"
    of_schema_1(path)
    before = path.read_bytes()
    (tmp_path / "z.json").write_text("{")
    assert main([str(path), str(tmp_path / "z.json")]) == 2
    assert "z.json: expected a JSON record" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_the_tracked_records_need_no_migration(capsys):
    assert main([]) == 0
    assert capsys.readouterr().out == ""
