"""Speed, memory and training against a plain loop and public libraries; tracked records are in `records/bench/`.

`bench.py` and `training.py` measure, `page.py` shows their records. Read next: `work.py`, which says what is measured.
"""
