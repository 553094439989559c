"""Threads, windows and gates that are computed again change no bit of what the kernels compute."""

import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from grulab.kernels import fused, library, step
from grulab.kernels.fused import FusedGRU
from tests.test_kernels import bits, packed
from tests.test_step import batches, make, step_of

pytestmark = pytest.mark.skipif(not library.is_built(), reason="there was no C compiler when grulab was installed")

THREADS = (1, 2, 3, 8)
Use = Callable[[int, bool], None]


@pytest.fixture(scope="module")
def use(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Use]:
    """Return a function that takes kernels with small windows, with or without kept gates, and with threads for
    the smallest layer.
    """
    folder, built = tmp_path_factory.mktemp("kernels"), fused._library
    found: dict[tuple[int, bool], ctypes.CDLL] = {}

    def load(window: int, keep: bool) -> None:
        if (window, keep) not in found:
            path = folder / f"{window}-{keep}.so"
            library.build(
                path, f"-DWINDOW={window}", "-DBLOCK=16", "-DLEAST_WORK=0.0", f"-DMOST_GATES={2**29 if keep else 0}"
            )
            found[window, keep] = library.load(path)
        kernels = found[window, keep]
        fused._library = step._library = lambda: kernels  # type: ignore[assignment]

    yield load
    fused._library = step._library = built


@settings(max_examples=60)
@given(
    features=st.integers(1, 20),
    hidden_size=st.sampled_from([1, 3, 8, 16, 20, 33, 64]),
    num_layers=st.integers(1, 2),
    bidirectional=st.booleans(),
    batch=st.integers(1, 40),
    longest=st.integers(1, 30),
    window=st.sampled_from([100, 1000]),
    seed=st.integers(0, 2**31),
)
def test_every_number_of_threads_computes_the_same_bits(
    use: Use,
    features: int,
    hidden_size: int,
    num_layers: int,
    bidirectional: bool,
    batch: int,
    longest: int,
    window: int,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    gru = FusedGRU(features, hidden_size, num_layers, bidirectional=bidirectional)
    sequences = packed(batch, longest, features)
    truth = None
    for keep in (True, False):
        use(window, keep)
        for threads in THREADS:
            torch.set_num_threads(threads)
            found = bits(gru, sequences)
            truth = truth or found
            assert all(torch.equal(one, other) for one, other in zip(found, truth, strict=True)), (keep, threads)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_training_step_has_the_same_bits_too(use: Use, bidirectional: bool) -> None:
    ends: list[dict[str, Tensor]] = []
    for keep in (True, False):
        use(800, keep)
        for threads in THREADS:
            torch.set_num_threads(threads)
            model = make(3, 18, 2, bidirectional, 4)
            train = step_of(model, clip=0.5)
            for batch in batches(6, 33, 12, 3, 4):
                train(*batch)
            ends.append(model.state_dict())
    for other in ends[1:]:
        assert all(torch.equal(ends[0][name], other[name]) for name in ends[0])


def test_windows_do_not_change_what_is_computed(use: Use) -> None:
    torch.manual_seed(0)
    gru = FusedGRU(3, 20, 2, bidirectional=True)
    sequences = packed(20, 40, 3)
    truth = bits(gru, sequences)
    use(100, False)
    for one, other in zip(bits(gru, sequences), truth, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def large() -> tuple[FusedGRU, PackedSequence]:
    """Return a layer that is large enough for threads."""
    torch.manual_seed(0)
    gru = FusedGRU(16, 64)
    return gru, pack_padded_sequence(torch.randn(32, 100, 16), torch.full((32,), 100), batch_first=True)


def test_a_forked_process_has_threads_of_its_own() -> None:
    gru, sequences = large()

    # Torch's own threads do not survive a fork, so nothing but the kernels may use several.
    @torch.no_grad()
    def compute() -> Tensor:
        torch.set_num_threads(3)
        output: Tensor = gru(sequences)[0].data
        torch.set_num_threads(1)
        return output

    truth = compute()
    child = os.fork()
    if child == 0:
        same = False
        try:
            signal.alarm(60)
            same = torch.equal(compute(), truth) and len(list(Path("/proc/self/task").iterdir())) > 1
        finally:
            os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert torch.equal(compute(), truth)


def test_callers_in_several_threads_do_not_disturb_each_other() -> None:
    gru, sequences = large()
    truth = gru(sequences)[0].data.detach()
    failed = []

    def call() -> None:
        torch.set_num_threads(2)
        with torch.no_grad():
            for _ in range(20):
                if not torch.equal(gru(sequences)[0].data, truth):
                    failed.append(1)

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert failed == []


def test_signals_are_for_the_main_thread() -> None:
    gru, sequences = large()
    torch.set_num_threads(2)
    bits(gru, sequences)
    blocked = [
        int(line.split()[1], 16)
        for task in Path("/proc/self/task").iterdir()
        for line in (task / "status").read_text().splitlines()
        if line.startswith("SigBlk")
    ]
    usual = 1 << 14
    assert any(mask & usual for mask in blocked)
    assert any(not mask & usual for mask in blocked)
