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
from torch import Tensor
from torch.optim import Optimizer

from grulab.data.batch import PaddedBatch
from grulab.internals.lightning import SilentProfiler, TrainingEpochLoop
from grulab.kernels.fused import FusedGRU
from grulab.kernels.step import TrainingStep
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


def use_fast_loop(
    trainer: L.Trainer, module: SequenceClassifier, with_graphs: bool = False, with_step: bool = False
) -> None:
    """Replace the training loop of a Trainer by the fast one.

    Args:
        trainer: a Trainer whose callbacks read the metrics from the module, not from ``trainer.callback_metrics``.
        module: the module that the Trainer will train.
        with_graphs: whether steps are CUDA graphs; see :mod:`grulab.training.cuda_graphs`.
        with_step: whether a step is one call of the kernels; see :mod:`grulab.kernels.step`.
    """
    trainer.fit_loop.epoch_loop = FastEpochLoop(trainer, with_graphs, with_step)
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

    Lightning's own step runs if the precision is not 32-true or gradients accumulate over several batches. The fast
    step omits hooks that :class:`SequenceClassifier` does not override: the module's hooks for a batch, its optimizer
    step and its gradient clipping. Callbacks cannot log in a step.

    Args:
        trainer: the trainer.
        with_graphs: whether a step of a full batch is a CUDA graph. Callbacks see the loss after the step then, and
            hooks between the forward pass and the end of the step are not called.
        with_step: whether a step is one call of the kernels; see :mod:`grulab.kernels.step`. The same holds then, but
            a loss that is not finite has changed nothing.
    """

    def __init__(self, trainer: L.Trainer, with_graphs: bool, with_step: bool) -> None:
        super().__init__(trainer)
        self._with_graphs, self._with_step = with_graphs, with_step
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
        if self._with_step and not (self._on_zero_grad or self._on_gradients or self._on_step):
            # After a checkpoint has been restored, and perhaps after steps of another kind.
            module = cast(SequenceClassifier, self.trainer.lightning_module)
            module.fused_step = module.fused_step or self._make_step()
            module.fused_step.begin()

    def advance(self, data_fetcher: "DataFetcher") -> None:
        """Train on the next batch."""
        if not self._is_plain or self.trainer.accumulate_grad_batches > 1:
            super().advance(data_fetcher)
            return
        if self.restarting and self._has_to_validate_first(data_fetcher):
            return
        self.val_loop.restarting = False
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
        if not loss.requires_grad:
            # The kernels have done the whole step.
            return self._after_whole_step(trainer, module, loss)
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

    def _make_step(self) -> TrainingStep:
        module = cast(SequenceClassifier, self.trainer.lightning_module)
        gru, head = module.model.gru, module.model.head
        assert isinstance(gru, FusedGRU)
        clip = self.trainer.gradient_clip_val
        return TrainingStep(gru, head, self.trainer.optimizers[0], clip, module.class_weights)

    def _has_to_validate_first(self, data_fetcher: "DataFetcher") -> bool:
        """Return whether a checkpoint was written at the end of an epoch, whose validation is still to come.

        These are the first lines of Lightning's own ``advance``.
        """
        if not self._should_check_val_fx(data_fetcher):
            return False
        if self.val_loop.restarted_mid_evaluation:
            return True
        if self.restarted_on_last:
            self._skip_next_val = True
            return True
        self.val_loop.increment_progress_to_evaluation_end()
        return False

    def _replay(
        self, trainer: L.Trainer, module: SequenceClassifier, optimizer: Optimizer, batch: PaddedBatch
    ) -> dict[str, Any]:
        assert self._graphs is not None
        progress = self.automatic_optimization.optim_progress.optimizer
        progress.step.increment_ready()
        return self._after_whole_step(trainer, module, self._graphs(batch))

    def _after_whole_step(self, trainer: L.Trainer, module: SequenceClassifier, loss: Tensor) -> dict[str, Any]:
        """Count a step, from the gradients on, that was done in one piece, and show callbacks its loss."""
        progress = self.automatic_optimization.optim_progress.optimizer
        progress.zero_grad.increment_ready()
        progress.zero_grad.increment_started()
        progress.zero_grad.increment_completed()
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
