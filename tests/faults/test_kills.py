"""Kills, power cuts and flipped bits. Each fault is also met by a naive saver, which must lose: else the test
would prove nothing."""

import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from segtrain import checkpoint

FACTS = {
    "classes": ("a",),
    "palette": ((0, 0, 0),),
    "ignore_index": 255,
    "channels": 3,
    "things": (),
    "normalisation": None,
}
SIZE = 1 << 18


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """Hundreds of reports of what was passed over would bury a failure."""
    monkeypatch.setattr("segtrain.checkpoint.finding.notice", lambda text: None)


def values(step):
    # Filled by numpy: torch would use threads, which a forked process does not have.
    return torch.from_numpy(np.full(SIZE, step, dtype=np.float32))


class Ours:
    """segtrain's own checkpoints, as the training loop uses them."""

    @staticmethod
    def save(run, step):
        described = {
            "config": {"note": "x" * 2000},
            "facts": FACTS,
            "task": "semantic",
            "step": step,
            "scores": None,
            "protocol": None,
        }
        checkpoint.save(
            run, step, {"weight": values(step)}, {"step": step, "moment": values(-step)}, described
        )
        checkpoint.link(run, "last", step)
        checkpoint.link(run, "best", step - step % 3 or step)
        checkpoint.prune(run, 2)

    @staticmethod
    def load(run):
        path = checkpoint.find(run, "last")
        state = checkpoint.load_state(path)
        step = state["step"]
        assert checkpoint.describe(path)["step"] == step
        assert torch.equal(checkpoint.load_weights(path)["weight"], values(step)) and torch.equal(
            state["moment"], values(-step)
        )
        return step


class Overwriting:
    """torch.save over the same file."""

    @staticmethod
    def save(run, step):
        torch.save({"step": step, "weight": values(step), "moment": values(-step)}, run / "last.pt")

    @staticmethod
    def load(run):
        state = torch.load(run / "last.pt", weights_only=True)
        assert torch.equal(state["weight"], values(state["step"]))
        return state["step"]


class Unsynced(Overwriting):
    """Temporary file and rename, but nothing makes the content durable before the name."""

    @staticmethod
    def save(run, step):
        Overwriting.save(run, step)
        os.rename(run / "last.pt", run / "last.tmp")
        os.rename(run / "last.tmp", run / "last.pt")


