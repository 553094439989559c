"""Save the state of every random generator, in types that ``torch.load(weights_only=True)`` accepts."""

import random
from typing import Any

import lightning as L
import numpy as np
import torch


class RNGState(L.Callback):
    """Stores the states of the random generators in the checkpoint; Lightning omits them (pytorch-lightning#17543).

    The states are restored after the run is set up and before the first batch is fetched, so random numbers drawn
    during the set-up have no effect.
    """

    def __init__(self) -> None:
        self._to_restore: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the current states of the generators of Python, NumPy, torch and CUDA."""
        version, words, gauss = random.getstate()
        name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
        return {
            "python": [version, torch.tensor(words), gauss],
            "numpy": [name, torch.from_numpy(np.array(keys, dtype=np.int64)), position, has_gauss, cached],
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all()
            if torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
            else [],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states for :meth:`on_train_start`."""
        self._to_restore = state_dict

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore the states."""
        if self._to_restore is None:
            return
        states, self._to_restore = self._to_restore, None
        version, words, gauss = states["python"]
        random.setstate((version, tuple(words.tolist()), gauss))
        name, keys, *rest = states["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
        torch.set_rng_state(states["torch"])
        # A checkpoint from another machine may hold the states of more CUDA devices, or of none.
        for device, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state, device)
