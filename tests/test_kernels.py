"""The fused kernels against nn.GRU; nn.GRU in float64 is the reference."""

import copy
import os
import pickle
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from grulab.kernels import fused, library
from grulab.kernels.fused import FusedGRU
from tests.conftest import grulab

pytestmark = pytest.mark.skipif(not library.is_built(), reason="there was no C compiler when grulab was installed")

WIDTHS = [lanes for lanes in (4, 8, 16) if library.is_built() and lanes <= fused.widest_lanes()]


@pytest.fixture(autouse=True)
def _as_wide_as_it_was() -> Iterator[None]:
    before = fused._lanes_for
    yield
    fused._lanes_for = before


def compute_with(lanes: int) -> None:
    fused._lanes_for = lambda hidden_size: lanes


def packed(batch: int, longest: int, features: int, ragged: bool = True) -> PackedSequence:
    lengths = torch.randint(1, longest + 1, (batch,)) if ragged else torch.full((batch,), longest)
    lengths[-1] = longest
    x = torch.randn(batch, longest, features)
    return pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)


def twins(*sizes: int, **options: Any) -> tuple[nn.GRU, FusedGRU]:
    plain, quick = nn.GRU(*sizes, **options), FusedGRU(*sizes, **options)
    quick.load_state_dict(plain.state_dict())
    return plain, quick


def everything(gru: nn.GRU, sequences: PackedSequence, h_0: Tensor | None) -> tuple[list[Tensor], list[Tensor]]:
    """Return a GRU's outputs, and the gradients of a random weighted sum of them by all inputs and weights."""
    dtype = gru.weight_ih_l0.dtype
    x = sequences.data.to(dtype, copy=True).requires_grad_()
    state = None if h_0 is None else h_0.to(dtype, copy=True).requires_grad_()
    output, h_n = gru(PackedSequence(x, *sequences[1:]), state)
    generator = torch.Generator().manual_seed(0)
    weigh = [torch.randn(answer.shape, generator=generator).to(dtype) for answer in (output.data, h_n)]
    inputs = [x, *gru.parameters(), *([] if state is None else [state])]
    loss = (output.data * weigh[0]).sum() + (h_n * weigh[1]).sum()
    return [output.data.detach(), h_n.detach()], list(torch.autograd.grad(loss, inputs))


