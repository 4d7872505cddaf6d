"""Where training of the neural models starts: a linear denoising autoencoder of the same width, in closed form.

With few users, gradient descent from random numbers ends far below it (NDCG@10 of 0.30 instead of 0.39 on
ml-latest-small). On so few, training on from here changes the lists by less than can be told: 0.2236 at the start and
0.2224 to 0.2241 in the epochs after it, on a validation split. What it can teach is an order in time, see
docs/evaluation.md.

The encoder is the principal subspace, each direction shrunk by its share of noise (Tipping & Bishop, "Probabilistic
Principal Component Analysis", 1999; Lucas et al., "Don't Blame the ELBO!", NeurIPS 2019: a linear VAE has the same
optimum). The decoder is a ridge regression that predicts each rating with that rating left out of the input, so that no
movie explains itself (the idea of Steck, "Autoencoders that don't overfit towards the Identity", NeurIPS 2020).
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import svds

from models.history_weights import history_matrix
from models.interactions import Float32s
from models.recommender import TrainingData

__all__ = ["leave_one_out_decoder", "linear_start", "principal_factors"]

_USER_NORM = 0.35
"""A user of n ratings counts n ** -0.35 for each: less than in full, for long histories would drown short ones."""

_DENSE = 1_500
"""Up to so many users, or movies, all directions at once take less time than the first few."""


def linear_start(data: TrainingData, width: int, *, ridge: float, seed: int) -> tuple[Float32s, Float32s, float]:
    """Encoder E and decoder W, both (movies, width), and a unit: x E W' times the unit are the scores of a history x.

    E is scaled so that histories of unit length have user vectors x E of unit variance, W by the same. ridge: the
    penalty of both, in squares of the least singular value kept.
    """
    matrix = sparse.csr_matrix((np.ones(len(data.row)), (data.row, data.column)), (data.n_users, data.n_movies))
    weights = np.bincount(data.row, minlength=data.n_users) ** -_USER_NORM
    encoder, least = principal_factors(sparse.csr_matrix(sparse.diags(weights) @ matrix), width, ridge=ridge, seed=seed)
    decoder = leave_one_out_decoder(matrix, encoder, weights**2, l2=0.25 * ridge * least**2)
    inputs = history_matrix(data.histories, np.ones(len(data.row), np.float32), data.n_movies)
    scale = 1.0 / max(1e-3, float(np.sqrt(((inputs @ encoder) ** 2).mean())))
    return encoder * scale, decoder * scale, 1.0 / scale**2


def principal_factors(matrix: sparse.csr_matrix, width: int, *, ridge: float, seed: int) -> tuple[Float32s, float]:
    """Right singular vectors as columns (movies, width) by falling weight, shrunk, and the least singular value kept.

    Where the matrix has fewer directions, the last columns are 0.
    """
    few = min(matrix.shape)
    if few > max(_DENSE, width + 1):
        _, size, rows = svds(matrix, width, v0=np.random.default_rng(seed).normal(size=few))
        size, directions = size[::-1], rows[::-1].T
    else:
        by_user = few == matrix.shape[0]
        squares, vectors = np.linalg.eigh((matrix @ matrix.T if by_user else matrix.T @ matrix).toarray())
        size = np.sqrt(np.maximum(squares, 0.0))[::-1][:width]
        directions = vectors[:, ::-1][:, :width]
        if by_user:
            directions = matrix.T @ directions / np.maximum(size, 1e-9)
    kept = size**2 / (size**2 + ridge * size[-1] ** 2 + 1e-9)
    factors = np.zeros((matrix.shape[1], width), np.float32)
    factors[:, : len(size)] = directions * np.sqrt(kept)
    return factors, float(size[-1])


def leave_one_out_decoder(matrix: sparse.csr_matrix, encoder: Float32s, weights: np.ndarray, *, l2: float) -> Float32s:
    """W (movies, width): row i minimises sum_u weights_u (x_ui - h_ui w)^2 + l2 |w|^2, h_ui being x_u E without i.

    matrix: users x movies of zeros and ones. weights: of users. A movie that nobody rated gets zeros.

    Leaving out row e of E from the h = x E of those who rated the movie turns G = sum weights h h' + l2 I into
    G - s e' - e s' + t e e', where t and s are the sums of weights and of weights times h over these users: so all rows
    come from one inverse of G (Woodbury).
    """
    latent = matrix @ encoder.astype(np.float64)
    weighted = latent * weights[:, None]
    gram = weighted.T @ latent + max(l2, 1e-6) * np.eye(encoder.shape[1])
    t, s = matrix.T @ weights, matrix.T @ weighted
    of_own, of_sums = np.linalg.solve(gram, encoder.T).T, np.linalg.solve(gram, s.T).T
    own_own, own_sums, sums_sums = (encoder * of_own).sum(1), (encoder * of_sums).sum(1) - 1.0, (s * of_sums).sum(1) - t
    determinant = own_own * sums_sums - own_sums**2
    decoder: np.ndarray = (own_sums[:, None] * of_sums - sums_sums[:, None] * of_own) / determinant[:, None]
    return decoder.astype(np.float32)
