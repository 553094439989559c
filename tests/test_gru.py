"""The five facts about nn.GRU that the seed example shows, and the invariants of packed batches."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from grulab import GRUClassifier
from grulab.config.compose import compose
from grulab.config.notes import notes
from grulab.models.chrono import set_chrono_biases
from grulab.tasks.registry import build_task
from grulab.training.build import build_module

FEATURES, CLASSES = 5, 3


def test_a_gru_carries_past_inputs_forward() -> None:
    gru = nn.GRU(5, 8, batch_first=True)
    x = torch.randn(1, 10, 5)
    changed = x.clone()
    changed[0, 0] += 1
    assert not torch.equal(gru(x)[0][0, -1], gru(changed)[0][0, -1])


def test_argument_order_is_input_size_then_hidden_size() -> None:
    gru = nn.GRU(10, 20)
    assert (gru.input_size, gru.hidden_size) == (10, 20)
    assert gru.weight_ih_l0.shape == (3 * 20, 10)
    assert gru.weight_hh_l0.shape == (3 * 20, 20)


def test_batch_first_puts_the_batch_first() -> None:
    output, h_n = nn.GRU(5, 3, batch_first=True)(torch.randn(4, 7, 5))
    assert output.shape == (4, 7, 3)
    assert h_n.shape == (1, 4, 3)  # h_n is never batch first


def test_without_batch_first_axis_0_is_time() -> None:
    gru = nn.GRU(8, 4)
    x = torch.randn(5, 10, 8)
    output, h_n = gru(x)
    assert output.shape == (5, 10, 4)
    torch.testing.assert_close(output[-1], h_n[0])
    # One sequence of the batch, run alone, gives the same output: axis 1 is not time.
    torch.testing.assert_close(gru(x[:, 3:4])[0], output[:, 3:4])


def test_variable_lengths_are_padded_then_packed() -> None:
    gru = nn.GRU(5, 8, batch_first=True)
    sequences = [torch.randn(length, 5) for length in (7, 3, 5)]
    lengths = torch.tensor([7, 3, 5])
    x = nn.utils.rnn.pad_sequence(sequences, batch_first=True)
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    assert packed.data.shape == (15, 5)  # valid steps only
    output, h_n = gru(packed)
    states, back = pad_packed_sequence(output, batch_first=True)
    assert states.shape == (3, 7, 8)
    assert torch.equal(back, lengths)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(h_n[0, row], states[row, length - 1])


@st.composite
def cases(draw: st.DrawFn) -> tuple[GRUClassifier, Tensor, Tensor, int]:
    """Draw a model, a batch, its lengths, and the number of padding steps to add."""
    torch.manual_seed(draw(st.integers(0, 2**31)))
    model = GRUClassifier(
        FEATURES, draw(st.sampled_from([1, 3, 8])), draw(st.integers(1, 3)), CLASSES, draw(st.booleans())
    )
    batch = draw(st.integers(1, 33))
    lengths = torch.tensor(draw(st.lists(st.integers(1, 50), min_size=batch, max_size=batch)))
    x = torch.randn(batch, int(lengths.max()), FEATURES)
    return model, x, lengths, draw(st.integers(1, 4)) * int(lengths.max())


def loss_and_gradients(model: GRUClassifier, x: Tensor, lengths: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the logits, and the gradients of the weights for a loss that weights each class differently."""
    model.zero_grad()
    logits = model(x, lengths)
    logits.softmax(1).log().mul(torch.arange(1.0, 1 + CLASSES)).sum().backward()
    return logits.detach(), [parameter.grad.clone() for parameter in model.parameters()]


def pad(x: Tensor, lengths: Tensor, extra: int, value: float) -> Tensor:
    """Return the batch with ``extra`` more steps, and ``value`` in every step outside the sequences."""
    padded = torch.full((x.shape[0], x.shape[1] + extra, x.shape[2]), value)
    for row, length in enumerate(lengths):
        padded[row, :length] = x[row, :length]
    return padded


