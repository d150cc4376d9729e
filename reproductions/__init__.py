"""The paper's numbers, from recorded runs: one package a study, each with a command; `study.py` is what they share."""
