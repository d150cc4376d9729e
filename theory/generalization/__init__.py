"""Generalization: what the source says, what of it holds, and what the claims below share.

**The source says**: if the lower-level algorithm is gamma_A-uniformly stable and F(x; P) <= E F(x + eps; P) with eps
~ N(0, alpha^2 I), then with high probability, for Sharp-MAML up, F(x; P) <= max_{|eps| <= alpha} F(x + eps; D) +
gamma_A + O~(1/(4 n M)); "Sharp-MAML has a smaller upper bound" than MAML.

**What holds as printed**: the shape. A maximum over the ball, plus the stability of the inner step, plus a term that
falls with n M bounds the risk (`generalization_coverage`), and gamma_A of a gradient step falls as 1/n
(`generalization_stability`). Each of these terms is needed (`generalization_terms`).

**What holds restated**. O~(1/(4 n M)) must stand under a square root: without it, even a loss without parameters
violates the statement (`generalization_square_root`). A ball of radius alpha and N(0, alpha^2 I) do not match: the
Gaussian needs the deviation s = alpha / (sqrt d + sqrt ln N), and the mass outside the ball is added
(`generalization_ball`), though the theorem seldom needs it (`generalization_tail`). The root needs the factor C = (1 +
(n - 1) gamma_A)^2: the bound of SAM, carried over with gamma_A and n M and without C, is false
(`generalization_carried_over`). n M is the sample size for fixed tasks only; for the risk of a new task it is M, and no
n helps (`generalization_gap`). Nor is it that of the tighter kl form, whose losses must be independent
(`generalization_kl`). "Smaller upper bound" is true of the minimiser of the ball's maximum whose norm is not larger,
by construction (`generalization_compare`).

**What fails**: as trained, Sharp-MAML up does not have a smaller upper bound than MAML: in one basin it is larger
with a constant radius, and with a decaying one the two end in the same place unless the radius is too large to let it
arrive; where the ascent leaves a basin, either is larger (`generalization_as_trained`). A normalised SAM step is not
O(1/n)-stable (`generalization_sam_step`), so the theorem covers Sharp-MAML up, as the source says, but does not
extend to low and both with gamma_A = O(1/n). For trained networks the bound says nothing
([certificate](CERTIFICATE.md), made by `python -m theory.networks.certificate`).

**Assumption**: F(x; P) <= E F(x + eps; P) holds at what training finds (`generalization_perturbation`), not
everywhere.

**Settings**: bounded location tasks (`synthetic/welsch.py`), loss in [0, 1], L0 = exp(-1/2), L1 = 1; d = 2, M = 20, n =
25, alpha = 0.5, beta_low = 0.5, delta = 0.05, unless a claim says otherwise. Every data set is an instance: the centres
of its tasks are drawn for it alone, by the base seed, and what is said for fixed tasks is said given them. Parameters
are trained by the core: 60 steps of Sharp-MAML up. Settings were chosen on seeds 0 to 9.
"""
