"""``trainer.cuda_graphs``: a training step as one CUDA graph for each padded length.

A small GRU keeps a GPU busy for 5 % of a step, and the CPU launches kernels in the rest (issue 14: 2.9 ms of a step
of the default run on an H200, 0.11 ms as a graph). A graph holds forward, loss, sums, backward and Adam over the
padded path. It has the bits of the same step without a graph, so a run may stop anywhere and resume.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from grulab.data.batch import PaddedBatch, rounded_length
from grulab.training.module import SequenceClassifier

_WARM_UP_STEPS = 3


class GraphedSteps:
    """Trains on batches of one size; see the module.

    The optimizer is changed: its learning rate becomes a tensor on the device, which a graph reads.

    Args:
        module: on the padded path, on a CUDA device.
        optimizer: fused Adam.
        batch_size: sequences; a smaller batch has to be trained on without a graph.
        longest: steps of the longest sequence.
    """

    def __init__(self, module: SequenceClassifier, optimizer: Optimizer, batch_size: int, longest: int) -> None:
        self._module, self._optimizer, self.batch_size = module, optimizer, batch_size
        features, device = module.model.gru.input_size, module.device
        # All graphs read these, and as much of x as they are long.
        self._x = torch.zeros(batch_size * rounded_length(longest) * features, device=device)
        self._lengths = torch.ones(batch_size, dtype=torch.int64, device=device)
        self._y = torch.zeros(batch_size, dtype=torch.int64, device=device)
        self._pool: Any = None
        self._graphs: dict[int, Callable[[], Tensor]] = {}
        for group in optimizer.param_groups:
            group["capturable"] = True
            group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=device)

    def __call__(self, batch: PaddedBatch) -> Tensor:
        """Train on a batch on the CPU, if possible in page-locked memory; return its loss, (), on the device."""
        width = rounded_length(batch.x.shape[1])
        x = self._x[: self.batch_size * width * batch.x.shape[2]].view(self.batch_size, width, batch.x.shape[2])
        # What is behind the batch's last step is of earlier batches, and padding.
        x[:, : batch.x.shape[1]].copy_(batch.x, non_blocking=True)
        self._lengths.copy_(batch.lengths, non_blocking=True)
        self._y.copy_(batch.y, non_blocking=True)

        def step() -> Tensor:
            return self._step(x)

        if width not in self._graphs:
            if self._pool is None:
                self._warm_up(step)
            self._graphs[width] = self._captured(step)
        self._module.train_metrics.count()
        # The next step overwrites it.
        return self._graphs[width]().clone()

    def _step(self, x: Tensor) -> Tensor:
        """Train on what is in the inputs; return the loss, ()."""
        module = self._module
        # To None, so that gradients are made in the graph's own memory.
        self._optimizer.zero_grad(set_to_none=True)
        logits = module.model.logits_of_padded(x, self._lengths)
        loss = module.training_loss(logits, self._y)
        module.train_metrics.sum_up(loss, logits, self._y)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return loss.detach()

    def _warm_up(self, step: Callable[[], Tensor]) -> None:
        """Run steps on another stream, as torch's notes on CUDA graphs ask, and take back what they have changed."""
        self._pool = torch.cuda.graph_pool_handle()
        changed = [*self._module.parameters(), *self._module.train_metrics.sums().values()]
        before = [tensor.detach().clone() for tensor in changed]
        states = [{name: value.clone() for name, value in state.items()} for state in self._optimizer.state.values()]
        generator = torch.cuda.get_rng_state()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP_STEPS):
                step()
        torch.cuda.current_stream().wait_stream(side)
        with torch.no_grad():
            for tensor, value in zip(changed, before, strict=True):
                tensor.copy_(value)
            for index, state in enumerate(self._optimizer.state.values()):
                for name, value in state.items():
                    # Before the first step, Adam has no moments.
                    value.copy_(states[index][name]) if states else value.zero_()
        torch.cuda.set_rng_state(generator)

    def _captured(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Return a function that runs the step as a graph; capturing it runs nothing."""
        graph = torch.cuda.CUDAGraph()
        self._optimizer.zero_grad(set_to_none=True)
        # The default would forbid the thread that pins the batches of loader processes to work meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            loss = step()

        def replay() -> Tensor:
            graph.replay()
            return loss

        return replay
