"""Run folders: names, atomic writes, lines that are cut on resume, storage that refuses. Kills and locks:
tests/faults/."""

import errno
import json
import os
import subprocess
import sys

import pytest

from segtrain.errors import CheckpointError, ConfigError, Interrupted
from segtrain.run.folder import create
from segtrain.run.stop import Stop
from segtrain.run.storage import (
    append_line,
    cut_lines,
    probe,
    remove_leftovers,
    storage,
    write_atomic,
    write_json,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_importing_it_loads_neither_torch_nor_numpy():
    code = "import sys, segtrain.run.lock, segtrain.run.stop, segtrain.run.storage; print([m for m in ('torch', 'numpy', 'hydra') if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


def test_two_runs_of_one_second_do_not_meet(tmp_path):
    folders = [create(tmp_path / "outputs") for _ in range(20)]
    assert len(set(folders)) == 20
    for folder in folders:
        day, time = folder.relative_to(tmp_path / "outputs").parts
        assert len(day) == 10 and len(time) == len("12-34-56-abcdef") and not names(folder)


def test_a_named_run_is_made_once(tmp_path):
    assert create(tmp_path, "größe 1") == tmp_path / "größe 1"
    with pytest.raises(ConfigError, match=r"exists already.*resume="):
        create(tmp_path, "größe 1")


@pytest.mark.parametrize(
    "name", ["", " ", "..", ".", "a/b", "/etc", "a\\b", "a\nb", "a\x00b", ".hidden", "x" * 300, "2024-01-31"]
)
def test_bad_names_are_refused_and_nothing_is_made(tmp_path, name):
    with pytest.raises(ConfigError, match="name is"):
        create(tmp_path, name)
    assert not names(tmp_path)


def test_outputs_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "outputs").write_text("")
    with pytest.raises(CheckpointError, match="cannot write"):
        create(tmp_path / "outputs", "a")


def test_write_atomic_replaces_and_leaves_nothing_else(tmp_path):
    write_json(tmp_path / "a.json", {"ü": [1, float("nan")], "b": None})
    write_json(tmp_path / "a.json", {"ü": [1, float("inf")], "b": (2,)})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"ü": [1, None], "b": [2]}
    assert names(tmp_path) == ["a.json"]


def test_write_atomic_that_fails_keeps_the_old_file(tmp_path, monkeypatch):
    write_atomic(tmp_path / "a", b"old")

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"a: the disk is full; needed 3 B, free .*; free some space"):
        write_atomic(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old" and names(tmp_path) == ["a"]


def test_append_line_that_fails_midway_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    append_line(path, '{"step": 1}')
    write, calls = os.write, []

    def half_then_full(descriptor, data):
        calls.append(data)
        if len(calls) == 2:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        return write(descriptor, data[:5])

    monkeypatch.setattr(os, "write", half_then_full)
    with pytest.raises(CheckpointError, match="quota"):
        append_line(path, '{"step": 2}')
    monkeypatch.undo()
    append_line(path, '{"step": 3, "ü": 1}', durable=True)
    assert path.read_text(encoding="utf-8") == '{"step": 1}\n{"step": 3, "ü": 1}\n'


def test_cut_lines_keeps_what_the_checkpoint_knows(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [
        '{"step": 1, "loss": 2}',
        '{"step": 2}',
        '{"step": 2, "val/miou": 0.5}',
        '{"step": 3}',
        "not json",
        '{"loss": 1}',
        '{"step": 2',
    ]
    path.write_text("\n".join(lines))
    assert cut_lines(path, 2) == 4
    assert path.read_text().splitlines() == lines[:3]
    inode = path.stat().st_ino
    assert cut_lines(path, 2) == 0 and path.stat().st_ino == inode
    assert cut_lines(tmp_path / "none", 2) == 0
    assert cut_lines(path, 2, due="val/") == 1 and path.read_text().splitlines() == lines[:2]


def test_probe_says_what_was_needed_and_what_is_free(tmp_path):
    probe(tmp_path, 1 << 20)
    with pytest.raises(
        CheckpointError, match=r"the disk is full; needed 1000000\.0 TB, free .*B; free some space"
    ):
        probe(tmp_path, 10**18)
    with pytest.raises(CheckpointError, match="cannot write"):
        probe(tmp_path / "none", 1)
    assert not names(tmp_path)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "no permission"),
        (errno.EIO, "output error"),
    ],
)
def test_storage_errors_are_one_line(tmp_path, number, words):
    with (
        pytest.raises(CheckpointError, match=words) as caught,
        storage(tmp_path / "a\nb", 1234567),
    ):
        raise OSError(number, os.strerror(number))
    assert "\n" not in str(caught.value) and "1.2 MB" in str(caught.value) and caught.value.exit_code == 4


def test_leftovers_of_dead_writers_go_and_those_of_the_living_stay(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    gone, stays = f".100.{dead.pid}-0123ab.tmp", f".100.{os.getppid()}-0123ab.tmp"
    for name in (gone, stays):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_text("half")
    (tmp_path / ".notes.tmp").write_text("the user's")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == sorted([stays, ".notes.tmp"])


def test_stop_without_install_never_asks():
    stop = Stop()
    stop.raise_if_requested()
    assert stop.requested is None


def test_interrupted_has_the_exit_code_of_the_signal():
    stop = Stop()
    stop.requested = 15
    with pytest.raises(Interrupted, match="SIGTERM") as caught:
        stop.raise_if_requested()
    assert caught.value.exit_code == 143
