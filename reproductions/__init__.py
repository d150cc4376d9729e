"""The paper's numbers, from recorded runs: `table1.py` trains what is missing and builds the table."""
