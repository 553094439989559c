"""Early stopping: training ends when validation has not improved for a number of epochs."""

from grulab.config.schema import Config


def is_trained(config: Config, epochs: int, best_epoch: int | None) -> bool:
    """Return whether training is over: after ``max_epochs`` epochs, or when the patience has run out.

    The patience depends on the distance to the best epoch only, so a resume has no counter to restore.

    Args:
        config: the run's configuration.
        epochs: number of finished epochs.
        best_epoch: the best epoch by ``checkpoint.monitor``, from 1; None before the first epoch has finished.
    """
    patience = config.trainer.early_stopping_patience
    lost_patience = patience is not None and best_epoch is not None and epochs - best_epoch >= patience
    return epochs >= config.trainer.max_epochs or lost_patience
