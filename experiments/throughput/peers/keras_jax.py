"""The same GRU in Keras 3 on JAX, in idiomatic Keras and with the fastest settings found.

    python3 -m venv PEER && PEER/bin/pip install -r requirements.txt
    PEER/bin/python keras_jax.py run DATA.npz --hidden-size 8 --num-layers 1 --threads 1
    PEER/bin/python keras_jax.py sweep DATA.npz --threads 1

The environment has neither grulab nor torch. Each command prints one line of JSON. Keras does less work than grulab:
it writes no checkpoints, curves or tables, and tests the last weights, not the best ones. On the other hand, all
batches are padded to the longest sequence of the task, because JAX compiles again for each shape.
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

# Compilation dominates a sweep of short runs, so quick compilation wins over fast code.
QUICK_COMPILATION = (
    "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
)


def main() -> None:
    began = time.perf_counter()
    arguments = _parse()
    # JAX and numpy start threads and read the environment at import: hence the imports inside functions.
    if arguments.threads is not None:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    os.environ["KERAS_BACKEND"] = "jax"
    if arguments.command == "sweep":
        os.environ.setdefault("XLA_FLAGS", QUICK_COMPILATION)
    # Installed in the environment of this script, not in the one where mypy runs.
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
    """Read the splits, and check that a step is all zeros exactly if it is padding, as `Masking` requires."""
    import numpy as np

    with np.load(path) as file:
        arrays = dict(file)
    for split in ("train", "val", "test"):
        x, lengths = arrays[f"{split}_x"], arrays[f"{split}_lengths"]
        if not np.array_equal(x.any(axis=2), np.arange(x.shape[1]) < lengths[:, None]):
            raise ValueError(f"{split}: a step of zeros inside a sequence, or something else than zeros behind one")
    return {split: (arrays[f"{split}_x"], arrays[f"{split}_y"]) for split in ("train", "val", "test")}


def build(
    splits: "Splits", hidden_size: int, num_layers: int, bidirectional: bool, lr: float, batch_size: int, masked: bool
) -> Any:
    """Return the compiled model. `reset_after=True`, the default, gives the same cell as torch's.

    The smaller last batch of an epoch is kept, as in grulab, which costs a second compilation of the training step.
    With this `steps_per_execution`, batch callbacks would run once per epoch; there are none here.
    """
    import keras

    x, y = splits["train"]
    inputs = keras.Input(x.shape[1:])
    hidden = keras.layers.Masking()(inputs) if masked else inputs
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
    """Train with validation after each epoch, and return the accuracy on the test split."""
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

    Variants that were measured, in milliseconds per epoch (training and validation) after the first one, on one core,
    1000 sequences in batches of 32, within 10 %. Variants without effect are not listed: implicit or explicit mask,
    arrays that JAX already holds, synchronous dispatch, 32-bit labels, other XLA flags.

                                              8 units, 10 steps    64 units, 100 steps
        as in this script                                    7                    150
        no mask (--unmasked)                                 6                    280
        evaluation in batches of 32                          8.5                  160
        steps_per_execution=1                                9                    155
        GRU(implementation=1)                                8                    160
        GRU(unroll=True)                                     9.5                  540 (57 s for the first epoch)
        --xla_cpu_enable_fast_math=true                      8                    173
        --xla_cpu_use_fusion_emitters=false                  7                    227 (1 s less for the first epoch)
    """
    import jax
    import keras

    if arguments.unmasked and not all(x.any(axis=2).all() for x, _ in splits.values()):
        raise ValueError("--unmasked: there is padding")
    began = time.perf_counter()
    keras.utils.set_random_seed(arguments.seed)
    model = build(
        splits,
        arguments.hidden_size,
        arguments.num_layers,
        arguments.bidirectional,
        arguments.lr,
        arguments.batch_size,
        masked=not arguments.unmasked,
    )
    build_seconds = time.perf_counter() - began
    begins: list[float] = []
    trained: list[float] = []
    ends: list[float] = []

    def after_training(logs: Any = None) -> None:
        # JAX dispatches asynchronously: the last steps may not have finished yet.
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

    With 5 epochs nearly all of the time is compilation, so the three seeds share a compiled model with newly drawn
    weights. Seconds for the whole sweep on one core:

        a new model for each seed                                                         167
        a new model for each seed, JAX's persistent cache, and no fusion emitters          62
        a shared model                                                                     57
        and --xla_cpu_use_fusion_emitters=false                                            45
        and --xla_backend_optimization_level=1                                             40
        and --xla_cpu_parallel_codegen_split_count=1                                       34
        level 0 instead of 1 (this script); its code takes two to four times as long       24
        a shared model, and JAX's persistent cache filled by the same sweep before         14

    With many more epochs the faster code wins; XLA_FLAGS in the environment takes precedence.
    """
    import keras

    configurations: list[dict[str, Any]] = []
    for hidden_size, num_layers, bidirectional in itertools.product((8, 16, 32), (1, 2), (False, True)):
        model: Any = None
        for seed in range(3):
            began = time.perf_counter()
            keras.utils.set_random_seed(seed)
            if model is None:
                model = build(
                    splits, hidden_size, num_layers, bidirectional, arguments.lr, arguments.batch_size, masked=True
                )
                untrained = [variable.numpy() for variable in model.optimizer.variables]
            else:
                # New weights and a reset optimizer; the compiled functions are kept.
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
    one.add_argument("--unmasked", action="store_true", help="no mask, for sequences that are all equally long")
    commands.add_parser("sweep", parents=[common], help="grulab's default sweep, 36 models")
    return parser.parse_args()


if __name__ == "__main__":
    main()
