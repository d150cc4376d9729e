"""Stationarity rate: what the source says, what it does not say, and what the claims below share.

**The source says**: with step sizes and radii beta_low, beta_up, alpha_up = O(1/sqrt T) and alpha_low = O(1), "with
some proper constants", the iterates of Sharp-MAML up, low and both satisfy (1/T) sum_t E |grad F(x_t)|^2 = O(1/sqrt
T); so "Sharp-MAML matches the convergence rate of MAML". It assumes that F is Lipschitz and smooth, and that
gradients and Hessians are estimated without bias and with bounded variance.

**What was checked**: the statement with every constant in it (`rate_bound`), derived here because the source gives it
informally; that it cannot be improved (`rate_sharp`); its pieces (`rate_pieces`), its expansion (`rate_algebra`), its
slope (`rate_slope`), the limit behind it (`rate_constant`), the comparison with MAML (`rate_matches_maml`), and its
descent part for every smooth function (`rate_worst_case`); how seldom a single run exceeds it (`rate_tail`), and what
is left of it without a variance (`rate_heavy_tails`). The source leaves open whose samples make the perturbations,
whether the update sums or averages over tasks, and whether the gradient flows through the perturbation; the claims go
through these readings.

**What the theorem does not say.** It never uses that the perturbation is an ascent direction: any vector in the ball
has the same rate (`rate_no_ascent_needed`). With beta_low -> 0 as prescribed the objective becomes that of plain
training on the query losses (`rate_erm_limit`). The prescribed exponents are sufficient, not necessary: T^(-1/4) does
for beta_low and alpha_up (`rate_quarter`, `rate_phase`). It says nothing about which stationary point is reached, how
flat it is, or how well it generalizes.

**What each variant needs.** "F Lipschitz and smooth" is enough for up and not for low. What is lost without an
assumption, where the support samples have no noise (`rate_assumptions`, `rate_separation`):

| variant | F smooth, bounded below | L0, Lq of the single tasks | L2 of the support losses |
|---|---|---|---|
| MAML | the rate | nothing | nothing |
| up | the rate | nothing | nothing |
| low, both | the rate | the rate | a bias that shrinks with alpha_low; not the rate, nor the leading constant |

L1 bounds I - beta H for all of them. Noise in the support samples asks Lq for the bias and L0 for the variance of every
variant (`rate_pieces`). `rate_bound` assumes all, because its number for L_F is made of them.

**Instances.** The claims look at named tasks, on which a figure can be understood, and at *drawn instances*: wells with
(d, M) = (2, 50), (20, 5) and (100, 2), as many of each, 66 in all with the full budget and 51 with that of the tests.
They are drawn by the base seed, so that another base seed has other instances, and each is run once. A centre is
uniform in [-1/2, 1/2] in every coordinate, plus a part, likewise, that all tasks of the instance share; the start is 2
in every coordinate. The noise of every other instance has Student's t distribution with 5 degrees of freedom, that of
the rest is normal. Radii and support noise grow with sqrt d and query noise with sqrt(d M), so that a coordinate meets
the same in all sizes. Where instances are pooled, the average of each is taken over the leading coefficient of its own
bound, Delta/c2 + c2 Lq sq^2/(2M) with Delta of F_0, so that all weigh the same.

**Settings** were chosen on seeds 0 to 9, so that beta_up <= 1/L_F at the smallest horizon, the start lies outside the
minimum that the runs end in, and noise and perturbations are visible; recorded runs take other seeds, and with them
other instances. One choice was made later, and is named where it stands: the shares of the bound in the controls of
`rate_bound`.
"""
