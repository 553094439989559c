"""What grulab doctor finds, on this machine and with faults injected."""

import fcntl
import json
import math
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from grulab.cli import main
from grulab.config.compose import compose
from grulab.doctor import diagnosis, machine
from grulab.doctor.diagnosis import advice, device_of_auto, path_of_auto
from grulab.kernels import library
from grulab.training import device, device_check
from grulab.training.device import find_accelerator
from tests.test_workers import with_shared_memory

SIZES = ([10, 8, 32], [100, 64, 32])


def stand_in(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Replace the program that reports on a device."""
    monkeypatch.setattr(diagnosis, "_REPORT", (sys.executable, "-c", program))


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the devices out."""
    stand_in(monkeypatch, f"print('''{json.dumps(reported('cpu', kernels=(9, 9)))}''')")


def reported(name: str, waits: str | None = None, **rates: tuple[float, float]) -> dict[str, Any]:
    """Return the report of a device whose paths make so many steps a second at two sizes; 0: they are wrong."""
    checks = [
        {"precision": "32-true", "path": path, "problem": "" if rate[0] else "is wrong: over its limit", "errors": {}}
        for path, rate in rates.items()
    ]
    speeds = [
        {"size": size, "path": path, "steps_per_second": float(rate)}
        for path, own in rates.items()
        for size, rate in zip(SIZES, own, strict=True)
        if rate
    ]
    return {"device": name, "name": "", "checks": checks, "speeds": speeds, "waits": waits}


def test_this_machine_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    code = main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    # The bar is 20 s on an idle machine; tests run beside each other.
    assert time.monotonic() - began < 100
    assert (code, found["wrong"]) == (0, [])
    (cpu, *_) = found["devices"]
    assert {check["path"] for check in cpu["checks"]} >= {"packed", "padded"}
    assert all(check["problem"] == "" for check in cpu["checks"])
    assert all(speed["steps_per_second"] > 0 for speed in cpu["speeds"])
    assert found["advice"].startswith("Use trainer=")


@pytest.mark.parametrize(
    ("patch", "path"),
    [
        # The gradients of the weights, after those of the other arguments.
        (
            "from grulab.kernels.fused import _FusedLayer as layer; right = layer.backward; "
            "layer.backward = staticmethod(lambda c, *d: (*(g := right(c, *d))[:4], *(1.001 * w for w in g[4:])))",
            "kernels",
        ),
        (
            "from grulab.models.padded import _SelectRows as rows; right = rows.backward; "
            "rows.backward = staticmethod(lambda ctx, d: (1.001 * right(ctx, d)[0], None))",
            "padded",
        ),
    ],
)
def test_spoilt_gradients_are_found(
    patch: str, path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if path == "kernels" and not library.is_built():
        pytest.skip("there was no C compiler when grulab was installed")
    few = "from grulab.doctor import device_report as it; it.steps_per_second = lambda *_: 100.0"
    stand_in(monkeypatch, f"{few}; {patch}; it.main()")
    code = main(["doctor"])
    output = capsys.readouterr().out
    assert "is wrong: an error is over its limit" in " ".join(output.split())
    # What default settings do not use is told, and is no reason to fail.
    assert code == (path == "kernels")
    assert ("wrong   cpu, kernels: is wrong" in output) == (path == "kernels")
    assert ("Use trainer=cpu model.backend=torch model.sequences=packed (8 units" in output) == (path == "kernels")


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
            "ends the process that uses it (Segmentation fault)",
        ),
        ("raise RuntimeError('no driver')", "cannot be used: RuntimeError: no driver"),
        ("print('[]')", "cannot be used: its process ended with 0"),
        ("print('{}')", "cannot be used: its process ended with 0"),
        ("print('{\"device\": 3}'); raise SystemExit(3)", "cannot be used: its process ended with 3"),
        ("import time; time.sleep(60)", "takes over 1 seconds to check"),
    ],
)
def test_a_device_that_crashes_is_named(
    program: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(monkeypatch, program)
    monkeypatch.setattr(diagnosis, "_SECONDS", 1 if "sleep" in program else 60)
    assert main(["doctor"]) == 1
    output = capsys.readouterr().out
    assert f"wrong   cpu, packed: {message}" in output
    assert output.endswith("No device computes what it should.\n")


def test_nothing_is_imported_from_the_folder_in_which_it_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json.py", "torch.py", "grulab.py", "sitecustomize.py"):
        (tmp_path / name).write_text("open('executed', 'w')")
    monkeypatch.chdir(tmp_path)
    assert diagnosis.diagnose(tmp_path).wrong == []
    assert not (tmp_path / "executed").exists()


def test_kernels_of_other_sources_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick(monkeypatch)
    monkeypatch.setattr(library, "problem", lambda: "are built of other sources")
    assert main(["doctor"]) == 0
    assert "are built of other sources" in capsys.readouterr().out
    monkeypatch.setenv("CC", "nonesuch")
    assert main(["doctor"]) == 0
    assert "there is no compiler nonesuch; install one" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        ({"lightning": "2.6.3"}, "lightning 2.6.3 was malware"),
        ({"omegaconf": "2.4.0", "hydra-core": "1.3.8"}, "omegaconf 2.4 does not work with hydra-core 1.3"),
        ({"tensorboard": None}, "tensorboard missing"),
    ],
)
def test_bad_versions_are_named(
    versions: dict[str, str | None],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    quick(monkeypatch)
    monkeypatch.setattr(machine, "_version", lambda name: versions.get(name, "1"))
    assert main(["doctor"]) == 1
    assert f"wrong   versions: {message}" in capsys.readouterr().out


def test_locks_without_effect_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    quick(monkeypatch)
    monkeypatch.setattr(fcntl, "lockf", lambda *_: None)
    assert main(["doctor"]) == 1
    assert "wrong   locks in .: two processes get the same lock" in capsys.readouterr().out


@pytest.mark.parametrize(("options", "cause"), [("ro", "cannot be written to"), ("size=16k", "is full")])
def test_shared_memory_that_cannot_be_used_is_named(options: str, cause: str, tmp_path: Path) -> None:
    if shutil.which("unshare") is None or with_shared_memory(options, ["true"], tmp_path).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    program = (
        "from pathlib import Path; from grulab.doctor import machine; print(*machine.examine(Path()), sep='\\n')"
    )
    process = with_shared_memory(options, [sys.executable, "-c", program], tmp_path)
    assert f"worker processes need a little shared memory, and /dev/shm {cause}" in process.stdout, process.stderr


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    found = {each.part: each for each in machine.examine(tmp_path / "missing")}
    assert "cannot be written to (No such file or directory)" in found[f"disk of {tmp_path / 'missing'}"].problem


def test_the_fastest_of_the_right_ones_is_advised() -> None:
    cpu = reported("cpu", kernels=(1000, 50), packed=(500, 30))
    assert advice([cpu]) == "Use trainer=cpu model=gru (8 units over 10 steps: 1,000 steps a second)."
    gpu = reported("cuda:0", "", packed=(300, 300), padded=(310, 310))
    assert advice([cpu, gpu]) == (
        "Use trainer=cpu model=gru (8 units over 10 steps: 1,000 steps a second); from 64 units over 100 steps on "
        "trainer=gpu model.sequences=padded (310 steps a second)."
    )
    wrong = reported("cuda:0", "", packed=(0, 0), padded=(2000, 900))
    assert advice([cpu, wrong]).startswith("Use trainer=gpu model.sequences=padded (8 units")
    assert path_of_auto(wrong) == "packed"
    assert device_of_auto([cpu, wrong]) is wrong
    assert advice([]) == ""
    # Two that are alike: the first, however close the second.
    twin = reported("cuda:1", "", packed=(2100, 990))
    assert "trainer.devices" not in advice([cpu, reported("cuda:0", "", packed=(2000, 900)), twin])
    far = reported("cuda:1", "", packed=(9000, 9000))
    assert advice([cpu, gpu, far]).startswith("Use trainer=gpu trainer.devices=[1] model=gru (8 units")
    graphs = reported("cuda:0", "", packed=(300, 300), graphs=(9000, 3000))
    assert advice([cpu, graphs]).startswith("Use trainer=gpu model.sequences=padded trainer.cuda_graphs=true (8")


def test_auto_takes_mps_only_if_it_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, right, wrong = reported("cpu", packed=(1, 1)), reported("mps", padded=(1, 1)), reported("mps", padded=(0, 0))
    assert device_of_auto([cpu, right]) is right
    assert device_of_auto([cpu, wrong]) is cpu
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    for is_right, expected in ((True, "mps"), (False, "cpu")):
        monkeypatch.setattr(device, "is_right_on_mps", lambda is_right=is_right: is_right)
        assert find_accelerator(compose(["trainer.accelerator=auto"])) == expected
    # What was not checked there is not taken there.
    monkeypatch.setattr(device, "is_right_on_mps", lambda: True)
    for other in ("trainer.precision=64-true", "trainer.precision=bf16-mixed", "model.sequences=packed"):
        assert find_accelerator(compose(["trainer.accelerator=auto", other])) == "cpu"


def test_the_check_of_mps_is_that_of_the_padded_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    errors = device_check.errors_on

    def on_cpu(name: str, *case: str) -> device_check.Errors:
        assert (name, *case) == ("mps", "32-true", "torch", "padded")
        return errors("cpu", *case)

    monkeypatch.setattr(device_check, "errors_on", on_cpu)
    device_check.is_right_on_mps.cache_clear()
    assert device_check.is_right_on_mps()

    def without_operator(*_: str) -> device_check.Errors:
        raise NotImplementedError("aten::gru")

    monkeypatch.setattr(device_check, "errors_on", without_operator)
    device_check.is_right_on_mps.cache_clear()
    assert not device_check.is_right_on_mps()
    device_check.is_right_on_mps.cache_clear()


@pytest.mark.parametrize("place", [0, 3, 11])
def test_errors_that_are_no_numbers_are_wrong(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = device_check._errors, iter(range(100))

    def spoilt(*results: Any) -> device_check.Errors:
        errors = original(*results)
        return replace(errors, gradients=float("nan")) if next(calls) == place else errors

    monkeypatch.setattr(device_check, "_errors", spoilt)
    found = device_check.errors_on("cpu", "32-true", "torch", "padded")
    assert math.isnan(found.gradients)
    assert not found.within(device_check.LIMITS["32-true"])
