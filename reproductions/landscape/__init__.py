"""Is the landscape smoother, on trained networks? `python -m reproductions.landscape`.

Each checkpoint of MAML and of the variants of Sharp-MAML is measured on the same fixed training episodes, by the same
two functions: the meta-loss F (after the inner steps of the training, without perturbation) and the mean inner loss R
at the parameters themselves. Both along the same drawn directions, normalised filter by filter to each network.
"Smoother than MAML" is decided for each measure by the difference paired over training seeds. Read next: `measure.py`,
`decide.py`, `figures.py`; `accuracy.py` (whether flat networks are the more accurate ones) with its command
`flatness.py`; and `sharp_maml/sharpness.py`, which the measures come from.
"""
