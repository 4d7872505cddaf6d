"""Training of :mod:`models.hybrid_vae`; this needs torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.factor_start import linear_start
from models.history_weights import history_matrix, recency_weights
from models.holdout import Holdout, histories_of, hold_out_last
from models.hybrid_vae import HybridVae
from models.interactions import Float32s, Histories
from models.movie_features import feature_matrix, ridge_projection
from models.recommender import Epoch, OnEpoch, TrainingData
from models.torch_device import device_named
from streams.errors import ModelError

__all__ = ["VaeNetwork", "kl_to_standard_normal", "train_vae"]

_SHARPNESS = 90.0
"""What logits are of the linear autoencoder's output at first, whose inputs have unit length; it is learnt."""

_GENTLE = 0.1
"""The hidden layer and the feature projections move many movies at once: they learn at a tenth of the rate."""


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, 1)), summed over the last axis."""
    return -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(-1)


class VaeNetwork(torch.nn.Module):
    """Encoder and decoder; a movie's weights are its own plus ``features`` times a projection."""

    def __init__(
        self, features: Float32s, encoder: Float32s, decoder: Float32s, rated: Float32s, sharpness: float, seed: int
    ) -> None:
        """encoder, decoder: the start (movies, width). rated: 1 for movies that were, else 0 (movies,)."""
        super().__init__()
        width = encoder.shape[1]
        random = np.random.default_rng(seed)
        encoder_projection, decoder_projection = (ridge_projection(features, w, rated) for w in (encoder, decoder))
        encoder_own = (encoder - features @ encoder_projection) * rated[:, None]
        decoder_own = (decoder - features @ decoder_projection) * rated[:, None]
        self.features: Tensor
        self.register_buffer("features", torch.tensor(features))
        self.encoder_own, self.decoder_own = _parameter(encoder_own), _parameter(decoder_own)
        self.encoder_features, self.decoder_features = _parameter(encoder_projection), _parameter(decoder_projection)
        self.bias_own, self.bias_features = _parameter(np.zeros(len(encoder))), _parameter(np.zeros(features.shape[1]))
        self.hidden = _parameter(random.normal(0, width**-0.5, (width, width)))
        self.hidden_bias = _parameter(np.zeros(width))
        self.mean = _parameter(np.zeros((width, width)))
        self.variance = _parameter(np.zeros((width, width)))
        self.variance_bias = _parameter(np.full(width, -5.0))
        self.log_sharpness = _parameter(np.log(sharpness))

    def encode(self, histories: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance (n, width) of histories (n, movies), rows of unit length."""
        linear = histories @ (self.encoder_own + self.features @ self.encoder_features)
        mean = linear + torch.tanh(linear @ self.hidden + self.hidden_bias) @ self.mean
        return mean, linear @ self.variance + self.variance_bias

    def decode(self, latent: Tensor) -> Tensor:
        """Logits (n, movies)."""
        weights = self.decoder_own + self.features @ self.decoder_features
        return latent @ weights.T * self.log_sharpness.exp() + self.bias_own + self.features @ self.bias_features

    def groups(self, rate: float) -> list[dict[str, Any]]:
        """Parameters with their learning rates."""
        own = [self.encoder_own, self.decoder_own]
        fast = [self.log_sharpness]
        slow = [p for p in self.parameters() if not any(p is q for q in own + fast)]
        return [{"params": own, "lr": rate}, {"params": slow, "lr": rate * _GENTLE}, {"params": fast, "lr": 0.05}]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What serving needs, sharpness and projections multiplied in."""
        with torch.no_grad():
            sharpness = self.log_sharpness.exp()
            found = {
                "encoder": self.encoder_own + self.features @ self.encoder_features,
                "encoder_features": self.encoder_features,
                "hidden": self.hidden,
                "hidden_bias": self.hidden_bias,
                "mean": self.mean,
                "decoder": (self.decoder_own + self.features @ self.decoder_features) * sharpness,
                "decoder_features": self.decoder_features * sharpness,
                "bias": self.bias_own + self.features @ self.bias_features,
                "bias_features": self.bias_features,
            }
            return {name: np.array(values.cpu().numpy()) for name, values in found.items()}


def train_vae(data: TrainingData, model: HybridVae, on_epoch: OnEpoch | None) -> dict[str, npt.NDArray[Any]]:
    """The arrays of ``model``; a held out last time slice, where there is one, says how many epochs all data gets."""
    held = hold_out_last(data)
    if held is None:
        return _trained(data, model, model.epochs, None, on_epoch)[0]
    _, best = _trained(held[0], model, model.epochs, held[1], on_epoch)
    return _trained(data, model, best, None, None)[0]


def _trained(
    data: TrainingData, model: HybridVae, epochs: int, holdout: Holdout | None, on_epoch: OnEpoch | None
) -> tuple[dict[str, npt.NDArray[Any]], int]:
    """The arrays after the last epoch, and after which epoch the holdout was ranked best."""
    device = device_named(model.device)
    network, histories = _start(data, model).to(device), histories_of(data)
    optimiser = torch.optim.Adam(network.groups(model.learning_rate))
    random = np.random.default_rng(model.seed)
    noise = torch.Generator(device).manual_seed(model.seed)
    best, best_epoch = -1.0, 0
    if holdout is not None:
        best = holdout.ndcg(_scores(network, model, holdout.given))
    for epoch in range(1, epochs + 1):
        kl_weight = model.kl_weight * min(1.0, epoch / max(1, model.anneal_epochs))
        losses = []
        for rows in np.array_split(random.permutation(data.n_users), -(-data.n_users // model.batch_size)):
            given, wanted = (t.to(device) for t in _noised(histories, rows, model, data.n_movies, random))
            loss = _loss(network, given, wanted, kl_weight, noise)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        loss_of_epoch = float(np.mean(losses))
        if not np.isfinite(loss_of_epoch):
            raise ModelError(f"vae: training diverged (loss {loss_of_epoch} in epoch {epoch}); lower its learning rate")
        validation = holdout.ndcg(_scores(network, model, holdout.given)) if holdout is not None else None
        if on_epoch:
            on_epoch(Epoch(epoch, loss_of_epoch, validation))
        if validation is not None and validation > best:
            best, best_epoch = validation, epoch
        if holdout is not None and epoch - best_epoch >= model.patience:
            break
    return network.arrays(), best_epoch


def _start(data: TrainingData, model: HybridVae) -> VaeNetwork:
    encoder, decoder = linear_start(data, model.width, ridge=model.ridge, seed=model.seed)
    histories = histories_of(data)
    inputs = history_matrix(histories, np.ones(len(data.row), np.float32), data.n_movies)
    scale = 1.0 / max(1e-3, float(np.sqrt(((inputs @ encoder) ** 2).mean())))  # latents of unit variance
    rated = (np.bincount(data.column, minlength=data.n_movies) > 0).astype(np.float32)
    return VaeNetwork(
        feature_matrix(data.features), encoder * scale, decoder * scale, rated, _SHARPNESS / scale**2, model.seed
    )


def _noised(
    histories: Histories, rows: npt.NDArray[np.int64], model: HybridVae, n_movies: int, random: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Histories with a share left out, as rows of unit length, and what was left out as ones; both (n, movies)."""
    lengths = histories.lengths[rows]
    at = np.concatenate([np.arange(histories.start[row], histories.start[row + 1]) for row in rows])
    start = np.concatenate(([0], np.cumsum(lengths)))
    part = Histories(start, histories.movie_id[at], histories.rating[at], histories.timestamp[at])
    left_out = random.random(len(at)) < np.repeat(random.random(len(rows)) * model.dropout, lengths)
    given = part.kept(~left_out, part.movie_id)
    dense = history_matrix(
        given, recency_weights(given, model.recency_half_life, model.recency_floor), n_movies
    ).toarray()
    wanted = np.zeros((len(rows), n_movies), np.float32)
    wanted[part.row[left_out], part.movie_id[left_out]] = 1.0
    return torch.from_numpy(dense), torch.from_numpy(wanted)


def _loss(network: VaeNetwork, given: Tensor, wanted: Tensor, kl_weight: float, noise: torch.Generator) -> Tensor:
    """Mean over ratings of the negative multinomial log-likelihood of what was left out, and the weighted KL."""
    mean, log_variance = network.encode(given)
    epsilon = torch.randn(mean.shape, generator=noise, device=mean.device)
    logits = network.decode(mean + epsilon * torch.exp(0.5 * log_variance))
    log_p = torch.log_softmax(logits.masked_fill(given > 0, -1e4), dim=1)
    lengths = wanted.sum(1)
    evidence = -(wanted * log_p).sum(1) + kl_weight * kl_to_standard_normal(mean, log_variance) * lengths.sqrt()
    weight = (lengths + 1.0) ** -0.5
    return (weight * evidence).sum() / (weight * lengths).sum().clamp_min(1.0)


def _scores(network: VaeNetwork, model: HybridVae, histories: Histories) -> Float32s:
    probe = HybridVae(**model.hyperparameters)
    probe._restore(network.arrays())
    return probe._score(histories)


def _parameter(values: npt.ArrayLike) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor(np.asarray(values), dtype=torch.float32))
