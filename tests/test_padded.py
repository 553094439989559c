"""The padded path equals the packed one, and its padding changes nothing."""

from contextlib import nullcontext
from typing import cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from grulab import GRUClassifier
from grulab.internals.torch import flatten_for_cudnn
from grulab.models.padded import PaddedStates
from tests.test_gru import pad

FEATURES, CLASSES = 5, 3


@st.composite
def cases(draw: st.DrawFn) -> tuple[GRUClassifier, Tensor, Tensor]:
    """Draw a model on the padded path, a batch and its lengths."""
    torch.manual_seed(draw(st.integers(0, 2**31)))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    model = GRUClassifier(
        FEATURES,
        draw(st.sampled_from([1, 3, 8, 17])),
        draw(st.integers(1, 3)),
        CLASSES,
        bidirectional=draw(st.booleans()),
        dropout=draw(st.sampled_from([0.0, 0.5])),
        sequences="padded",
    ).to(dtype)
    batch = draw(st.integers(1, 17))
    lengths = torch.tensor(draw(st.lists(st.integers(1, 40), min_size=batch, max_size=batch)))
    return model, torch.randn(batch, int(lengths.max()), FEATURES, dtype=dtype), lengths


def as_packed(model: GRUClassifier) -> GRUClassifier:
    """Return the same model on the packed path."""
    gru, classes = model.gru, model.head.out_features
    packed = GRUClassifier(
        gru.input_size, gru.hidden_size, gru.num_layers, classes, gru.bidirectional, gru.dropout, "torch", "packed"
    ).to(model.head.weight.dtype)
    packed.load_state_dict(model.state_dict())
    return packed


