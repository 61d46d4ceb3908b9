"""Storage that refuses: full disk, file-size limit, read-only. The checkpoint before stays whole and nothing
half written is left."""

import contextlib
import errno
import os
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from program import SMALL, one_line, run

from segtrain import checkpoint
from segtrain.checkpoint import saving
from segtrain.commands.results import write_scores
from segtrain.errors import CheckpointError
from segtrain.run.folder import create
from segtrain.run.lock import Lock
from segtrain.run.record import read_record
from segtrain.run.storage import append_line, free_bytes, probe, write_json
from segtrain.tensors import read_weights

FACTS = {
    "classes": ("a",),
    "palette": ((0, 0, 0),),
    "ignore_index": 255,
    "channels": 3,
    "things": (),
    "normalisation": None,
}
SIZE = 1 << 16


def values(step):
    # Filled by numpy: torch would use threads, which a forked process does not have.
    return torch.from_numpy(np.full(SIZE, step, dtype=np.float32))


def save(run, step):
    described = {
        "config": {"pad": "x" * 3000},
        "facts": FACTS,
        "task": "semantic",
        "step": step,
        "scores": None,
        "protocol": None,
    }
    return checkpoint.save(
        run, step, {"weight": values(step)}, {"step": step, "moment": values(0)}, described
    )


