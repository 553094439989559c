"""The same GRU in Keras 3 on JAX, written as a good Keras user would and set up to be as fast as Keras gets.

    python3 -m venv PEER && PEER/bin/pip install -r requirements.txt
    PEER/bin/python keras_jax.py run DATA.npz --hidden-size 8 --num-layers 1 --threads 1
    PEER/bin/python keras_jax.py sweep DATA.npz --threads 1

The environment has neither grulab nor torch. Each command prints one line of JSON.
"""

import argparse
import itertools
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Splits = dict[str, tuple[NDArray[np.float32], NDArray[np.int64]]]

# What a sweep of short runs waits for is the compiler, so that the quickest compilation wins over the fastest code.
QUICK_COMPILATION = "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0"


def main() -> None:
    began = time.perf_counter()
    arguments = _parse()
    # Both are read when JAX, and before it numpy, is imported: hence every import of them inside a function.
    if arguments.threads is not None:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    os.environ["KERAS_BACKEND"] = "jax"
    if arguments.command == "sweep":
        os.environ.setdefault("XLA_FLAGS", QUICK_COMPILATION)
    import jax  # type: ignore[import-not-found]
    import keras  # type: ignore[import-not-found]

    result: dict[str, Any] = {"import_seconds": time.perf_counter() - began}
    splits = load(arguments.data)
    result |= run(arguments, splits) if arguments.command == "run" else sweep(arguments, splits)
    result |= {
        "total_seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time(),
        "cores": len(os.sched_getaffinity(0)),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "versions": {"python": sys.version.split()[0], "keras": keras.__version__, "jax": jax.__version__},
    }
    print(json.dumps(result))


def load(path: Path) -> "Splits":
    """Read the splits, and make sure that a step is padding just if all its features are 0, which `Masking` needs."""
    import numpy as np

    with np.load(path) as file:
        arrays = dict(file)
    for split in ("train", "val", "test"):
        x, lengths = arrays[f"{split}_x"], arrays[f"{split}_lengths"]
        if not np.array_equal(x.any(axis=2), np.arange(x.shape[1]) < lengths[:, None]):
            raise ValueError(f"{split}: a step of zeros inside a sequence, or something else than zeros behind one")
    return {split: (arrays[f"{split}_x"], arrays[f"{split}_y"]) for split in ("train", "val", "test")}


def build(
    splits: "Splits", hidden_size: int, num_layers: int, bidirectional: bool, lr: float, batch_size: int
) -> Any:
    """Return the compiled model. `reset_after=True`, the default, makes the cell torch's.

    The callbacks of single steps, of which there are none here, are asked once an epoch (`steps_per_execution`).
    """
    import keras

    x, y = splits["train"]
    inputs = keras.Input(x.shape[1:])
    hidden = keras.layers.Masking()(inputs)
    for layer in range(num_layers):
        gru = keras.layers.GRU(hidden_size, return_sequences=layer < num_layers - 1)
        hidden = (keras.layers.Bidirectional(gru) if bidirectional else gru)(hidden)
    model = keras.Model(inputs, keras.layers.Dense(int(y.max()) + 1)(hidden))
    model.compile(
        keras.optimizers.Adam(lr),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=math.ceil(len(x) / batch_size),
        jit_compile=True,
    )
    model.optimizer.build(model.trainable_variables)
    return model


def fit(model: Any, arguments: argparse.Namespace, splits: "Splits", *callbacks: Any) -> float:
    """Train with a validation after each epoch, and return the accuracy on the test split."""
    model.fit(
        *splits["train"],
        batch_size=arguments.batch_size,
        epochs=arguments.epochs,
        validation_data=splits["val"],
        validation_batch_size=arguments.evaluation_batch_size,
        callbacks=list(callbacks),
        verbose=0,
    )
    _, accuracy = model.evaluate(*splits["test"], batch_size=arguments.evaluation_batch_size, verbose=0)
    return float(accuracy)


