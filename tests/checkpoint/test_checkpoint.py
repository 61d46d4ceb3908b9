"""Checkpoints: what comes back is what was saved; nothing else than tensors and plain data goes in or comes
out."""

import collections
import hashlib
import io
import json
import os
import pathlib
import random
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch

from segtrain import checkpoint
from segtrain.checkpoint.format import MAX_DESCRIPTION
from segtrain.errors import CheckpointError, ConfigError
from segtrain.tensors import clean_names
from segtrain.train.random_state import random_state, restore_random_state

FACTS = {
    "classes": ("road", "größe"),
    "palette": ((0, 0, 0), (255, 1, 2)),
    "ignore_index": 255,
    "channels": 3,
    "things": (1,),
    "normalisation": {"mean": (0.5,) * 3, "std": (0.25,) * 3},
}


def description(step=1, **changes):
    config = {"data": {"name": "folder", "label_map": {7: 0, -1: 255}}, "trainer": {"steps": 3}}
    return {
        "config": config,
        "facts": FACTS,
        "task": "semantic",
        "step": step,
        "scores": {"val/miou": 0.5},
        "protocol": None,
        **changes,
    }


def weights(seed=0):
    torch.manual_seed(seed)
    return {
        "head.weight": torch.randn(3, 4),
        "encoder.bn.num_batches_tracked": torch.tensor(3),
        "encoder.half": torch.randn(2).bfloat16(),
    }


def saved(run, *steps, **changes):
    run.mkdir(exist_ok=True)
    for step in steps:
        checkpoint.save(run, step, weights(step), {"step": step}, description(step, **changes))
    return run


def same(left, right):
    return left.keys() == right.keys() and all(
        torch.equal(left[key], right[key]) and left[key].dtype == right[key].dtype for key in left
    )


# --- saving and loading


def test_what_was_saved_comes_back(tmp_path):
    network = torch.nn.Linear(3, 4)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {
        "optimizer": optimizer.state_dict(),
        "raw": network.state_dict(),
        "random": random_state(),
        "best": None,
        "pairs": [(1, 2.5)],
    }
    path = checkpoint.save(tmp_path, 12, weights(), state, description(12))
    assert (
        path
        == tmp_path / "checkpoints" / "12"
        == checkpoint.find(tmp_path, "last")
        == checkpoint.find(tmp_path, 12)
    )
    assert same(checkpoint.load_weights(path), weights())
    loaded = checkpoint.load_state(path)
    assert (
        same(loaded["raw"], network.state_dict()) and loaded["pairs"] == [(1, 2.5)] and loaded["best"] is None
    )
    fresh = torch.optim.AdamW(torch.nn.Linear(3, 4).parameters())
    fresh.load_state_dict(loaded["optimizer"])
    described = checkpoint.describe(path)
    assert described["config"] == description()["config"] and described["facts"]["classes"] == [
        "road",
        "größe",
    ]
    manifest = json.loads((path / "manifest.json").read_text())
    assert (
        set(manifest["files"]) == {"model.safetensors", "state.pt", "description.json"}
        and manifest["step"] == 12
    )
    for name, entry in manifest["files"].items():
        assert entry == {
            "sha256": hashlib.sha256((path / name).read_bytes()).hexdigest(),
            "bytes": (path / name).stat().st_size,
        }


def test_the_manifest_is_written_last_and_every_file_is_synced_before_the_rename(tmp_path, monkeypatch):
    events = []
    fsync, rename = os.fsync, os.rename

    def noting_fsync(descriptor):
        events.append(pathlib.Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def noting_rename(old, new):
        events.append(f"rename to {pathlib.Path(new).name}")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "rename", noting_rename)
    saved(tmp_path, 5)
    assert [event for event in events if not event.startswith(".5.")] == [
        "model.safetensors",
        "state.pt",
        "description.json",
        "manifest.json",
        "rename to 5",
        "checkpoints",
        tmp_path.name,
    ]
    assert events.index("rename to 5") > max(i for i, event in enumerate(events) if event.startswith(".5."))


def test_wrappers_leave_no_trace_in_the_names(tmp_path):
    wrapped = {
        "module._orig_mod.a": torch.ones(1),
        "encoder._orig_mod.b": torch.ones(2),
        "neck.module.c": torch.ones(3),
    }
    assert list(clean_names(wrapped)) == ["a", "encoder.b", "neck.module.c"]
    with pytest.raises(CheckpointError, match="two weights are called 'a'"):
        clean_names({"a": torch.ones(1), "module.a": torch.ones(1)})