@settings(max_examples=300)
@given(
    lanes=st.sampled_from(WIDTHS),
    features=st.integers(1, 40),
    hidden_size=st.integers(1, 80),
    num_layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    batch=st.integers(1, 40),
    longest=st.integers(1, 30),
    with_state=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_it_computes_what_nn_gru_computes_in_64_bits(
    lanes: int,
    features: int,
    hidden_size: int,
    num_layers: int,
    bidirectional: bool,
    batch: int,
    longest: int,
    with_state: bool,
    seed: int,
) -> None:
    compute_with(lanes)
    torch.manual_seed(seed)
    plain, quick = twins(features, hidden_size, num_layers, bidirectional=bidirectional)
    sequences = packed(batch, longest, features)
    h_0 = torch.randn((1 + bidirectional) * num_layers, batch, hidden_size) if with_state else None
    plain_answers, _ = everything(plain, sequences, h_0)
    true_answers, true_gradients = everything(plain.double(), sequences, h_0)
    answers, gradients = everything(quick, sequences, h_0)
    for answer, as_torch, truth in zip(answers, plain_answers, true_answers, strict=True):
        # With many features and few units the sums are large, and float32 is not enough for nn.GRU either.
        assert (answer - truth).abs().max() < max(1e-6, 3 * (as_torch - truth).abs().max())
    # Saturated units and cancelling terms shrink the gradients, but not the rounding errors of incoming gradients.
    came_in = sum(answer.numel() for answer in answers) ** 0.5
    for gradient, truth in zip(gradients, true_gradients, strict=True):
        assert (gradient - truth).norm() <= 1e-5 * truth.norm() + 5e-7 * came_in


def test_it_is_right_where_sequences_are_long_and_layers_wide() -> None:
    torch.manual_seed(0)
    for features, hidden_size, batch, longest in [(5, 64, 32, 500), (3, 512, 4, 20), (300, 200, 64, 15)]:
        plain, quick = twins(features, hidden_size, bidirectional=True)
        sequences = packed(batch, longest, features)
        true_answers, true_gradients = everything(plain.double(), sequences, None)
        answers, gradients = everything(quick, sequences, None)
        assert max(float((a - b).abs().max()) for a, b in zip(answers, true_answers, strict=True)) < 1e-6
        ratios = [float((a - b).norm() / b.norm()) for a, b in zip(gradients, true_gradients, strict=True)]
        assert max(ratios) < 1e-5


def test_large_numbers_saturate_and_nan_stays() -> None:
    plain, quick = twins(2, 9)
    data = torch.tensor([[1e30, -1e30], [0.0, 0.0], [-torch.inf, 3.0], [torch.nan, 1.0]])
    sequences = PackedSequence(data, torch.tensor([4]))
    for truth, answer in zip(
        everything(plain, sequences, None)[0], everything(quick, sequences, None)[0], strict=True
    ):
        torch.testing.assert_close(answer, truth, equal_nan=True)


def test_small_numbers_keep_their_digits() -> None:
    """The relative error stays small for tiny numbers: without biases the states are as small as the inputs."""
    for scale in (1e-2, 1e-4, 1e-8):
        plain, quick = twins(4, 20)
        for gru in (plain, quick):
            gru.bias_ih_l0.data.zero_()
            gru.bias_hh_l0.data.zero_()
        sequences = packed(6, 9, 4)
        sequences = PackedSequence(sequences.data * scale, *sequences[1:])
        true_answers, true_gradients = everything(plain.double(), sequences, None)
        answers, gradients = everything(quick, sequences, None)
        for found, truth in zip(answers + gradients, true_answers + true_gradients, strict=True):
            assert (found - truth).norm() < 1e-6 * truth.norm()


def test_what_does_not_lie_in_one_piece_is_read_rightly() -> None:
    plain, quick = twins(4, 6, 2, bidirectional=True)
    for gru in (plain, quick):
        # Weights with the strides of a transposed matrix; the sums below add expanded (stride 0) gradients.
        for name in ("weight_ih_l0", "weight_hh_l1_reverse"):
            weight = getattr(gru, name)
            setattr(gru, name, nn.Parameter(weight.detach().t().contiguous().t()))
    x, h_0 = torch.randn(4, 7).t(), torch.randn(3, 4, 6).transpose(0, 1)
    sequences = PackedSequence(x, torch.tensor([3, 2, 2]))
    results = []
    for gru in (plain, quick):
        output, h_n = gru(sequences, h_0)
        loss = output.data.sum() + h_n.sum() + (output.data.t().contiguous().t() * 2).sum()
        results.append([output.data, h_n, *torch.autograd.grad(loss, list(gru.parameters()))])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    negative = PackedSequence(torch._neg_view(x), torch.tensor([3, 2, 2]))
    torch.testing.assert_close(quick(negative, h_0)[1], plain(negative, h_0)[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("batch_sizes", [[1, 2, 3], [3, -1], [300_000, 300_000], [3, 0, 3], [2, 2], [7], [6, 0]])
def test_what_is_not_packed_is_refused_before_anything_is_read(batch_sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="batch_sizes is not that of a packed batch of 6 rows"):
        FusedGRU(4, 6)(PackedSequence(torch.randn(6, 4), torch.tensor(batch_sizes)))


def test_a_weight_of_another_shape_is_refused() -> None:
    quick = FusedGRU(4, 6)
    quick.weight_ih_l0 = nn.Parameter(torch.zeros(18, 3))
    with pytest.raises(ValueError, match=r"a weight has shape \(18, 3\); expected \(18, 4\)"):
        quick(packed(3, 5, 4))


def test_dropout_between_layers_is_that_of_nn_gru() -> None:
    plain, quick = twins(4, 8, 3, dropout=0.4, bidirectional=True)
    sequences = packed(6, 9, 4)
    for train in (True, False):
        results = []
        for gru in (plain.train(train), quick.train(train)):
            torch.manual_seed(1)
            answers, gradients = everything(gru, sequences, None)
            results.append(answers + gradients)
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def bits(gru: nn.GRU, sequences: PackedSequence) -> list[Tensor]:
    answers, gradients = everything(gru, sequences, None)
    return answers + gradients


def test_its_bits_depend_neither_on_threads_nor_on_avx2_or_avx512_nor_on_the_day() -> None:
    torch.manual_seed(0)
    gru = FusedGRU(6, 37, 2, bidirectional=True)
    sequences = packed(33, 20, 6)
    truth = bits(gru, sequences)
    for lanes in [lanes for lanes in WIDTHS if lanes > 4] or [4]:
        compute_with(lanes)
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert all(torch.equal(one, other) for one, other in zip(bits(gru, sequences), truth, strict=True))


@settings(max_examples=30)
@given(batch=st.integers(2, 20), hidden_size=st.integers(1, 40), bidirectional=st.booleans())
def test_the_others_of_a_batch_change_no_bit_of_a_sequence(batch: int, hidden_size: int, bidirectional: bool) -> None:
    gru = FusedGRU(3, hidden_size, bidirectional=bidirectional)
    lengths = torch.randint(1, 8, (batch,))
    x = torch.randn(batch, 8, 3)
    _, together = gru(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
    for row in range(batch):
        alone = x[row : row + 1, : lengths[row]]
        _, h_n = gru(pack_padded_sequence(alone, lengths[row : row + 1], batch_first=True))
        assert torch.equal(h_n[:, 0], together[:, row])


class _Subclass(Tensor):
    pass


def test_whatever_does_not_fit_is_left_to_nn_gru(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, quick = twins(4, 6, batch_first=True)
    sequences = packed(3, 5, 4)
    x = torch.randn(3, 5, 4)
    monkeypatch.setattr(fused, "_run", lambda *_: pytest.fail("the kernels were used"))

    def same(one: nn.GRU, other: nn.GRU, given: Any) -> None:
        answers = [gru(given)[0] for gru in (one, other)]
        values = [answer.data if isinstance(answer, PackedSequence) else answer for answer in answers]
        assert torch.equal(*values)

    same(plain, quick, x)
    same(plain.double(), quick.double(), PackedSequence(sequences.data.double(), *sequences[1:]))
    same(plain.float(), quick.float(), PackedSequence(sequences.data.as_subclass(_Subclass), *sequences[1:]))
    with torch.autocast("cpu", torch.bfloat16):
        same(plain, quick, sequences)
    same(*twins(4, 6, bias=False), sequences)
    monkeypatch.setattr(library, "problem", lambda: "are not built")
    same(plain, quick, sequences)


def test_a_wrong_shape_is_refused_as_by_nn_gru() -> None:
    plain, quick = twins(4, 6)
    cases: list[tuple[PackedSequence, Tensor | None]] = [
        (PackedSequence(*packed(3, 5, 3)[:2]), None),
        (PackedSequence(*packed(3, 5, 4)[:2]), torch.zeros(1, 2, 6)),
    ]
    for sequences, h_0 in cases:
        messages = []
        for gru in (plain, quick):
            with pytest.raises(RuntimeError) as error:
                gru(sequences, h_0)
            messages.append(str(error.value))
        assert messages[0] == messages[1]


def test_it_is_an_nn_gru_that_can_be_copied_and_pickled() -> None:
    _, quick = twins(4, 6, 2)
    sequences = packed(3, 5, 4)
    for other in (copy.deepcopy(quick), pickle.loads(pickle.dumps(quick))):
        assert isinstance(other, nn.GRU)
        assert torch.equal(other(sequences)[1], quick(sequences)[1])


def test_without_gradients_nothing_is_kept_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    run = fused._run

    def spy(kernel: Any, layer: Any) -> None:
        kept.append(layer.gates)
        run(kernel, layer)

    monkeypatch.setattr(fused, "_run", spy)
    quick = FusedGRU(4, 6)
    with torch.no_grad():
        assert quick(packed(3, 5, 4))[1].grad_fn is None
    frozen = FusedGRU(4, 6).requires_grad_(False)
    assert not frozen(packed(3, 5, 4))[1].requires_grad
    assert kept == [None, None]
    quick(packed(3, 5, 4))
    assert kept[-1] is not None


def test_weights_that_are_computed_get_gradients() -> None:
    """A parametrization computes new weights at each call; nn.GRU notices them, and so must FusedGRU."""
    gradients = []
    for gru in twins(4, 6):
        torch.nn.utils.parametrizations.weight_norm(gru, "weight_hh_l0")
        torch.manual_seed(0)
        gru(packed(3, 5, 4))[1].sum().backward()
        gradients.append(gru.parametrizations.weight_hh_l0.original1.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_gradients_accumulate_and_a_graph_can_be_used_twice() -> None:
    quick = FusedGRU(4, 6, 2)
    loss = quick(packed(3, 5, 4))[1].sum()
    loss.backward(retain_graph=True)
    once = quick.weight_hh_l0.grad.clone()
    loss.backward()
    assert torch.equal(quick.weight_hh_l0.grad, 2 * once)


def test_weights_changed_before_the_backward_pass_are_noticed() -> None:
    quick = FusedGRU(4, 6)
    loss = quick(packed(3, 5, 4))[1].sum()
    with torch.no_grad():
        quick.weight_hh_l0.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_the_kernels_stay_in_bounds_and_leave_nothing_behind(sanitizers: str, tmp_path: Path) -> None:
    program, source = tmp_path / "program", Path(__file__).with_name("kernels_in_bounds.c")
    options = (
        f"-std=gnu11 -g -O1 -Wno-psabi -fno-math-errno -pthread -fsanitize={sanitizers} -fno-sanitize-recover=all"
    )
    compiler = [*shlex.split(os.environ.get("CC", "cc")), *shlex.split(options)]
    command = [*compiler, f"-I{library.PATH.parent}", "-o", str(program), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    finished = subprocess.run([program], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert finished.stdout == "in bounds\n"


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("with_initial_state", [False, True])
def test_second_derivatives_are_those_of_nn_gru(bidirectional: bool, with_initial_state: bool) -> None:
    """A penalty on gradients: create_graph differentiates the backward pass, which the kernels cannot do."""
    gru = FusedGRU(3, 5, num_layers=2, bidirectional=bidirectional, batch_first=True)
    reference = nn.GRU(3, 5, num_layers=2, bidirectional=bidirectional, batch_first=True)
    reference.load_state_dict(gru.state_dict())
    # Not contiguous: the graph has to lead to the input itself.
    data, lengths = torch.randn(7, 4, 3).transpose(0, 1), torch.tensor([7, 5, 2, 1])
    states = torch.randn(4 if bidirectional else 2, 4, 5)
    found = []
    for module in (gru, reference):
        x, h_0 = data.clone().requires_grad_(), states.clone().requires_grad_()
        packed = pack_padded_sequence(x, lengths, batch_first=True)
        output, h_n = module(packed, h_0 if with_initial_state else None)
        loss = h_n.sum() + output.data.square().sum()
        (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
        (loss + 10 * gradient.square().sum()).backward()
        wanted = [x, *([h_0] if with_initial_state else []), *module.parameters()]
        found.append([parameter.grad for parameter in wanted])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bad", [float("inf"), -float("inf"), float("nan")])
@pytest.mark.parametrize("hidden_size", [1, 7, 16, 33])
def test_weights_that_are_not_finite_show_from_the_first_step(bad: float, hidden_size: int) -> None:
    """Without an initial state the first product is with zeros; 0 times infinity is NaN, as with nn.GRU."""
    gru = FusedGRU(3, hidden_size, bidirectional=True)
    with torch.no_grad():
        gru.weight_hh_l0[hidden_size // 2, hidden_size // 2] = bad
        gru.weight_hh_l0_reverse[-1, 0] = bad
    reference = nn.GRU(3, hidden_size, bidirectional=True)
    reference.load_state_dict(gru.state_dict())
    packed = pack_padded_sequence(torch.randn(3, 4, 3), torch.tensor([3, 2, 1, 1]))
    (output, h_n), (expected, expected_h_n) = gru(packed), reference(packed)
    assert torch.equal(output.data.isnan(), expected.data.isnan())
    assert torch.equal(h_n.isnan(), expected_h_n.isnan())
    assert h_n.isnan().any()


# A sequence alone and in a batch, with kernels from a compiler that splits multiply-adds where it may.
ALONE_AND_TOGETHER = """
import sys
from pathlib import Path
from grulab.kernels import library
library.PATH = Path(sys.argv[1])
library.build(library.PATH)
import torch
from grulab.kernels import fused
from torch.nn.utils.rnn import pack_padded_sequence
assert library.is_built(), library.problem()
torch.set_num_threads(1)
differ = 0
for lanes in [lanes for lanes in (16, 8, 4) if lanes <= fused.widest_lanes()]:
    fused._lanes_for = lambda hidden_size: lanes
    for seed in range(40):
        torch.manual_seed(seed)
        gru = fused.FusedGRU(3, 1 + seed % 20)
        x = torch.randn(7, 5, 3)
        with torch.no_grad():
            _, together = gru(pack_padded_sequence(x, torch.full((7,), 5), batch_first=True))
            for row in range(7):
                _, alone = gru(pack_padded_sequence(x[row : row + 1], torch.tensor([5]), batch_first=True))
                differ += not torch.equal(alone[0, 0], together[0, row])
print(differ)
"""


def test_no_compiler_splits_a_multiply_add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GCC 13 does so by default; this option makes older versions do it."""
    splitting = "cc --param=avoid-fma-max-bits=512"
    known = subprocess.run([*splitting.split(), "-E", "-x", "c", "/dev/null"], capture_output=True, check=False)
    if known.returncode:
        pytest.skip("this compiler has no such option")
    monkeypatch.setenv("CC", splitting)
    process = grulab(tmp_path, str(tmp_path / "libgru.so"), program=ALONE_AND_TOGETHER)
    assert process.stdout == "0\n", process.stderr
