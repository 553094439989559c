"""Early stopping: training ends when validation has not improved for a number of epochs."""

from grulab.config.schema import Config


def is_trained(config: Config, epochs: int, best_epoch: int | None) -> bool:
    """Return whether training is over: at its horizon, or after the patience has run out.

    It is nothing but the distance to the best epoch: no state of its own that could disagree after a resume.

    Args:
        config: of the run.
        epochs: finished so far.
        best_epoch: the best of them by checkpoint.monitor, from 1; None before the first.
    """
    patience = config.trainer.early_stopping_patience
    lost_patience = patience is not None and best_epoch is not None and epochs - best_epoch >= patience
    return epochs >= config.trainer.max_epochs or lost_patience
