"""Loss and validation by epoch, as a picture. matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from models.experiment import Outcome
from streams.errors import ConfigError

__all__ = ["draw_learning_curves"]


def draw_learning_curves(outcomes: Sequence[Outcome], path: Path) -> bool:
    """Draw the last fit of each model and seed to a PNG; False, and no file, where no model trains in epochs.

    Raises ConfigError without matplotlib.
    """
    trained = [outcome for outcome in outcomes if outcome.epochs]
    if not trained:
        return False
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise ConfigError(
            "learning curves need matplotlib, which is not installed: pip install 'streamlens[train]'"
        ) from None
    models = list(dict.fromkeys(outcome.model for outcome in trained))
    figure = Figure(figsize=(4 * len(models), 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(models), squeeze=False, sharex="col")
    for column, model in enumerate(models):
        for outcome in (one for one in trained if one.model == model):
            last_fit = outcome.epochs[-1][0]
            epochs = [epoch for fit, epoch in outcome.epochs if fit == last_fit]
            numbers = [epoch.number for epoch in epochs]
            axes[0, column].plot(numbers, [epoch.loss for epoch in epochs], label=f"seed {outcome.seed}")
            validated = [epoch for epoch in epochs if epoch.validation is not None]
            axes[1, column].plot([e.number for e in validated], [e.validation for e in validated])
        axes[0, column].set_title(model)
        axes[0, column].legend(frameon=False)
        axes[1, column].set_xlabel("epoch")
    axes[0, 0].set_ylabel("loss")
    axes[1, 0].set_ylabel("validation")
    figure.savefig(path, dpi=120)
    return True
