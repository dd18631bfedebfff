"""What the numbers of a report mean, for those who know WeightWatcher's."""

LEGEND = """\
Reading the spectra of a network's weights

fpstab looks at the eigenvalues λ of WᵀW of each weight W (the squares of its
singular values), fits a power law, density ∝ λ^(−alpha), to their upper tail,
and gives a verdict on what that tail is.

WHY A VERDICT AND NOT ALPHA ALONE

WeightWatcher reads a layer by its alpha:
  2 to 6                well trained
  above 6               under-trained
  below 2               over-trained

fpstab asks first whether there is a heavy tail that alpha could describe:
  light, light+spikes   no: alpha describes the edge of a bulk, and nothing else
  heavy (correlations)  yes, made by training: read alpha as you are used to
  heavy (entries)       yes, but single large entries make it

A power law can be fitted to any tail, and at the sizes of real layers chance
alone gives every alpha. A 100×100 matrix of independent Gaussian entries,
which nobody trained, has alpha 2.9, 4.8 or 11 (5 %, 50 %, 95 % of draws):
"well trained" in most of them. The layers of ResNet-18 as it is initialised
have alpha from 4.8 to 77. So alpha does not tell a light tail from a heavy one;
a test against the law of random matrices does.

VERDICTS

light          The Marchenko–Pastur bulk of independent entries, and nothing
               above it. What a layer is before training.
light+spikes   Such a bulk, and a few eigenvalues above its edge (at most a
               tenth of them, or six): training has added something of low
               rank.
heavy          Neither, and a power law explains the tail better than an
               exponential law (p < 0.05), over at least a tenth of the
               eigenvalues, and ten.
  correlations   It becomes light when the entries are shuffled, and these are
                 light themselves: training arranged them. This is the heavy
                 tail that WeightWatcher's theory is about.
  entries        It stays heavy when they are shuffled: single entries are
                 large, as of Cauchy weights.
  (no cause)     Neither is clear.
not_heavy      The exponential law explains the tail better, or all eigenvalues
               are equal (an orthogonal matrix).
undecided      Nothing of this is significant.
too_few        Fewer than 20 eigenvalues: no statement.

THE TABLE

n              Positive eigenvalues.
alpha ± sigma  Exponent of the tail and its standard error.
D              Kolmogorov–Smirnov distance of the tail to the power law.
spikes         Eigenvalues above the bulk's Tracy–Widom edge (99 %).

METRICS (--json, --csv; WeightWatcher's names; logarithms are decimal)

xmin, xmax        Where the tail begins and ends; xmax = λ_max.
num_pl_spikes     Eigenvalues in the tail.
alpha_weighted    alpha · log λ_max.
log_alpha_norm    log Σ λ^alpha.
norm              Σ λ, the square of the Frobenius norm; log_norm is its log.
spectral_norm     λ_max, the square of the largest singular value, as in
                  WeightWatcher; log_spectral_norm is its log.
stable_rank       Σ λ / λ_max.
entropy           −Σ p ln p / ln rank, with p = λ / Σ λ: 1 if all are equal.
matrix_rank       Eigenvalues that are positive to rounding, relative to λ_max
                  (WeightWatcher counts singular values, above an absolute
                  threshold); rank_loss counts the others.
num_spikes        Eigenvalues above the bulk.
sigma_mp          Standard deviation of the entries, by the bulk.
bulk_min, _max    Edges of the bulk, λ₋ and λ₊.
mp_softrank       λ₊ / λ_max: about 1 without spikes, small with large ones.
detX_num, _val    How many of the largest eigenvalues, scaled to mean 1, have a
                  product of 1, and the smallest of them.
ERG_gap           detX_num − num_pl_spikes.
rand_distance     (--randomize) Jensen–Shannon distance to the spectrum of the
                  shuffled entries; near 0 if training left no order in them.

Convolutions are flattened to one matrix, out × in·kernel; WeightWatcher has one
matrix for each kernel position and pools their eigenvalues (--conv slices). A
checkpoint does not store the groups of a convolution: a grouped or depthwise
one is read as a single matrix.
"""
