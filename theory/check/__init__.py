"""The frame of every claim: what it is, how it is measured, decided, reported and drawn, and how often that errs."""
