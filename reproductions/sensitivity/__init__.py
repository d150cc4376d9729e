"""How far choices of the protocol move one number: `python -m reproductions.sensitivity`.

The trained networks of one row are judged again with one choice changed at a time: test steps, batch norm mode,
queries, checkpoint, number of episodes. Nothing is trained. Each shift is a difference on the same networks, one a
training seed, and is drawn beside the gains that the source prints for Sharp-MAML. Read next:
`measure.py`, `figure.py`.
"""