@settings(max_examples=60)
@given(cases(), st.sampled_from([1e6, float("nan"), float("inf"), -1.0]))
def test_padding_changes_no_bit(case: tuple[GRUClassifier, Tensor, Tensor, int], value: float) -> None:
    model, x, lengths, extra = case
    expected, expected_gradients = loss_and_gradients(model, pad(x, lengths, 0, 0.0), lengths)
    logits, gradients = loss_and_gradients(model, pad(x, lengths, extra, value), lengths)
    assert torch.equal(logits, expected)
    assert all(map(torch.equal, gradients, expected_gradients))


@settings(max_examples=30)
@given(cases())
def test_a_batch_equals_its_sequences_one_at_a_time(case: tuple[GRUClassifier, Tensor, Tensor, int]) -> None:
    model, x, lengths, _ = case
    logits, gradients = loss_and_gradients(model, x, lengths)
    sums = [torch.zeros_like(gradient) for gradient in gradients]
    for row, length in enumerate(lengths):
        alone, own = loss_and_gradients(model, x[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(alone[0], logits[row], rtol=0, atol=1e-6)
        for total, gradient in zip(sums, own, strict=True):
            total += gradient
    for total, gradient in zip(sums, gradients, strict=True):
        assert (total - gradient).norm() <= 1e-5 * gradient.norm() + 1e-6


@settings(max_examples=30)
@given(cases())
def test_permuting_the_batch_permutes_the_logits(case: tuple[GRUClassifier, Tensor, Tensor, int]) -> None:
    model, x, lengths, _ = case
    order = torch.randperm(len(lengths))
    torch.testing.assert_close(model(x[order], lengths[order]), model(x, lengths)[order], rtol=0, atol=1e-6)


@settings(max_examples=30)
@given(cases())
def test_padding_gets_no_gradient(case: tuple[GRUClassifier, Tensor, Tensor, int]) -> None:
    model, x, lengths, extra = case
    padded = pad(x, lengths, extra, float("nan")).requires_grad_()
    model(padded, lengths).sum().backward()
    outside = torch.arange(padded.shape[1]) >= lengths[:, None]
    assert (padded.grad[outside] == 0).all()


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_weights_and_last_state_are_those_of_nn_gru(num_layers: int, bidirectional: bool) -> None:
    model = GRUClassifier(FEATURES, 4, num_layers, CLASSES, bidirectional)
    plain = nn.GRU(FEATURES, 4, num_layers, batch_first=True, bidirectional=bidirectional)
    plain.load_state_dict(model.gru.state_dict())
    x = torch.randn(1, 6, FEATURES)
    h_n = plain(x)[1].view(num_layers, 2 if bidirectional else 1, 1, 4)
    expected = model.head(torch.cat(list(h_n[-1]), dim=1))
    torch.testing.assert_close(model(x, torch.tensor([6])), expected)


def test_hidden_states_end_in_the_state_the_head_reads() -> None:
    model = GRUClassifier(FEATURES, 4, 2, CLASSES, bidirectional=True)
    lengths = torch.tensor([3, 6])
    states, last = model.hidden_states(torch.randn(2, 9, FEATURES), lengths)
    assert states.shape == (2, 9, 8)
    assert (states[0, 3:] == 0).all()
    for row, length in enumerate(lengths):
        torch.testing.assert_close(last[row, :4], states[row, length - 1, :4])  # forwards: the last step
        torch.testing.assert_close(last[row, 4:], states[row, 0, 4:])  # backwards: the first


@pytest.mark.parametrize(
    ("x", "lengths", "message"),
    [
        (torch.zeros(2, 4, 5), torch.tensor([0, 4]), "at least 1 step"),
        (torch.zeros(2, 4, 5), torch.tensor([1, 5]), r"5.*\(2, 4, 5\).*4 steps"),
        (torch.zeros(2, 4, 5), torch.tensor([1, 2, 3]), r"\(3,\).*\(2,\)"),
        (torch.zeros(2, 4, 5), torch.tensor([[1, 2]]), r"\(1, 2\).*\(2,\)"),
        (torch.zeros(2, 4, 5), torch.tensor([1.0, 2.0]), "float32.*int64"),
        (torch.zeros(2, 4, 5), torch.tensor([1, 2], dtype=torch.int32), "int32.*int64"),
        (torch.zeros(2, 4, 5), torch.tensor([1, 2], device="meta"), "meta.*cpu"),
        (torch.zeros(4, 5), torch.tensor([4]), r"\(4, 5\).*\(batch, time, 5\)"),
        (torch.zeros(2, 4, 6), torch.tensor([1, 2]), r"\(2, 4, 6\).*\(batch, time, 5\)"),
        (torch.zeros(0, 4, 5), torch.tensor([], dtype=torch.int64), r"\(0, 4, 5\).*empty"),
        (torch.zeros(2, 4, 5, dtype=torch.int64), torch.tensor([1, 2]), "int64.*floating"),
    ],
)
def test_wrong_input_is_refused_by_name(x: Tensor, lengths: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GRUClassifier(5, 3, 1, CLASSES)(x, lengths)


def test_dropout_acts_between_layers_only() -> None:
    lengths = torch.tensor([4, 4])
    x = torch.randn(2, 4, FEATURES)
    one, two = (GRUClassifier(FEATURES, 8, layers, CLASSES, dropout=0.5).train() for layers in (1, 2))
    assert torch.equal(one(x, lengths), one(x, lengths))
    assert not torch.equal(two(x, lengths), two(x, lengths))


@pytest.mark.parametrize(("num_layers", "bidirectional"), [(1, False), (2, True)])
def test_chrono_biases_remember_for_all_times(num_layers: int, bidirectional: bool) -> None:
    """A unit with gate z keeps z of its state in a step: it forgets with a time constant of 1 / (1 - z) steps."""
    torch.manual_seed(0)
    gru = nn.GRU(3, 2000, num_layers, bidirectional=bidirectional)
    before = {name: weight.detach().clone() for name, weight in gru.named_parameters()}
    set_chrono_biases(gru, 100)
    for name, weight in gru.named_parameters():
        if "weight" in name:
            assert torch.equal(weight, before[name])
            continue
        reset, update, new = weight.detach().chunk(3)
        assert torch.equal(torch.cat([reset, new]), torch.cat([before[name][:2000], before[name][4000:]]))
        if name.startswith("bias_hh"):
            assert (update == 0).all()
        else:
            times = 1 / (1 - torch.sigmoid(update.double()))
            assert 2 <= times.min() < 2.5
            assert 99 < times.max() <= 100.001
            # Uniform from 2 to 100: the mean has a standard error of 0.6.
            assert times.mean() == pytest.approx(51, abs=3)
    set_chrono_biases(gru, 1)
    assert (gru.bias_ih_l0[2000:4000] == 0).all()


def test_a_unit_with_a_chrono_bias_keeps_its_state() -> None:
    gru = nn.GRU(1, 1, batch_first=True)
    with torch.no_grad():
        for weight in gru.parameters():
            weight.zero_()
        gru.bias_ih_l0[1] = math.log(49)
        states, _ = gru(torch.zeros(1, 50, 1), torch.ones(1, 1, 1))
    assert states[0, 49, 0] == pytest.approx(0.98**50, rel=1e-4)


def test_an_untrained_run_begins_with_chrono_biases() -> None:
    config = compose(["data=keep", "data.delay=300", "model.update_bias=chrono"])
    module = build_module(config, build_task(config.data))
    assert module.model.gru.bias_ih_l0[8:16].max() > math.log(30)
    limited = compose(["data=keep", "data.delay=300", "model.update_bias=chrono", "model.chrono_length=5"])
    module = build_module(limited, build_task(limited.data))
    assert 0 <= module.model.gru.bias_ih_l0[8:16].max() <= math.log(4)
    assert any(
        "has no effect with model.update_bias=default" in note for note in notes(compose(["model.chrono_length=5"]))
    )