def kill_while_saving(saver, run, first, delay_s):
    """A process that saves step after step until SIGKILL; the last step whose save it reported as done."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        torch.set_num_threads(1)  # the parent's threads are not there
        step = first
        while True:
            saver.save(run, step)
            os.write(write, step.to_bytes(4, "little"))
            step += 1
    os.close(write)
    time.sleep(delay_s)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with open(read, "rb") as pipe:
        done = pipe.read()
    return int.from_bytes(done[-4:], "little") if done else first - 1


def losses(saver, run, num_kills, rng):
    """How many of the kills left no readable checkpoint, or one older than the last completed save."""
    saver.save(run, 1)
    last, lost = 1, 0
    for _ in range(num_kills):
        done = kill_while_saving(saver, run, last + 1, rng.uniform(0.002, 0.15))
        try:
            found = saver.load(run)
        except Exception:
            found = -1
        lost += found < done
        if found < done:
            saver.save(run, done)
        last = max(found, done)
    assert last > num_kills / 5, "hardly anything was saved between the kills, so that they prove nothing"
    return lost


@pytest.mark.parametrize("num_kills", [25, pytest.param(400, marks=pytest.mark.slow)])
def test_a_kill_at_any_instant_loses_no_completed_save(tmp_path, num_kills):
    rng = random.Random(0)
    assert losses(Ours, tmp_path, num_kills, rng) == 0
    Ours.save(tmp_path, 10**6)
    tidy = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    # Two kept, the best one and the two links: nothing that a kill left half written.
    assert len(tidy) <= 5 and not [
        name for name in tidy if name.startswith(".") or name.endswith(".replaced")
    ]


def test_the_same_kills_do_lose_the_work_of_a_naive_saver(tmp_path):
    rng = random.Random(0)
    assert any(losses(Overwriting, tmp_path, 10, rng) for _ in range(10))


def replay_power_cuts(saver, run, monkeypatch):
    """Losses over a power cut after each sync, rename and link of one save: what was never synced comes back
    empty.

    That is what a journalling file system may do: the names are there, the content is not.
    """
    saver.save(run, 1)
    durable = {path.stat().st_ino for path in run.rglob("*") if path.is_file()}
    outcomes = []
    real = {name: getattr(os, name) for name in ("fsync", "rename", "replace")}

    def cut():
        shadow = run.with_name(f"cut-{len(outcomes)}")
        shutil.copytree(run, shadow, symlinks=True)
        for path in run.rglob("*"):
            if path.is_file() and not path.is_symlink() and path.stat().st_ino not in durable:
                (shadow / path.relative_to(run)).write_bytes(b"")
        try:
            outcomes.append(saver.load(shadow) in (1, 2))
        except Exception:
            outcomes.append(False)

    def fsync(descriptor):
        real["fsync"](descriptor)
        durable.add(os.fstat(descriptor).st_ino)
        cut()

    def renaming(name):
        def rename(old, new):
            real[name](old, new)
            cut()

        return rename

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", renaming("rename"))
    monkeypatch.setattr(os, "replace", renaming("replace"))
    saver.save(run, 2)
    monkeypatch.undo()
    return outcomes.count(False), len(outcomes)


@pytest.mark.parametrize("saver", [Ours, Unsynced])
def test_a_power_cut_after_any_step_of_a_save_leaves_a_readable_checkpoint(tmp_path, monkeypatch, saver):
    monkeypatch.setitem(globals(), "SIZE", 1 << 10)
    run = tmp_path / "run"
    run.mkdir()
    lost, cuts = replay_power_cuts(saver, run, monkeypatch)
    assert (lost == 0 and cuts >= 10) if saver is Ours else lost > 0


def flip(path: Path, position: int, bit: int) -> None:
    with open(path, "r+b") as file:
        file.seek(position)
        old = file.read(1)[0]
        file.seek(position)
        file.write(bytes([old ^ (1 << bit)]))


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt", "description.json"])
def test_every_flipped_bit_is_found(tmp_path, monkeypatch, name):
    monkeypatch.setitem(globals(), "SIZE", 1 << 10)
    for step in (1, 2):
        Ours.save(tmp_path, step)
    path = tmp_path / "checkpoints/2" / name
    rng, unseen_by_torch = random.Random(0), 0
    for _ in range(100):
        position, bit = rng.randrange(path.stat().st_size), rng.randrange(8)
        flip(path, position, bit)
        assert checkpoint.find(tmp_path, "last").name == "1"
        unseen_by_torch += loads_naively(path)
        flip(path, position, bit)
    assert checkpoint.find(tmp_path, "last").name == "2"
    # Without hashes most of them go unnoticed, so that the test is not void.
    assert unseen_by_torch > 20


def loads_naively(path):
    readers = {
        "state.pt": checkpoint.load_state,
        "model.safetensors": checkpoint.load_weights,
        "description.json": checkpoint.describe,
    }
    try:
        readers[path.name](path.parent)
    except Exception:
        return False
    return True


def test_a_file_cut_at_any_length_is_found(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "SIZE", 1 << 10)
    for step in (1, 2):
        Ours.save(tmp_path, step)
    rng = random.Random(0)
    for name in ("model.safetensors", "state.pt", "description.json", "manifest.json"):
        path = tmp_path / "checkpoints/2" / name
        whole = path.read_bytes()
        for length in (0, 1, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(5))):
            path.write_bytes(whole[:length])
            # A manifest without its last line feed is still the whole manifest.
            expected = "2" if name == "manifest.json" and length == len(whole) - 1 else "1"
            assert checkpoint.find(tmp_path, "last").name == expected
        path.write_bytes(whole)
