"""Early stopping: training ends when validation is good enough, or has not improved for a number of epochs."""

from grulab.config.schema import Config, is_higher_better


def is_trained(config: Config, epochs: int, best_epoch: int | None, best_score: float | None) -> bool:
    """Return whether training is over; see :func:`what_ended`."""
    return what_ended(config, epochs, best_epoch, best_score) is not None


def what_ended(config: Config, epochs: int, best_epoch: int | None, best_score: float | None) -> str | None:
    """Return the key that has ended the training, or None if it is not over.

    The patience depends on the distance to the best epoch only, so a resume has no counter to restore.

    Args:
        config: the run's configuration.
        epochs: number of finished epochs.
        best_epoch: the best epoch by ``checkpoint.monitor``, from 1; None before the first epoch has finished.
        best_score: ``checkpoint.monitor`` of that epoch.
    """
    trainer = config.trainer
    if epochs >= trainer.max_epochs:
        return "trainer.max_epochs"
    if best_epoch is None or best_score is None:
        return None
    if trainer.early_stopping_patience is not None and epochs - best_epoch >= trainer.early_stopping_patience:
        return "trainer.early_stopping_patience"
    if trainer.early_stopping_threshold is not None:
        higher, threshold = is_higher_better(config.checkpoint.monitor), trainer.early_stopping_threshold
        if best_score >= threshold if higher else best_score <= threshold:
            return "trainer.early_stopping_threshold"
    return None
