"""Proofs as data: what makes them may use any solver, and `check.py` verifies them with fractions alone."""
