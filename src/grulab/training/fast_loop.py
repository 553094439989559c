"""Lightning's training loop with a step that costs what its work costs."""

from collections.abc import Callable
from typing import Any, cast

import lightning as L
from lightning.pytorch.loops.fetchers import _DataFetcher
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.plugins.precision import Precision
from torch.optim import Optimizer

from grulab.data.batch import PaddedBatch
from grulab.training.module import SequenceClassifier


class StepLoop(_TrainingEpochLoop):
    """An epoch of a :class:`SequenceClassifier`, which has one optimizer, no scheduler, and logs nothing in a step.

    Lightning's own step takes half a millisecond beside forward, backward and optimizer, as long again as those three
    at the default sizes: some 25 hooks, each announced, profiled and looked up, closures around closures, and metrics
    collected of which there are none. Here a step calls the callbacks that have something to do in it, and moves the
    same counters at the same times, so that checkpoints, restarts and everything between the steps are Lightning's.

    The first step after a restart, and every step in another precision than 32-true or with gradients that accumulate
    over several batches, is Lightning's own. Left out are what a :class:`SequenceClassifier` does not have: hooks of
    the module for single steps, an optimizer step or clipping of its own; and callbacks cannot log in a step.
    """

    def on_run_start(self, data_fetcher: _DataFetcher) -> None:
        """Look up once an epoch what each step calls."""
        super().on_run_start(data_fetcher)
        self._is_plain = type(self.trainer.precision_plugin) is Precision
        self._on_start = self._hooks("on_train_batch_start")
        self._on_zero_grad = self._hooks("on_before_zero_grad")
        self._on_backward = self._hooks("on_before_backward")
        self._on_gradients = self._hooks("on_after_backward")
        self._on_step = self._hooks("on_before_optimizer_step")
        self._on_end = self._hooks("on_train_batch_end")

    def advance(self, data_fetcher: _DataFetcher) -> None:
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
        nothing = getattr(L.Callback, name)
        found = (getattr(callback, name) for callback in self.trainer.callbacks)
        return [hook for hook in found if callable(hook) and getattr(hook, "__func__", hook) is not nothing]
