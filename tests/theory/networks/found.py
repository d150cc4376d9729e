"""A network of a record of the regime, with numbers that are easily reckoned with."""

from __future__ import annotations

from typing import Any

from theory.networks.local import SCALES

FOUND: dict[str, Any] = {
    "row": "both",
    "state": "best",
    "name": "both, seed 0, best",
    "step": 100,
    "data": "synthetic-images",
    "parameter_norm": 10.0,
    "config": {
        "beta_low": 0.5, "beta_up": 0.01, "alpha_low": 0.1, "alpha_up": 0.2, "steps": 1, "iterations": 100,
        "meta_batch": 4, "optimizer": "adam", "schedule": "constant", "seed": 0, "image_size": 16,
    },
    "tasks": [
        {
            "low": -1.0, "high": 4.0, "L0": 2.0, "L1": 4.0, "Lq": 3.0, "sg": 0.3, "sH": 0.5, "sq": 0.7,
            "slope": 1.0, "step": 0.5,
            **{f"L1 {name} {scale:g}": 4 / scale for name in ("gradient", "random") for scale in SCALES},
            **{f"L2 {name} {scale:g}": 6 / scale for name in ("gradient", "random") for scale in SCALES},
        }
    ],
    "meta_batches": [
        {"loss": 1.0, "low": -2.0, "high": 20.0, "L_F": 20.0, "bias^2": 0.04, "slope^2": 0.25},
        {"loss": 2.0, "low": -3.0, "high": 10.0, "L_F": 10.0, "bias^2": -0.02, "slope^2": 0.25},
    ],
}  # fmt: skip
