"""What all callbacks of a run have in common."""

from typing import Any

import lightning as L

_EVERY_STEP = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
    "on_validation_batch_start",
    "on_validation_batch_end",
    "on_test_batch_start",
    "on_test_batch_end",
)


class RunCallback(L.Callback):
    """A callback that costs nothing in steps where it does nothing.

    Lightning calls each of these hooks of each callback in each step, some 40 calls for a step of a millisecond; it
    leaves out what is None.

    Attributes:
        reads_metrics: whether it looks into the trainer's ``callback_metrics``; see ``SequenceClassifier``.
    """

    reads_metrics = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for hook in _EVERY_STEP:
            if getattr(cls, hook) is getattr(L.Callback, hook):
                setattr(cls, hook, None)
