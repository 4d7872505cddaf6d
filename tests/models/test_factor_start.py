"""The start of training is what its formulas say."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from models.factor_start import leave_one_out_decoder, principal_factors


def some_histories() -> sparse.csr_matrix:
    return sparse.csr_matrix((np.random.default_rng(0).random((30, 7)) < 0.5).astype(float))


def test_all_directions_without_a_penalty_give_a_history_back() -> None:
    factors, _ = principal_factors(some_histories(), 7, ridge=0.0, seed=0)
    np.testing.assert_allclose(factors @ factors.T, np.eye(7), atol=1e-4)


def test_the_decoder_is_the_ridge_regression_without_the_movie_itself() -> None:
    matrix, random = some_histories(), np.random.default_rng(1)
    encoder = random.normal(size=(7, 3)).astype(np.float32)
    weights = random.random(30)
    decoder = leave_one_out_decoder(matrix, encoder, weights, l2=0.7)
    dense = matrix.toarray()
    for movie in range(7):
        others = dense.copy()
        others[:, movie] = 0.0
        latent = others @ encoder
        gram = latent.T @ (latent * weights[:, None]) + 0.7 * np.eye(3)
        expected = np.linalg.solve(gram, latent.T @ (weights * dense[:, movie]))
        np.testing.assert_allclose(decoder[movie], expected, rtol=1e-4, atol=1e-5)


def test_a_movie_that_nobody_rated_has_no_weights() -> None:
    matrix = sparse.csr_matrix(np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert not leave_one_out_decoder(matrix, np.ones((2, 1), np.float32), np.ones(2), l2=1.0)[1].any()
