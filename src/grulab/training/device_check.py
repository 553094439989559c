"""Does a device compute what the CPU computes in 64 bits? Logits and gradients of GRUs over batches of many lengths.

The limits are some times the errors measured on CPUs and on an H200 (issue 14). There, packed GRUs in 16 bits had
gradients of some batches that were off by 5 %, three times the error of the others.
"""

import itertools
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from itertools import starmap
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from grulab.models.gru import GRUClassifier
from grulab.system.child import ChildFailedError, in_child

FEATURES, CLASSES = 5, 3
# (units, steps): few of both, as in the default run, and many.
_SIZES = ((8, 10), (64, 50))
_LAYERS, _DIRECTIONS = (1, 2, 3), (False, True)
_BATCH = 16
_SCALE_OF_16_BITS = 1024.0
_SECONDS = 60.0


@dataclass(frozen=True)
class Errors:
    """Differences from 64 bits, each the norm of the difference over the norm; the largest of all models.

    Attributes:
        logits: of the logits.
        gradients: of all gradients together.
        weight: of the gradient of the worst single weight.
    """

    logits: float
    gradients: float
    weight: float

    def within(self, limits: "Errors") -> bool:
        """Return whether no error is over its limit, or NaN."""
        pairs = ((self.logits, limits.logits), (self.gradients, limits.gradients), (self.weight, limits.weight))
        return all(error <= limit for error, limit in pairs)


# Logits and the gradients of all weights.
_Results = tuple[Tensor, list[Tensor]]
# Weights in 32 bits; x, lengths and y; the results in 64 bits.
_Exact = tuple[dict[str, Any], tuple[Tensor, Tensor, Tensor], _Results]

LIMITS = {
    "64-true": Errors(1e-11, 1e-11, 1e-11),
    "32-true": Errors(5e-5, 5e-5, 1e-4),
    "16-mixed": Errors(1e-2, 1e-2, 3e-2),
    "bf16-mixed": Errors(2e-2, 3e-2, 9e-2),
}
# The type of 16 bits of each mixed precision.
AUTOCAST = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


def errors_on(device: str, precision: str, backend: str, sequences: str) -> Errors:
    """Return the largest errors of several GRUs on a device.

    Args:
        device: such as "cpu" or "cuda:1".
        precision: of ``trainer.precision``.
        backend: "torch" or "fused".
        sequences: "packed" or "padded".
    """
    found = []
    for (hidden_size, steps), layers, is_both in itertools.product(_SIZES, _LAYERS, _DIRECTIONS):
        weights, (x, lengths, y), expected = _exact(hidden_size, steps, layers, is_both)
        model = GRUClassifier(FEATURES, hidden_size, layers, CLASSES, is_both, 0.0, backend, sequences)
        model.load_state_dict(weights)
        model = model.to(device, torch.float64 if precision == "64-true" else torch.float32)
        actual = _logits_and_gradients(model, x.to(next(model.parameters())), lengths, y.to(device), precision)
        found.append(_errors(expected, actual))
    return Errors(*(_largest(getattr(each, name) for each in found) for name in ("logits", "gradients", "weight")))


# Every precision and path is compared with the same, which takes longer than most of them.
@cache
def _exact(hidden_size: int, steps: int, layers: int, is_both: bool) -> _Exact:
    torch.manual_seed(hidden_size * layers)
    single, exact = (
        GRUClassifier(FEATURES, hidden_size, layers, CLASSES, is_both, 0.0, "torch", "packed") for _ in range(2)
    )
    exact.double().load_state_dict(single.state_dict())
    x, lengths, y = random_batch(_BATCH, steps)
    return single.state_dict(), (x, lengths, y), _logits_and_gradients(exact, x.double(), lengths, y, "64-true")


@cache
def is_right_on_mps() -> bool:
    """Return whether the padded path passes in 32 bits on this machine's MPS device.

    The check runs in a process of its own: one that has used MPS cannot be forked any more.
    """
    if not torch.backends.mps.is_available():
        return False
    try:
        return bool(in_child(_passes, "mps", seconds=_SECONDS))
    except ChildFailedError:
        # An operator that is missing or broken there, or a device that does not answer.
        return False


def _passes(device: str) -> bool:
    return errors_on(device, "32-true", "torch", "padded").within(LIMITS["32-true"])


def random_batch(batch: int, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return x (batch, time, features), lengths (batch,) with the longest first, and y (batch,), on the CPU."""
    lengths = torch.randint(max(1, steps // 2), steps + 1, (batch,)).sort(descending=True).values
    lengths[0] = steps
    return torch.randn(batch, steps, FEATURES), lengths, torch.randint(0, CLASSES, (batch,))


def _logits_and_gradients(model: GRUClassifier, x: Tensor, lengths: Tensor, y: Tensor, precision: str) -> _Results:
    dtype = AUTOCAST.get(precision)
    with torch.autocast(x.device.type, dtype) if dtype else nullcontext():
        logits = model(x, lengths)
    logits = logits if precision == "64-true" else logits.float()
    scale = _SCALE_OF_16_BITS if precision == "16-mixed" else 1.0
    loss = functional.cross_entropy(logits, y) * scale
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return logits.detach().cpu().double(), [gradient.cpu().double() / scale for gradient in gradients]


def _errors(expected: _Results, found: _Results) -> Errors:
    pairs = list(zip(found[1], expected[1], strict=True))
    one, other = (torch.cat([pair[side].reshape(-1) for pair in pairs]) for side in (0, 1))
    return Errors(_relative(found[0], expected[0]), _relative(one, other), _largest(starmap(_relative, pairs)))


def _largest(errors: Iterable[float]) -> float:
    """Return the largest error; NaN if one is NaN, which ``max`` may skip."""
    return float(torch.tensor(list(errors), dtype=torch.float64).max())


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())
