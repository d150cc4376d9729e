"""Networks: what the theorems come to there, in commands that measure and in claims that count.

**The source** speaks of networks; the other parts check its theorems on families whose constants are known. The
commands `regime` and `certificate` measure what the rate and the generalization bound come to at trained networks, and
are no claims. `counts` counts stationary points, and the claims below are about these.

**How**: on layers of tanh neurons with two to four parameters interval Newton encloses every stationary point of ERM
and of MAML and excludes all others; on a ReLU network with two parameters Clarke's stationary points are enumerated in
fractions.

**What it does not say.** Output weights are fixed and weight decay is on, so that the points are isolated and lie in a
ball. Larger networks are searched only, and a search is not a count.
"""