def run(arguments: argparse.Namespace, splits: "Splits") -> dict[str, Any]:
    """Train one model and return the times of its parts.

    What was tried, in seconds an epoch (training and validation) on one core, batches of 32 from 1000 sequences:

    {TABLE}
    """
    import jax
    import keras

    began = time.perf_counter()
    keras.utils.set_random_seed(arguments.seed)
    model = build(
        splits,
        arguments.hidden_size,
        arguments.num_layers,
        arguments.bidirectional,
        arguments.lr,
        arguments.batch_size,
    )
    build_seconds = time.perf_counter() - began
    begins: list[float] = []
    trained: list[float] = []
    ends: list[float] = []

    def after_training(logs: Any = None) -> None:
        # The steps were only dispatched. Once more comes from the test, which belongs to no epoch.
        jax.block_until_ready([variable.value for variable in model.trainable_variables])
        trained.append(time.perf_counter())

    clock = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: begins.append(time.perf_counter()),
        on_test_begin=after_training,
        on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter()),
    )
    accuracy = fit(model, arguments, splits, clock)
    test_seconds = time.perf_counter() - ends[-1]
    first, *later = (end - begin for begin, end in zip(begins, ends, strict=True))
    first_train, *later_train = (middle - begin for begin, middle in zip(begins, trained, strict=True))
    return {
        "build_seconds": build_seconds,
        "first_epoch_seconds": first,
        "first_train_epoch_seconds": first_train,
        "epoch_seconds": later,
        "train_epoch_seconds": later_train,
        "test_seconds": test_seconds,
        "test_accuracy": accuracy,
        "parameters": model.count_params(),
    }


def sweep(arguments: argparse.Namespace, splits: "Splits") -> dict[str, Any]:
    """Train the 36 models of grulab's default sweep one after the other.

    {SWEEP}
    """
    import keras

    configurations: list[dict[str, Any]] = []
    for hidden_size, num_layers, bidirectional in itertools.product((8, 16, 32), (1, 2), (False, True)):
        model: Any = None
        for seed in range(3):
            began = time.perf_counter()
            keras.utils.set_random_seed(seed)
            if model is None:
                model = build(splits, hidden_size, num_layers, bidirectional, arguments.lr, arguments.batch_size)
                untrained = [variable.numpy() for variable in model.optimizer.variables]
            else:
                # New weights, and an optimizer that remembers nothing; what is compiled stays.
                model.set_weights(keras.models.clone_model(model).get_weights())
                for variable, value in zip(model.optimizer.variables, untrained, strict=True):
                    variable.assign(value)
            accuracy = fit(model, arguments, splits)
            configurations.append(
                {
                    "hidden_size": hidden_size,
                    "num_layers": num_layers,
                    "bidirectional": bidirectional,
                    "seed": seed,
                    "seconds": time.perf_counter() - began,
                    "test_accuracy": accuracy,
                }
            )
    return {"configurations": configurations}


def _parse() -> argparse.Namespace:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("data", type=Path, metavar="DATA.npz", help="train_, val_ and test_ x, lengths and y")
    common.add_argument("--epochs", type=int, default=5)
    common.add_argument("--batch-size", type=int, default=32)
    common.add_argument("--evaluation-batch-size", type=int, default=1000, help="of validation and test")
    common.add_argument("--lr", type=float, default=0.02)
    common.add_argument("--threads", type=int, help="cores to stay on; by default all that the caller leaves")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", parents=[common], help="one model")
    one.add_argument("--hidden-size", type=int, default=8)
    one.add_argument("--num-layers", type=int, default=1)
    one.add_argument("--bidirectional", action="store_true")
    one.add_argument("--seed", type=int, default=0)
    commands.add_parser("sweep", parents=[common], help="grulab's default sweep, 36 models")
    return parser.parse_args()


if __name__ == "__main__":
    main()