def test_transposed_tied_and_sliced_weights_are_saved(tmp_path):
    whole = torch.arange(12.0).view(3, 4)
    mixed = {"t": whole.t(), "tied": whole, "tied_too": whole, "slice": whole[1:]}
    assert same(checkpoint.load_weights(checkpoint.save(tmp_path, 1, mixed, {}, description())), mixed)


def test_weights_are_the_same_bytes_in_every_process(tmp_path):
    code = (
        "import torch, hashlib; from segtrain import checkpoint\n"
        "w = {f'layer{i}.{n}': torch.full((i + 1, 2), float(i)) for i in range(20) for n in ('weight', "
        "'bias')}\n"
        "digest = hashlib.sha256(checkpoint.weights_bytes(w)).hexdigest()"
    )
    here = {}
    exec(code, here)
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    there = subprocess.run(
        [sys.executable, "-c", f"{code}\nprint(digest)"],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert there.stdout.strip() == here["digest"]
    header = checkpoint.weights_bytes(weights())
    length = int.from_bytes(header[:8], "little")
    assert len(json.loads(header[8 : 8 + length])["__metadata__"]) <= 1


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (np.float64(1), "numpy.float64"),
        (np.zeros(2), "numpy.ndarray"),
        (pathlib.Path("a"), "PosixPath"),
        (collections.defaultdict(int), "defaultdict"),
        ({1, 2}, "set"),
        (torch.float32, "torch.dtype"),
        (torch.Size([1]), "torch.Size"),
        (lambda: 0, "function"),
    ],
)
def test_a_state_that_would_not_load_again_is_refused_before_anything_is_written(tmp_path, value, named):
    with pytest.raises(TypeError, match=rf"state\['a'\]\[1\].*{named}"):
        checkpoint.save(tmp_path, 1, weights(), {"a": [0, value]}, description())
    assert not list(tmp_path.iterdir())


def test_saving_a_step_again_replaces_it(tmp_path):
    saved(tmp_path, 1, 2)
    checkpoint.save(tmp_path, 2, weights(9), {"again": True}, description(2))
    assert checkpoint.load_state(checkpoint.find(tmp_path, "last")) == {"again": True}
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["1", "2"]


def test_a_kill_between_the_two_renames_of_a_replacement_loses_nothing(tmp_path):
    saved(tmp_path, 2)
    checkpoint.link(tmp_path, "best", 2)
    os.rename(tmp_path / "checkpoints/2", tmp_path / "checkpoints/2.replaced")
    for which in ("last", "best", 2):
        assert checkpoint.load_state(checkpoint.find(tmp_path, which)) == {"step": 2}
    saved(tmp_path, 2)
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["2", "best"]


# --- finding


def test_the_order_is_by_step_not_by_time_or_text(tmp_path):
    saved(tmp_path, 100, 9, 20)
    os.utime(tmp_path / "checkpoints/9", (2e9, 2e9))
    assert checkpoint.find(tmp_path, "last").name == "100"


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt", "description.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "pipe"])
def test_a_damaged_file_is_passed_over_and_named(tmp_path, name, damage, capsys):
    saved(tmp_path, 1, 2)
    path = tmp_path / "checkpoints/2" / name
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-7])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    if damage == "pipe":
        os.mkfifo(path)
    assert checkpoint.to_resume(tmp_path).name == "1"
    said = capsys.readouterr().err
    assert "passed over" in said and str(path) in said and said.count("\n") == 1


def test_weights_alone_are_enough_for_all_but_going_on(tmp_path):
    saved(tmp_path, 1, 2)
    checkpoint.link(tmp_path, "best", 2)
    (tmp_path / "checkpoints/2/state.pt").unlink()
    assert [checkpoint.find(tmp_path, which).name for which in ("best", "last", 2)] == ["2"] * 3
    assert checkpoint.to_resume(tmp_path).name == "1"
    (tmp_path / "checkpoints/1/state.pt").unlink()
    with pytest.raises(CheckpointError, match=r"no whole checkpoint: .*state\.pt: No such file"):
        checkpoint.to_resume(tmp_path)
    (tmp_path / "empty").mkdir()
    assert checkpoint.to_resume(tmp_path / "empty") is None


