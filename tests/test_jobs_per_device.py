"""How many jobs share an accelerator."""

import os
import time

import pytest
import torch

from grulab.config.compose import compose
from grulab.config.schema import Config
from grulab.config_error import ConfigError
from grulab.sweep import jobs_per_device, slots
from grulab.sweep.jobs_per_device import Measured, jobs_on, measure, share
from grulab.sweep.launcher_settings import parse_settings
from grulab.sweep.slots import find_slots
from tests.conftest import SLICE_SETTINGS

LAUNCHER = {"cores": None, "devices": None, **SLICE_SETTINGS}
GIBIBYTE = 2**30


@pytest.mark.parametrize(
    ("measured", "cores", "expected"),
    [
        # An H200 with the default model: launching is all the cost, and the cores are the limit.
        (Measured(2.9e-3, 0.163e-3, int(0.8 * GIBIBYTE), 139 * GIBIBYTE), 16, 16),
        (Measured(5.9e-3, 2.6e-3, int(0.8 * GIBIBYTE), 139 * GIBIBYTE), 16, 3),
        # A small card.
        (Measured(2.9e-3, 0.163e-3, int(0.8 * GIBIBYTE), 4 * GIBIBYTE), 16, 3),
        # Always busy, or no memory left: one all the same.
        (Measured(1.0, 1.0, GIBIBYTE, 80 * GIBIBYTE), 16, 1),
        (Measured(1.0, 0.1, GIBIBYTE, 0), 16, 1),
        (Measured(1.0, 0.1, GIBIBYTE, 80 * GIBIBYTE), 0, 1),
    ],
)
def test_the_scarcest_part_decides(measured: Measured, cores: int, expected: int) -> None:
    jobs, why = share(measured, cores)
    assert jobs == expected
    assert f"{cores} cores; memory for" in why


def test_it_is_measured_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    process = os.getpid()

    def fake(device: str, config: object) -> Measured:
        assert device == "3"
        assert os.getpid() != process
        return Measured(1.0, 0.5, 1, 100 * GIBIBYTE)

    monkeypatch.setattr(jobs_per_device, "_measure_on", fake)
    assert jobs_on("3", compose(), cores=8)[0] == 2
    assert jobs_on("3", compose(), cores=1)[0] == 1


def test_a_device_that_cannot_be_measured_takes_one_job(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Measured:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(jobs_per_device, "_measure_on", broken)
    expected = (1, "it could not be measured (RuntimeError: CUDA error: out of memory)")
    assert jobs_on("0", compose(), cores=8) == expected
    monkeypatch.setattr(jobs_per_device, "_measure_on", lambda *_: time.sleep(60))
    monkeypatch.setattr(jobs_per_device, "_SECONDS", 0.5)
    assert jobs_on("0", compose(), cores=8) == (1, "it could not be measured (it took over 0.5 seconds)")


def test_each_device_gets_that_many(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = []

    def counted(device: str, config: Config, cores: int) -> tuple[int, str]:
        asked.append((config.model.hidden_size, cores))
        return 3, f"measured on {device}"

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(slots, "jobs_on", counted)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.setattr(slots, "available_cores", lambda: 16)
    monkeypatch.setattr(slots, "_MEASURED", {})
    small, large, slow = (
        compose(["trainer.accelerator=cuda", line])
        for line in ("model.hidden_size=4", "model.hidden_size=64", "trainer.threads=2")
    )
    configs = [small, large]
    assert find_slots(configs, parse_settings(LAUNCHER)) == ["4", "7"] * 3
    assert "jobs_per_device=auto: 3 at once on a device: measured on 4" in capsys.readouterr().out
    # Once in a command, though a race launches several times; and the cores are those of all devices together.
    assert find_slots(configs, parse_settings(LAUNCHER)) == ["4", "7"] * 3
    assert find_slots(configs, parse_settings(LAUNCHER | {"devices": [1], "cores": 6})) == ["7"] * 3
    assert asked == [(64, 8), (64, 6)]
    assert find_slots([slow, large], parse_settings(LAUNCHER | {"devices": [1]})) == ["7"] * 3
    assert asked[-1] == (64, 8)
    assert find_slots(configs, parse_settings(LAUNCHER | {"devices": [1], "jobs_per_device": 2})) == ["7", "7"]


def test_mps_takes_one_job_at_a_time_unless_more_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "find_accelerator", lambda config: "mps")
    assert find_slots([compose()], parse_settings(LAUNCHER)) == [""]
    assert len(find_slots([compose()], parse_settings(LAUNCHER | {"jobs_per_device": 3}))) == 3


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "hydra.launcher.jobs_per_device=null: must be a whole number, or auto"),
        (0, "hydra.launcher.jobs_per_device=0: must be at least 1"),
        ("many", "hydra.launcher.jobs_per_device=many: must be a whole number"),
    ],
)
def test_odd_numbers_are_refused(value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        parse_settings(LAUNCHER | {"jobs_per_device": value})


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-mixed"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_steps_are_measured(device: str, precision: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    found = measure(compose([f"trainer.precision={precision}"]), device)
    assert found.step > 0
    assert found.busy > 0
    assert found.memory >= GIBIBYTE
