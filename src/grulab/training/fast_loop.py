"""``trainer.loop=fast``: Lightning's training loop with less overhead in each step, and with the same bits.

Lightning's own step adds half a millisecond to forward, backward and optimizer, which doubles the time of a step at
the default sizes. The overhead is about 25 hooks, each of them looked up and profiled, nested closures, and metrics
collected for callbacks that do not exist. :func:`use_fast_loop` removes it from a Trainer. The fast loop depends on
private parts of Lightning, so an untested version of Lightning keeps its own loop.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import lightning as L
from lightning.pytorch.plugins.precision import Precision
from torch.optim import Optimizer

from grulab.data.batch import PaddedBatch
from grulab.internals.lightning import SilentProfiler, TrainingEpochLoop
from grulab.training.cuda_graphs import GraphedSteps
from grulab.training.module import SequenceClassifier

if TYPE_CHECKING:
    from grulab.internals.lightning import DataFetcher

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


def use_fast_loop(trainer: L.Trainer, module: SequenceClassifier, with_graphs: bool = False) -> None:
    """Replace the training loop of a Trainer by the fast one.

    Args:
        trainer: a Trainer whose callbacks read the metrics from the module, not from ``trainer.callback_metrics``.
        module: the module that the Trainer will train.
        with_graphs: whether steps are CUDA graphs; see :mod:`grulab.training.cuda_graphs`.
    """
    trainer.fit_loop.epoch_loop = FastEpochLoop(trainer, with_graphs)
    module.lengthens_batches = with_graphs
    trainer.profiler = SilentProfiler()  # type: ignore[attr-defined]
    # Lightning takes a millisecond to log the metrics.
    module.offers_metrics = False
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        for hook in _HOOKS_OF_STEPS:
            if not _does_something(callback, hook):
                # Lightning skips a hook that is not callable; otherwise it would call 40 empty hooks in each step.
                setattr(callback, hook, None)


class FastEpochLoop(TrainingEpochLoop):
    """The loop over the steps of an epoch, for a module with one optimizer, no scheduler and no logging in a step.

    A step calls only the callbacks that override a hook of the step. It increments the same progress counters at the
    same points as Lightning's step, so Lightning's code for checkpoints, restarts and everything between the steps
    still applies.

    Lightning's own step runs first after a restart, and always if the precision is not 32-true or gradients
    accumulate over several batches. The fast step omits hooks that :class:`SequenceClassifier` does not override: the
    module's hooks for a batch, its optimizer step and its gradient clipping. Callbacks cannot log in a step.

    Args:
        trainer: the trainer.
        with_graphs: whether a step of a full batch is a CUDA graph. Callbacks see the loss after the step then, and
            hooks between the forward pass and the end of the step are not called.
    """

    def __init__(self, trainer: L.Trainer, with_graphs: bool) -> None:
        super().__init__(trainer)
        self._with_graphs = with_graphs
        self._graphs: GraphedSteps | None = None

    def on_run_start(self, data_fetcher: "DataFetcher") -> None:
        """Look up the hooks that each step calls, once per epoch."""
        super().on_run_start(data_fetcher)
        self._is_plain = type(self.trainer.precision_plugin) is Precision
        self._on_start = self._hooks("on_train_batch_start")
        self._on_zero_grad = self._hooks("on_before_zero_grad")
        self._on_backward = self._hooks("on_before_backward")
        self._on_gradients = self._hooks("on_after_backward")
        self._on_step = self._hooks("on_before_optimizer_step")
        self._on_end = self._hooks("on_train_batch_end")
        if self._with_graphs and self._graphs is None:
            # After a checkpoint has been restored, also for Lightning's own step after a restart.
            module, data = cast(SequenceClassifier, self.trainer.lightning_module), cast(Any, self.trainer).datamodule
            longest = data.task.length_range[1]
            self._graphs = GraphedSteps(module, self.trainer.optimizers[0], data.config.batch_size, longest)

    def advance(self, data_fetcher: "DataFetcher") -> None:
        """Train on the next batch."""
        if self.restarting or not self._is_plain or self.trainer.accumulate_grad_batches > 1:
            super().advance(data_fetcher)
            return
        trainer, module = self.trainer, cast(SequenceClassifier, self.trainer.lightning_module)
        batch, _, _ = next(data_fetcher)
        is_graph = self._graphs is not None and len(batch.y) == self._graphs.batch_size
        if module.device.type != "cpu" and not is_graph:
            batch = batch.to(module.device)
        self.batch_progress.is_last_batch = data_fetcher.done
        self.batch_progress.increment_ready()
        for hook in self._on_start:
            hook(trainer, module, batch, self.batch_idx)
        self.batch_progress.increment_started()
        optimize = self._replay if is_graph else self._optimize
        outputs = optimize(trainer, module, trainer.optimizers[0], batch)
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

    def _replay(
        self, trainer: L.Trainer, module: SequenceClassifier, optimizer: Optimizer, batch: PaddedBatch
    ) -> dict[str, Any]:
        assert self._graphs is not None
        progress = self.automatic_optimization.optim_progress.optimizer
        progress.step.increment_ready()
        progress.zero_grad.increment_ready()
        progress.zero_grad.increment_started()
        progress.zero_grad.increment_completed()
        loss = self._graphs(batch)
        for hook in self._on_backward:
            hook(trainer, module, loss)
        progress.step.increment_completed()
        return {"loss": loss}

    def _hooks(self, name: str) -> list[Callable[..., None]]:
        callbacks = self.trainer.callbacks
        return [getattr(callback, name) for callback in callbacks if _does_something(callback, name)]


def _does_something(callback: L.Callback, hook: str) -> bool:
    """Return whether a callback overrides a hook."""
    found = getattr(callback, hook)
    return callable(found) and getattr(found, "__func__", found) is not getattr(L.Callback, hook)