def test_a_damaged_checkpoint_is_an_error_that_names_another_one(tmp_path):
    saved(tmp_path, 1, 2, 3)
    checkpoint.link(tmp_path, "best", 1)
    for step in (1, 3):
        (tmp_path / f"checkpoints/{step}/state.pt").write_bytes(b"")
    with pytest.raises(
        CheckpointError, match=r"best checkpoint.*step 1.*state\.pt.*; step 2 is whole, use checkpoint=2$"
    ):
        checkpoint.find(tmp_path, "best")
    with pytest.raises(CheckpointError, match=r"checkpoint 1 of.*; step 2 is whole, use checkpoint=2$"):
        checkpoint.find(tmp_path, "1", key="runs")
    with pytest.raises(CheckpointError, match=r"step 2 is whole$"):
        checkpoint.find(tmp_path, "best", key="init")
    (tmp_path / "checkpoints/2/model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"state\.pt has 0 bytes instead of \d+$"):
        checkpoint.find(tmp_path, "best")


def test_without_a_best_one_the_last_is_used_and_said(tmp_path, capsys):
    saved(tmp_path, 1, 2)
    assert checkpoint.find(tmp_path).name == "2"
    assert "no best checkpoint yet" in capsys.readouterr().err


def test_nothing_whole_is_a_checkpoint_error(tmp_path):
    saved(tmp_path, 1)
    (tmp_path / "checkpoints/1/manifest.json").write_text("[" * 100000)
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        checkpoint.find(tmp_path, "last")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        checkpoint.find(tmp_path / "empty", "last")
    assert not checkpoint.has_checkpoint(tmp_path / "empty") and checkpoint.has_checkpoint(tmp_path)


def test_paths_and_words_that_do_not_exist_name_what_does(tmp_path):
    saved(tmp_path / "first", 1, 5)
    with pytest.raises(
        ConfigError, match=r"resume=.*frist does not exist \(did you mean '.*first'\?\); there are .*first"
    ):
        checkpoint.find(tmp_path / "frist", "last", key="resume")
    with pytest.raises(ConfigError, match=r"checkpoint=7:.*no such step; there are 1, 5"):
        checkpoint.find(tmp_path / "first", 7)
    with pytest.raises(
        ConfigError, match=r"checkpoint=bets \(did you mean 'best'\?\); allowed: best, last or a step"
    ):
        checkpoint.find(tmp_path / "first", "bets")
    with pytest.raises(ConfigError, match=r"^runs is empty .*; give the folder of a run"):
        checkpoint.find("", key="runs")
    with pytest.raises(
        ConfigError, match=r"is a checkpoint; give the run's folder, .*first, and checkpoint=5"
    ):
        checkpoint.find(tmp_path / "first/checkpoints/5")


def test_a_checkpoint_under_another_steps_name_is_not_taken(tmp_path):
    saved(tmp_path, 1)
    os.rename(tmp_path / "checkpoints/1", tmp_path / "checkpoints/3")
    with pytest.raises(CheckpointError, match="speaks of step 1, not of 3"):
        checkpoint.find(tmp_path, "last")


# --- links and pruning


def test_links_are_relative_and_switched_at_once(tmp_path):
    saved(tmp_path / "run", 1, 2)
    for step in (1, 2, 1):
        checkpoint.link(tmp_path / "run", "best", step)
        assert os.readlink(tmp_path / "run/checkpoints/best") == str(step)
    os.rename(tmp_path / "run", tmp_path / "moved")
    assert checkpoint.find(tmp_path / "moved", "best") == tmp_path / "moved/checkpoints/1"


def test_a_file_system_without_links_gets_a_file(tmp_path, monkeypatch):
    saved(tmp_path, 1, 2)
    monkeypatch.setattr(
        os, "symlink", lambda *_: (_ for _ in ()).throw(PermissionError(1, "Operation not permitted"))
    )
    checkpoint.link(tmp_path, "best", 1)
    assert checkpoint.find(tmp_path, "best").name == "1"


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    saved(tmp_path, 1)
    os.symlink("../../elsewhere", tmp_path / "checkpoints/best")
    with pytest.raises(CheckpointError, match="points at"):
        checkpoint.find(tmp_path, "best")


def test_prune_keeps_best_last_and_the_newest(tmp_path):
    saved(tmp_path, 1, 2, 3, 4, 5)
    checkpoint.link(tmp_path, "best", 2)
    checkpoint.link(tmp_path, "last", 5)
    assert checkpoint.prune(tmp_path, 2) == [1, 3]
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["2", "4", "5", "best", "last"]
    assert checkpoint.prune(tmp_path, 0) == [4]


def test_prune_counts_no_damaged_checkpoint_and_never_removes_the_last_whole_one(tmp_path):
    saved(tmp_path, 1, 2, 3)
    for step in (2, 3):
        data = bytearray((tmp_path / f"checkpoints/{step}/state.pt").read_bytes())
        data[100] ^= 1
        (tmp_path / f"checkpoints/{step}/state.pt").write_bytes(data)
    checkpoint.prune(tmp_path, 1)
    assert checkpoint.find(tmp_path, "last").name == "1"
    (tmp_path / "checkpoints/1/state.pt").unlink()
    assert checkpoint.prune(tmp_path, 1) == []


# --- what a description may hold


@pytest.mark.parametrize(
    "config",
    [
        {"defaults": []},
        {"a": {"hydra": {}}},
        {"a": [{"_target_": "os.system"}]},
        {"a": {"x._target_": "os.system"}},
        {"a": {"_partial_": True}},
        {"a": "${oc.env:HOME}"},
        {"${a}": 1},
        {"a": object()},
        {"a": float("nan")},
        {"a": (1, {2.5: 0})},
    ],
)
def test_configs_that_are_not_plain_are_refused(tmp_path, config):
    with pytest.raises(ConfigError):
        checkpoint.plain_config(config)
    with pytest.raises(CheckpointError):
        checkpoint.save(tmp_path, 1, weights(), {}, description(config=config))


def forged(run, name, data):
    """A checkpoint of which somebody changed one file and mended the hash, so that only the content can be
    refused."""
    path = saved(run, 1) / "checkpoints/1"
    (path / name).write_bytes(data)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (path / "manifest.json").write_text(json.dumps(manifest))
    return checkpoint.find(run, "last")


@pytest.mark.parametrize(
    "changes",
    [
        {"config": {"model": {"_target_": "os.system"}}},
        {"config": []},
        {"task": None},
        {"step": "1"},
        {"facts": {**FACTS, "classes": [1]}},
        {"facts": {**FACTS, "palette": [[0, 0, 256]]}},
        {"facts": {**FACTS, "channels": 0}},
        {"facts": {**FACTS, "normalisation": {"mean": [0.5]}}},
    ],
)
def test_a_forged_description_is_refused(tmp_path, changes):
    path = forged(tmp_path, "description.json", json.dumps(description(**changes)).encode())
    with pytest.raises(CheckpointError):
        checkpoint.describe(path)


def test_a_huge_description_is_not_read(tmp_path):
    path = forged(tmp_path, "description.json", b" " * (MAX_DESCRIPTION + 1))
    with pytest.raises(CheckpointError, match=r"at most 16\.8 MB"):
        checkpoint.describe(path)


class Attack:
    def __reduce__(self):
        return os.mkdir, (str(Attack.trace),)


def evil_pickle(trace):
    Attack.trace = trace
    file = io.BytesIO()
    torch.save({"state_dict": Attack()}, file)
    return file.getvalue()


def test_a_pickle_is_never_run(tmp_path, monkeypatch):
    trace = tmp_path / "ran"
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    data = evil_pickle(trace)
    path = forged(tmp_path / "run", "state.pt", data)
    with pytest.raises(CheckpointError, match="never run"):
        checkpoint.load_state(path)
    assert not trace.exists()
    # The pickle is real: a plain load does run it.
    torch.load(io.BytesIO(data), weights_only=False)
    assert trace.is_dir()


def test_a_state_that_grows_when_it_is_read_is_refused(tmp_path):
    file = io.BytesIO()
    torch.save({"zeros": torch.zeros(1 << 20)}, file)
    packed = io.BytesIO()
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))
    assert len(packed.getvalue()) < 100_000
    with pytest.raises(CheckpointError, match="compressed"):
        checkpoint.load_state(forged(tmp_path, "state.pt", packed.getvalue()))


# --- random numbers


def draws():
    return [
        random.random(),
        random.gauss(0, 1),
        np.random.rand(3).tolist(),
        np.random.randn(),
        torch.rand(3).tolist(),
        torch.randn(1).item(),
    ]


def test_random_numbers_go_on_where_they_were(tmp_path):
    draws()
    path = checkpoint.save(tmp_path, 1, weights(), {"random": random_state()}, description())
    torch.manual_seed(0)
    restore_random_state(checkpoint.load_state(path)["random"])
    first = draws()
    draws()
    restore_random_state(checkpoint.load_state(path)["random"])
    assert draws() == first
