"""The algorithm on problems that fit on a page, as records: `python -m reproductions.method`.

Three questions that the first notebook answers. Where do MAML and Sharp-MAML low, up and both go on two tasks with a
sharp and a flat minimum in the plane (`plane.py`)? What makes a sharp minimum bad, in the manner of the sketch of
Keskar et al., but computed (`sketch.py`)? And how far is the *one step* that the algorithm takes at the lower level
from the arg min max that the problem asks for (`lower_level.py`)? Steps and gradients are the package's own. Read next:
`figures.py`, `notebooks/01_method.ipynb`.
"""