def logits_and_gradients(model: GRUClassifier, x: Tensor, lengths: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
    """Return the logits, the gradients of the weights, and that of x, for a loss that tells the classes apart."""
    model.zero_grad()
    x = x.clone().requires_grad_()
    logits = model(x, lengths)
    loss = nn.functional.cross_entropy(logits, torch.arange(len(x)) % CLASSES)
    loss.backward()
    return logits.detach(), [parameter.grad.clone() for parameter in model.parameters()], cast(Tensor, x.grad)


def halved(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Stand in for dropout, which draws other numbers for another layout."""
    return x * 0.5 if training and p > 0 else x


@settings(max_examples=100)
@given(cases(), st.booleans())
def test_padded_equals_packed(case: tuple[GRUClassifier, Tensor, Tensor], training: bool) -> None:
    model, x, lengths = case
    packed = as_packed(model)
    # nn.GRU's own dropout cannot be replaced: its layers are computed one by one here, as on CUDA.
    packed._has_own_dropout = lambda device: True  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.nn.functional.dropout", halved)
        expected, *gradients = logits_and_gradients(packed.train(training), x, lengths)
        found, *others = logits_and_gradients(model.train(training), x, lengths)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    for one, two in zip([*others[0], others[1]], [*gradients[0], gradients[1]], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


@settings(max_examples=30)
@given(cases())
def test_layers_one_by_one_are_those_of_nn_gru(case: tuple[GRUClassifier, Tensor, Tensor]) -> None:
    model, x, lengths = case
    whole, by_layer = as_packed(model).eval(), as_packed(model).eval()
    by_layer._has_own_dropout = lambda device: True  # type: ignore[method-assign]
    expected, found = (each.hidden_states(x, lengths) for each in (whole, by_layer))
    assert all(map(torch.equal, found, expected))


@settings(max_examples=50)
@given(cases(), st.sampled_from([1e6, float("nan"), float("inf"), -float("inf")]))
def test_the_values_of_padding_change_no_bit(case: tuple[GRUClassifier, Tensor, Tensor], value: float) -> None:
    model, x, lengths = case
    model.eval()
    expected, gradients, _ = logits_and_gradients(model, pad(x, lengths, 2, 0.0).to(x.dtype), lengths)
    found, others, d_x = logits_and_gradients(model, pad(x, lengths, 2, value).to(x.dtype), lengths)
    assert torch.equal(found, expected)
    assert all(map(torch.equal, others, gradients))
    outside = torch.arange(x.shape[1] + 2) >= lengths[:, None]
    assert (d_x[outside] == 0).all()


@settings(max_examples=30)
@given(cases())
def test_the_states_are_those_of_the_packed_path(case: tuple[GRUClassifier, Tensor, Tensor]) -> None:
    model, x, lengths = case
    for found, expected in zip(
        model.eval().hidden_states(x, lengths), as_packed(model).eval().hidden_states(x, lengths), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_second_derivatives_are_those_of_the_packed_path() -> None:
    torch.manual_seed(0)
    model = GRUClassifier(FEATURES, 4, 2, CLASSES, bidirectional=True, sequences="padded").double()
    lengths = torch.tensor([6, 3, 5])
    found = []
    for each in (model, as_packed(model)):
        x = torch.randn(3, 6, FEATURES, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
        logits = each(x, lengths)
        (d_x,) = torch.autograd.grad(logits.square().sum(), x, create_graph=True)
        each.zero_grad()
        d_x.square().sum().backward()
        found.append(each.gru.weight_hh_l0.grad)
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("sequences", "dropout"), [("padded", 0.0), ("packed", 0.5), ("packed", 0.0)])
def test_weights_lie_in_memory_as_cudnn_wants_them(
    sequences: str, dropout: float, bidirectional: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cuDNN would copy them in each call, and warn; here, the calls that lay them out are recorded."""
    groups: list[tuple[list[Tensor], int, bool]] = []

    def record(weights: list[Tensor], stride: int, features: int, mode: int, *_: int, **others: bool) -> None:
        assert stride == 4
        assert all(weights[place].shape[1] == features for place in range(0, len(weights), 4))
        groups.append((weights, features, others["bidirectional"]))

    model = GRUClassifier(FEATURES, 4, 2, CLASSES, bidirectional, dropout, "torch", sequences)
    monkeypatch.setattr(torch, "_cudnn_rnn_flatten_weight", record)
    monkeypatch.setattr(torch.backends.cudnn, "is_acceptable", lambda _: True)
    monkeypatch.setattr(torch.backends.cudnn.rnn, "get_cudnn_mode", lambda _: 3)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    flatten_for_cudnn(model.gru, by_direction=sequences == "padded")
    directions = 2 if bidirectional else 1
    size = 4 if sequences == "padded" else 4 * directions
    assert [len(weights) for weights, *_ in groups] == [size] * (8 * directions // size)
    flat = [weight for weights, *_ in groups for weight in weights]
    assert all(one is other for one, other in zip(flat, model.gru.parameters(), strict=True))
    assert {is_both for *_, is_both in groups} == {bidirectional and sequences == "packed"}


def test_nothing_depends_on_the_lengths_but_values() -> None:
    """On the meta device there are no values, so a shape that needed one would raise."""
    gru = nn.GRU(FEATURES, 4, 2, batch_first=True, bidirectional=True, device="meta")
    lengths = torch.empty(3, dtype=torch.int64, device="meta")
    states = PaddedStates(gru, torch.empty(3, 7, FEATURES, device="meta"), lengths)
    assert states.last().shape == (3, 8)
    assert states.every().shape == (3, 7, 8)


# Dynamo's own.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_torch_compile_takes_the_padded_path_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(torch._dynamo.config, "allow_rnn", True)
    gru = nn.GRU(2, 3, batch_first=True, bidirectional=True)

    def last(x: Tensor, lengths: Tensor) -> Tensor:
        return PaddedStates(gru, x, lengths).last()

    x, lengths = torch.randn(2, 3, 2), torch.tensor([3, 2])
    compiled = torch.compile(last, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, lengths), last(x, lengths))
    gradients = []
    for function in (compiled, last):
        gru.zero_grad()
        function(x, lengths).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in gru.parameters()])
    torch.testing.assert_close(*gradients)
