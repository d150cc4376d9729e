"""The paper's table and those that belong to it: `python -m reproductions.tables`.

`tables.toml` says what they are, and `specification.py` reads it. `train.py` runs the cells that are missing, in
processes of `cells.py`; `check.py` refuses records that do not belong together, `lines.py` makes lines of them with
`verdicts.py`, and `forms.py` and `curves.py` show them. `track.py` brings finished runs into `records/tables/`.
"""
