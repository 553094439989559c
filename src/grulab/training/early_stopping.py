"""Early stopping: training ends when validation is good enough, or has not improved for a number of epochs."""

from grulab.config.schema import Config, is_higher_better


def is_trained(config: Config, epochs: int, best_epoch: int | None, best_score: float | None) -> bool:
    """Return whether training is over: after ``max_epochs`` epochs, at the threshold, or without patience.

    The patience depends on the distance to the best epoch only, so a resume has no counter to restore.

    Args:
        config: the run's configuration.
        epochs: number of finished epochs.
        best_epoch: the best epoch by ``checkpoint.monitor``, from 1; None before the first epoch has finished.
        best_score: ``checkpoint.monitor`` of that epoch.
    """
    patience, threshold = config.trainer.early_stopping_patience, config.trainer.early_stopping_threshold
    lost_patience = patience is not None and best_epoch is not None and epochs - best_epoch >= patience
    is_good = False
    if threshold is not None and best_score is not None:
        higher = is_higher_better(config.checkpoint.monitor)
        is_good = best_score >= threshold if higher else best_score <= threshold
    return epochs >= config.trainer.max_epochs or lost_patience or is_good
