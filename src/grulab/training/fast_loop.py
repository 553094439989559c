"""trainer.loop=fast: Lightning's training loop with a step that costs as much as its work, and the same bits.

Lightning's own step takes half a millisecond beside forward, backward and optimizer, as long again as those three at
the default sizes: some 25 hooks, each announced, profiled and looked up, closures around closures, and metrics
collected for callbacks that do not exist. :func:`use_fast_loop` leaves those out of a Trainer. All of it leans on
private parts of Lightning, so a version that was not tested keeps its own loop.
"""

from collections.abc import Callable
from typing import Any, cast

import lightning as L
from lightning.pytorch.plugins.precision import Precision
from torch.optim import Optimizer

from grulab.config.schema import Config
from grulab.data.batch import PaddedBatch
from grulab.internals.lightning import TESTED_VERSIONS, DataFetcher, SilentProfiler, TrainingEpochLoop
from grulab.training.module import SequenceClassifier

_HOOKS_OF_STEPS = (
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


def why_not_fast(config: Config) -> str | None:
    """Return a line that says why Lightning's own loop runs although trainer.loop=fast, or None if the fast one does.

    Args:
        config: of the run.
    """
    if config.trainer.loop == "fast" and L.__version__ not in TESTED_VERSIONS:
        return (
            f"trainer.loop=fast was tested with Lightning {', '.join(TESTED_VERSIONS)} and not with {L.__version__}: "
            "Lightning's own loop runs, with the same numbers in more time"
        )
    return None


def use_fast_loop(trainer: L.Trainer, module: SequenceClassifier) -> None:
    """Replace the training loop of a Trainer, for this module.

    Args:
        trainer: with callbacks that take the metrics from the module, and not from ``trainer.callback_metrics``.
        module: to be trained by it.
    """
    trainer.fit_loop.epoch_loop = FastEpochLoop(trainer)
    trainer.profiler = SilentProfiler()  # type: ignore[attr-defined]
    # Logging them takes Lightning a millisecond.
    module.offers_metrics = False
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        for hook in _HOOKS_OF_STEPS:
            if not _does_something(callback, hook):
                # Lightning leaves out a hook that is no function, and calls all others: 40 a step.
                setattr(callback, hook, None)


class FastEpochLoop(TrainingEpochLoop):
    """An epoch of a :class:`SequenceClassifier`, which has one optimizer, no scheduler, and logs nothing in a step.

    A step calls the callbacks that have something to do in it, and moves the same counters at the same times as
    Lightning's, so that checkpoints, restarts and everything between the steps are Lightning's.

    The first step after a restart, and every step in another precision than 32-true or with gradients that accumulate
    over several batches, is Lightning's own. Left out are the hooks that a :class:`SequenceClassifier` does not have:
    those of the module for single steps, its own optimizer step or clipping; and callbacks cannot log in a step.
    """

    def on_run_start(self, data_fetcher: DataFetcher) -> None:
        """Look up once an epoch what each step calls."""
        super().on_run_start(data_fetcher)
        self._is_plain = type(self.trainer.precision_plugin) is Precision
        self._on_start = self._hooks("on_train_batch_start")
        self._on_zero_grad = self._hooks("on_before_zero_grad")
        self._on_backward = self._hooks("on_before_backward")
        self._on_gradients = self._hooks("on_after_backward")
        self._on_step = self._hooks("on_before_optimizer_step")
        self._on_end = self._hooks("on_train_batch_end")

    def advance(self, data_fetcher: DataFetcher) -> None:
        """Train on the next batch."""
        if self.restarting or not self._is_plain or self.trainer.accumulate_grad_batches > 1:
            super().advance(data_fetcher)
            return
        trainer, module = self.trainer, cast(SequenceClassifier, self.trainer.lightning_module)
        batch, _, _ = next(data_fetcher)
        if module.device.type != "cpu":
            batch = batch.to(module.device)
        self.batch_progress.is_last_batch = data_fetcher.done
        self.batch_progress.increment_ready()
        for hook in self._on_start:
            hook(trainer, module, batch, self.batch_idx)
        self.batch_progress.increment_started()
        outputs = self._optimize(trainer, module, trainer.optimizers[0], batch)
        self.batch_progress.increment_processed()
        for hook in self._on_end:
            hook(trainer, module, outputs, batch, self.batch_idx)
        self.batch_progress.increment_completed()

    def _optimize(
        self, trainer: L.Trainer, module: SequenceClassifier, optimizer: Optimizer, batch: PaddedBatch
    ) -> dict[str, Any]:
        progress = self.automatic_optimization.optim_progress.optimizer
        progress.step.increment_ready()
        loss = module.training_step(batch, self.batch_idx)
        progress.zero_grad.increment_ready()
        for hook in self._on_zero_grad:
            hook(trainer, module, optimizer)
        progress.zero_grad.increment_started()
        optimizer.zero_grad()
        progress.zero_grad.increment_completed()
        for hook in self._on_backward:
            hook(trainer, module, loss)
        loss.backward()  # type: ignore[no-untyped-call]
        for hook in self._on_gradients:
            hook(trainer, module)
        for hook in self._on_step:
            hook(trainer, module, optimizer)
        if trainer.gradient_clip_val:
            module.clip_gradients(optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm)
        optimizer.step()
        progress.step.increment_completed()
        return {"loss": loss.detach()}

    def _hooks(self, name: str) -> list[Callable[..., None]]:
        callbacks = self.trainer.callbacks
        return [getattr(callback, name) for callback in callbacks if _does_something(callback, name)]


def _does_something(callback: L.Callback, hook: str) -> bool:
    """Return whether a callback has a hook of its own."""
    found = getattr(callback, hook)
    return callable(found) and getattr(found, "__func__", found) is not getattr(L.Callback, hook)
