"""Executable checks of the paper's claims. `python -m theory --help`; the first file to read is `check/claim.py`."""
