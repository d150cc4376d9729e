"""Stationary points: what the source says, what of it holds, and what the claims below share.

**The source says**: "MAML has more stationary points and local minimizers than ERM".

**What was checked**: as worded, for every set of tasks, it is false (`lemma_literal`): there are regression tasks on
which MAML has one stationary point and ERM three, one of them with data of two decimals (`lemma_counterexamples`).
What holds was derived here and is counted exactly. With *one* task MAML keeps all stationary points, minima and
maxima of ERM (`lemma_single`); where the derivative of the inner step T has no zero, in particular for beta_low L1 <
1, it has no others, and where T folds the line and still covers it, it has more (`lemma_fold`). A fold alone is not
enough (C6, C7 of `lemma_counterexamples`). A stationary point or minimum that *all* tasks share stays one
(`lemma_common`). With *several* tasks either sign occurs below beta_low L1 = 1, and above it MAML has more on nearly
all of the robust regressions that were drawn (`lemma_phase`): that diagram is the honest form of the lemma. With a
small enough step the counts on a compact region are equal, if the Hessians are Lipschitz (`lemma_small_step`).

**How**: the derivative of MAML on a line is a rational function over the rational numbers; its real roots are
isolated, and minima are told from maxima, without a floating-point decision, by two engines that share no algorithm
(`lemma_engines`). In the plane, zeros are enclosed by interval arithmetic, and the index sum is checked
(`lemma_torus`, `lemma_tanh`). The points found are fed to the package's `meta_gradient`, and runs of MAML end in them
(`lemma_core`).

**What the lemma does not say.** Whether the landscape is worse. A fold adds copies of ERM's extrema, which have the
same values, and turning points of T, which may be minima that are worse than every minimum of ERM: on C8 ERM has one
minimum, and runs of MAML end in another (`lemma_core`). On the other side MAML lies below ERM for beta_low <= 2/L1
(`lemma_descent`). Networks have a part of their own.

**Settings**: rational data on a grid; step sizes as fractions of 1/L1. They were chosen on seeds 0 to 9.
"""
