"""Folder names are safe for any override text, and never collide."""

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from grulab.run_folder.paths import display_path, make_unused
from grulab.sweep.job_folders import MAX_BYTES, job_folder

keys = st.from_regex(r"[a-z_]{1,12}(\.[a-z_]{1,12}){0,2}", fullmatch=True)
overrides = st.lists(st.tuples(st.sampled_from(["", "+", "++", "~"]), keys, st.text(max_size=40)), max_size=12).map(
    lambda parts: [f"{sign}{key}={value}" for sign, key, value in parts]
)


@given(st.integers(0, 10**6), overrides)
def test_a_name_is_short_and_safe(number: int, job: list[str]) -> None:
    name = job_folder(number, job)
    assert re.fullmatch(r"\d{3,}([A-Za-z0-9_.-]*[A-Za-z0-9])?", name)
    assert len(name.encode()) <= MAX_BYTES


@given(st.lists(overrides, min_size=2, max_size=8))
def test_jobs_of_a_sweep_never_collide(jobs: list[list[str]]) -> None:
    names = [job_folder(number, job) for number, job in enumerate(jobs)]
    # Names differ on case-insensitive file systems too.
    assert len({name.lower() for name in names}) == len(jobs)


def test_a_name_is_readable() -> None:
    job = ["model.hidden_size=16", "model.bidirectional=True", "seed=1", "experiment=architecture"]
    assert job_folder(7, job, exclude=["experiment"]) == "007_hidden_size-16_bidirectional-true_seed-1"
    # Keys with the same last part keep the prefix that tells them apart.
    assert job_folder(0, ["seed=1", "data.seed=2"]) == "000_seed-1_data.seed-2"
    assert job_folder(1, ["optimizer.lr=1e-3", "data.frequencies=[0.1,0.2]"]) == "001_lr-1e-3_frequencies--0.1-0.2"


def test_quick_launches_get_folders_of_their_own(tmp_path: Path) -> None:
    folders = [make_unused(tmp_path / "runs" / "name" / "now") for _ in range(3)]
    assert [folder.name for folder in folders] == ["now", "now-2", "now-3"]
    assert all(folder.is_dir() for folder in folders)


def test_paths_are_shown_as_they_can_be_typed(tmp_path: Path, monkeypatch: object) -> None:
    assert display_path(Path.cwd() / "a b") == "'a b'"
    assert display_path(tmp_path) == str(tmp_path)
