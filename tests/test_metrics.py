"""The measures of an evaluation, compared with scikit-learn and torchmetrics."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics as reference
from torchmetrics.classification import MulticlassCalibrationError

from grulab import SequenceClassifier, compose
from grulab.data.batch import PaddedBatch
from grulab.tasks.base import Sequences
from grulab.training.metrics import TestMetrics
from grulab.training.worth import difference, worth_in_words
from tests.conftest import Run


@pytest.mark.parametrize("seed", range(5))
def test_measures_are_those_of_scikit_learn(seed: int) -> None:
    torch.manual_seed(seed)
    classes = 5
    logits = 2 * torch.randn(200, classes)
    # A class that never occurs, and one that is never predicted.
    y = torch.randint(0, classes - 1, (200,))
    logits[:, 0] = -9
    metric = TestMetrics(classes)
    calibration = MulticlassCalibrationError(classes, n_bins=15)
    for part in (slice(0, 70), slice(70, 200)):
        metric.add(torch.nn.functional.cross_entropy(logits[part], y[part]), logits[part], y[part])
        calibration.update(logits[part].double().softmax(1), y[part])
    found, predicted = metric.compute(), logits.argmax(1)
    confusion = reference.confusion_matrix(y, predicted, labels=range(classes))
    np.testing.assert_array_equal(metric.confusion, confusion)
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(y, predicted))
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        expected = reference.balanced_accuracy_score(y, predicted)
    assert found["balanced_accuracy"] == pytest.approx(expected)
    assert found["macro_f1"] == pytest.approx(reference.f1_score(y, predicted, average="macro", zero_division=0))
    expected_loss = reference.log_loss(y, logits.double().softmax(1), labels=range(classes))
    assert found["loss"] == pytest.approx(expected_loss, rel=1e-6)
    assert found["calibration_error"] == pytest.approx(float(calibration.compute()), abs=1e-6)
    table = metric.of_each_class()
    assert table.rows(list("abcde"))[0]["support"] == int(confusion[0].sum())
    many = TestMetrics(1000)
    assert many.confusion.numel() == 0
    each = reference.precision_recall_fscore_support(y, predicted, labels=range(classes), zero_division=0)
    for values, expected in zip((table.precision, table.recall, table.f1, table.support), each, strict=True):
        np.testing.assert_allclose(values, expected)


def test_class_weights_give_each_class_the_same_share_of_the_loss() -> None:
    counts = [90, 9, 1]
    weights = [sum(counts) / (3 * count) for count in counts]
    module = SequenceClassifier(2, 4, 1, 3, class_weights=weights)
    y = np.repeat([0, 1, 2], counts)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 3, 2)).astype(np.float32)
    lengths = np.full(100, 3)

    def loss(chosen: np.ndarray) -> float:
        batch = PaddedBatch.of(Sequences(x[chosen], lengths[chosen], y[chosen]))
        return float(module.training_step(batch, 0).detach())

    everything = np.arange(100)
    plain = SequenceClassifier(2, 4, 1, 3)
    plain.load_state_dict(module.state_dict())
    of_class = []
    for code in range(3):
        chosen = everything[y == code]
        batch = PaddedBatch.of(Sequences(x[chosen], lengths[chosen], y[chosen]))
        of_class.append(float(plain.training_step(batch, 0).detach()))
    assert loss(everything) == pytest.approx(np.mean(of_class), rel=1e-5)
    # A sequence counts the same whatever else is in its batch.
    halves = [everything[:50], everything[50:]]
    assert np.mean([loss(half) for half in halves]) == pytest.approx(loss(everything), rel=1e-5)
    with pytest.raises(ValueError, match="class_weights has 2 values, and there are 3 classes"):
        SequenceClassifier(2, 4, 1, 3, class_weights=[1.0, 2.0])


@pytest.mark.parametrize("metric", ["val/macro_f1", "val/balanced_accuracy"])
def test_the_best_epoch_is_chosen_by_the_monitored_measure(run: object, metric: str) -> None:
    assert callable(run)
    summary = run("out", f"checkpoint.monitor={metric}", "trainer.max_epochs=4", "model.hidden_size=2")
    assert summary["monitor"] == metric
    assert metric in summary["metrics"]


def test_of_equal_epochs_the_one_with_the_lowest_loss_is_the_best(run: Run, tmp_path: Path) -> None:
    # Four validation sequences: many epochs have the same accuracy.
    summary = run("out", "data.val_size=4", "trainer.max_epochs=8", "optimizer.lr=0.05", "data=temporal_order")
    table = pd.read_csv(tmp_path / "out" / "metrics.csv")
    best = table[table["val/accuracy"] == table["val/accuracy"].max()]
    assert len(best) > 1
    assert summary["best_epoch"] == int(best.sort_values("val/loss")["epoch"].iloc[0])
    assert best["val/loss"].idxmin() != best.index[0]


def test_class_weights_without_effect_say_so() -> None:
    from grulab.config.notes import notes

    lines = notes(compose(["model.class_weights=balanced"]))
    assert any("model.class_weights=balanced has no effect with data=sinusoids" in line for line in lines)


def of(only_gru: int, only_baseline: int, sequences: int = 100, test: float = 0.8) -> dict[str, object]:
    return {
        "name": "logistic_regression", "val": 0.8, "test": test, "only_gru": only_gru,
        "only_baseline": only_baseline, "sequences": sequences,
    }  # fmt: skip


def test_the_verdict_in_words() -> None:
    assert worth_in_words([[of(15, 2)]]).endswith("A GRU is worth it here.")
    assert worth_in_words([[of(2, 15)]]).endswith("the simple classifier is better.")
    assert worth_in_words([[of(5, 3)]]).endswith("nothing shows that a GRU is worth it here.")
    # The strongest baseline counts.
    assert "majority" not in worth_in_words([[of(15, 2), of(60, 0, test=0.3) | {"name": "majority"}]])
    # Seeds that disagree make it less sure.
    assert worth_in_words([[of(15, 2)], [of(2, 15)], [of(15, 2)]]).endswith(
        "nothing shows that a GRU is worth it here."
    )


def test_the_interval_of_a_paired_difference_holds_its_level() -> None:
    rng = np.random.default_rng(0)
    inside, trials = 0, 2000
    shares = [0.08, 0.05, 0.87]
    for _ in range(trials):
        gru, baseline, _ = rng.multinomial(150, shares)
        mean, half = difference([{"only_gru": int(gru), "only_baseline": int(baseline), "sequences": 150}])
        inside += abs(mean - (shares[0] - shares[1])) <= half
    assert 0.94 <= inside / trials <= 0.98
