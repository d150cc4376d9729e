"""The paper's appendix as notebooks that read records and train nothing. `python -m notebooks --help`."""
