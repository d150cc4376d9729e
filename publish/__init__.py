"""From records to all that is printed from them: pages, tables in pages, the report, and figures.

`python -m publish` writes what is out of date, `--check` names it. Read next: `pages.py`.
"""