def everything(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def in_child(work):
    """Runs `work` in a forked process, whose limits and rights may be cut down; None, or the one line of its
    error."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            torch.set_num_threads(1)  # the parent's threads are not there
            work()
            os.write(write, b"done")
        except CheckpointError as error:
            os.write(write, f"{error}".encode())
        except BaseException as error:
            os.write(write, f"other: {error!r}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(pid, 0)
    return said


def test_a_naive_save_over_the_old_file_does_lose_it(tmp_path):
    torch.save({"weight": values(0)}, tmp_path / "last.pt")

    def naive():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        torch.save({"weight": values(1)}, tmp_path / "last.pt")

    assert in_child(naive).startswith("other")
    with pytest.raises(CheckpointError):
        read_weights(tmp_path / "last.pt")


@pytest.mark.parametrize("limit", [0, 100, 1000, 100_000, 262_300])
def test_a_file_size_limit_keeps_the_checkpoint_before(tmp_path, limit):
    save(tmp_path, 1)
    before = everything(tmp_path)

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        save(tmp_path, 2)

    said = in_child(limited)
    assert (
        "cannot write" in said
        and "ulimit -f" in said
        and "needed 524.4 kB, free" in said
        and "\n" not in said
    )
    assert everything(tmp_path) == before and os.listdir(tmp_path / "checkpoints") == ["1"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_an_error_at_any_write_or_sync_keeps_the_checkpoint_before(tmp_path, monkeypatch, number):
    save(tmp_path, 1)
    before = everything(tmp_path)
    fsync, write = os.fsync, saving._Hashed.write
    calls = []

    def failing_at(index, real):
        def call(*arguments):
            calls.append(0)
            if len(calls) == index:
                raise OSError(number, os.strerror(number))
            return real(*arguments)

        return call

    for index in range(1, 100):
        calls.clear()
        monkeypatch.setattr(os, "fsync", failing_at(index, fsync))
        monkeypatch.setattr(saving._Hashed, "write", write_failing_at(index, calls, number, write))
        try:
            save(tmp_path, 2)
        except CheckpointError:
            assert not [name for name in os.listdir(tmp_path / "checkpoints") if name.startswith(".")]
            if (tmp_path / "checkpoints/2").exists():
                # The name was in place and only its sync failed: both are whole.
                assert checkpoint.find(tmp_path, "last").name == "2"
                shutil.rmtree(tmp_path / "checkpoints/2")
            assert everything(tmp_path) == before
            continue
        break
    assert 10 < index < 99
    assert checkpoint.find(tmp_path, "last").name == "2"


def write_failing_at(index, calls, number, real):
    """Fails like the file itself: the writer notes the error, as torch.save wraps it into one of its own."""

    def write(self, data):
        calls.append(0)
        if len(calls) == index:
            self.error = OSError(number, os.strerror(number))
            raise self.error
        return real(self, data)

    return write


@contextlib.contextmanager
def small_disk(folder, size):
    folder.mkdir()
    try:
        made = (
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True
            ).returncode
            == 0
        )
    except OSError:
        made = False
    if not made:
        pytest.skip("this user may not mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path):
    with small_disk(tmp_path / "disk", "1400k") as disk:
        run = create(disk, "run")
        probe(run, 1_000_000)
        with pytest.raises(
            CheckpointError, match=r"the disk is full; needed 10\.0 MB, free 1\.4 MB; free some space"
        ):
            probe(run, 10_000_000)
        save(run, 1)
        save(run, 2)
        before = everything(run)
        for _ in range(3):
            with pytest.raises(
                CheckpointError,
                match=r"cannot write .*: the disk is full; needed 524\.4 kB, free .*; free some space",
            ):
                save(run, 3)
            assert everything(run) == before and sorted(os.listdir(run / "checkpoints")) == ["1", "2"]
        (disk / "filler").write_bytes(b"x" * free_bytes(disk))
        with pytest.raises(CheckpointError, match="the disk is full"):
            append_line(run / "metrics.jsonl", '{"step": 1}' * 1000)
        with pytest.raises(CheckpointError, match="the disk is full"):
            write_json(run / "run.json", {"a": "b" * 10000})
        assert checkpoint.find(run, "last").name == "2" and "run.json" not in os.listdir(run)


@pytest.mark.slow
def test_a_board_that_may_not_grow_ends_the_training_as_any_full_disk(tmp_path):
    """The event file takes the contact sheet and is the first to meet the limit, after the checkpoint."""
    words = ("train", *SMALL, "trainer.evaluate_every=1ep", "name=run", "resume=auto")
    refused = run(*words, cwd=tmp_path, shell='ulimit -f 60; exec "$0" "$@"')
    said = one_line(refused, 4)
    assert "events.out.tfevents" in said and "ulimit -f" in said
    folder = tmp_path / "outputs" / "run"
    assert read_record(folder)["exit_code"] == 4 and checkpoint.find(folder, "last").name == "3"
    resumed = run(*words, cwd=tmp_path)
    assert resumed.returncode == 0 and "resuming from outputs/run/checkpoints/3" in resumed.stdout
    whole = run("train", *SMALL, "trainer.evaluate_every=1ep", "name=whole", cwd=tmp_path)
    assert whole.returncode == 0
    of = [
        checkpoint.load_weights(tmp_path / "outputs" / name / "checkpoints" / "4")
        for name in ("run", "whole")
    ]
    assert all(torch.equal(of[0][name], of[1][name]) for name in of[1])


def test_a_contact_sheet_that_finds_no_room_leaves_nothing_half_written(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8))

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        write_scores(tmp_path / "scores.json", {}, tmp_path / "sheet.png", noise)

    said = in_child(limited)
    assert "cannot write" in said and "sheet.png" in said and "ulimit -f" in said
    assert not os.listdir(tmp_path)


def test_a_disk_that_turns_read_only_is_one_line(tmp_path):
    with small_disk(tmp_path / "disk", "4m") as disk:
        run = create(disk, "run")
        save(run, 1)
        if subprocess.run(["mount", "-o", "remount,ro", str(disk)], capture_output=True).returncode:
            pytest.skip("this disk cannot be made read-only")
        attempts = [
            lambda: save(run, 2),
            lambda: probe(run, 1),
            lambda: checkpoint.link(run, "best", 1),
            Lock(run).acquire,
        ]
        for attempt in attempts:
            with pytest.raises(CheckpointError, match=r"the file system is read-only; .*use another folder"):
                attempt()
        assert checkpoint.find(run, "last").name == "1"


@pytest.fixture
def open_folder():
    """A folder that every user can reach; pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="segtrain-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_folder_without_permission_is_one_line(open_folder):
    run = create(open_folder, "run")
    save(run, 1)
    for folder in (run / "checkpoints", run):
        folder.chmod(0o555)
    before = everything(run)

    def unprivileged(work):
        def run_work():
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            work()

        return run_work

    works = {
        "save": lambda: save(run, 2),
        "probe": lambda: probe(run, 1000),
        "lock": lambda: Lock(run).acquire(),
        "create": lambda: create(run, "b"),
        "write": lambda: write_json(run / "a.json", 1),
        "append": lambda: append_line(run / "metrics.jsonl", "1"),
    }
    for name, work in works.items():
        said = in_child(unprivileged(work))
        assert "no permission" in said and "use another folder" in said and "\n" not in said, (name, said)
    assert everything(run) == before and checkpoint.find(run, "last").name == "1"
    for folder in (run, run / "checkpoints"):
        folder.chmod(0o755)
