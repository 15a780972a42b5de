"""`tfn.random`: reproducible random numbers from explicit keys, and a seeded generator.

A key is a uint32 array of two words. Bits are Threefry-2x32 of the element's index, so a draw is
elementwise: it fuses with its reader, may be sharded, and element i does not depend on the shape's
other elements. Streams are those of JAX; `philox` has those of TensorFlow. `Generator` keeps a key that
moves on with each draw.
"""

from . import philox
from .continuous import (
    cauchy,
    double_sided_maxwell,
    exponential,
    gumbel,
    laplace,
    logistic,
    lognormal,
    maxwell,
    multivariate_normal,
    normal,
    orthogonal,
    pareto,
    rademacher,
    rayleigh,
    triangular,
    truncated_normal,
    uniform,
    wald,
    weibull_min,
)
from .discrete import (
    bernoulli,
    categorical,
    choice,
    dropout_mask,
    geometric,
    permutation,
    randint,
    shuffle,
)
from .generator import Generator, default_generator, seed
from .rejection import (
    ball,
    beta,
    binomial,
    chisquare,
    dirichlet,
    f,
    gamma,
    generalized_normal,
    loggamma,
    multinomial,
    poisson,
    t,
)
from .threefry import PRNGKey, bits, fold_in, key, split

__all__ = [
    "Generator", "PRNGKey", "ball", "bernoulli", "beta", "binomial", "bits", "categorical",
    "cauchy", "chisquare", "choice", "default_generator", "dirichlet", "double_sided_maxwell",
    "dropout_mask", "exponential", "f", "fold_in", "gamma", "generalized_normal", "geometric",
    "gumbel", "key", "laplace", "loggamma", "logistic", "lognormal", "maxwell", "multinomial",
    "multivariate_normal", "normal", "orthogonal", "pareto", "permutation", "philox", "poisson",
    "rademacher", "randint", "rayleigh", "seed", "shuffle", "split", "t", "triangular",
    "truncated_normal", "uniform", "wald", "weibull_min",
]
