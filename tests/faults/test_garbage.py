"""Files of a run that hold garbage, or are pipes, folders or links: made anew or named, never waited for."""

import json
import os
import shutil
import signal

import pytest

from segtrain.checkpoint import link, read_link
from segtrain.errors import CheckpointError
from segtrain.run.lock import Lock
from segtrain.run.record import read_record

RUN = (
    *("data=shapes", "data.size=48", "data.num_train=6", "data.num_val=2", "device=cpu", "model=unet"),
    *("model.widths=[4,8]", "augmentation=none", "loader.batch_size=2", "loader.workers=0", "name=run"),
    *("evaluate.workers=0", "trainer.steps=2", "resume=auto"),
)
GARBAGE = {
    "empty": b"",
    "half a line": b'{"step": 1, "exit_c',
    "deep": b"[" * 200_000,
    "a number": b"7",
    "a list": b"[1, {}]",
    "other types": b'{"step": {}, "earlier": 5, "exit_code": [], "scores": {"score": []}, "pid": 1e999, "host": 3}',
    "no pid": b'{"host": "here"}',
    "bytes": bytes(range(256)) * 9,
}


@pytest.fixture(autouse=True)
def no_hang():
    def late(*_):
        pytest.fail("it waits")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory):
    """A run whose last step is to be taken again."""
    from segtrain.cli.main import main

    place, before = tmp_path_factory.mktemp("unfinished"), os.getcwd()
    os.chdir(place)
    try:
        assert main(["train", *RUN, "trainer.save_every=1"]) == 0
    finally:
        os.chdir(before)
    run = place / "outputs" / "run"
    shutil.rmtree(run / "checkpoints" / "2")
    for which in ("best", "last"):
        link(run, which, 1)
    return run


@pytest.fixture
def run(unfinished, tmp_path):
    return shutil.copytree(unfinished, tmp_path / "outputs" / "run", symlinks=True)


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_made_anew(segtrain, run, content):
    for name in ("run.json", "metrics.jsonl", ".lock", "events.out.tfevents.1.garbage", "debug.log"):
        (run / name).write_bytes(content)
    result = segtrain("train", *RUN)
    assert result.code == 0, result.err
    assert json.loads((run / "run.json").read_text())["exit_code"] == 0
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()][-1] == 2


def pipe(path):
    os.mkfifo(path)


def folder(path):
    path.mkdir()


def linked(path):
    path.symlink_to(path.parents[2] / "elsewhere")


@pytest.mark.parametrize("put", [pipe, folder, linked])
@pytest.mark.parametrize("name", ["run.json", "metrics.jsonl", ".lock", "config.yaml", "debug.log"])
def test_what_is_no_file_is_replaced_or_named(segtrain, run, name, put):
    (run.parents[1] / "elsewhere").write_text("precious")
    (run / name).unlink(missing_ok=True)
    put(run / name)
    result = segtrain("train", *RUN)
    replaced = name == "debug.log" or (name == "run.json" and put is not folder)
    if replaced:
        assert result.code == 0, result.err
    else:
        result.refused(name, code=4)
    assert (run.parents[1] / "elsewhere").read_text() == "precious"


def test_a_fault_of_ours_is_written_elsewhere_than_into_a_pipe(segtrain, run, monkeypatch):
    from segtrain.commands import train

    def broken(*_):
        raise AssertionError("ours")

    monkeypatch.setattr(train, "train", broken)
    os.mkfifo(run / "debug.log")
    result = segtrain("train", *RUN)
    assert result.code == 1 and "AssertionError: ours" in result.err and str(run) not in result.err


@pytest.mark.parametrize("name", ["report", "checkpoints"])
def test_a_folder_that_is_a_link_is_named(segtrain, run, name):
    outside = run.parents[1] / "outside"
    shutil.rmtree(run / name) if (run / name).is_dir() and name == "report" else None
    if name == "checkpoints":
        shutil.move(run / name, outside)
    else:
        outside.mkdir()
    (run / name).symlink_to(outside)
    before = sorted(outside.rglob("*"))
    segtrain("train", *RUN).refused(f"{name} is a link", code=4)
    assert sorted(outside.rglob("*")) == before


def test_a_picture_that_is_a_link_is_replaced(segtrain, run):
    outside = run.parents[1] / "outside"
    outside.write_text("precious")
    (run / "report" / "validation.png").unlink()
    (run / "report" / "validation.png").symlink_to(outside)
    assert segtrain("train", *RUN).code == 0
    assert outside.read_text() == "precious" and not (run / "report" / "validation.png").is_symlink()


def test_a_copy_that_followed_the_links_goes_on(segtrain, run):
    for name in ("best", "last"):
        (run / "checkpoints" / name).unlink()
        shutil.copytree(run / "checkpoints" / "1", run / "checkpoints" / name)
    assert segtrain("train", *RUN).code == 0
    assert read_link(run / "checkpoints" / "last") == 2


def test_a_record_keeps_no_value_of_another_type(tmp_path):
    (tmp_path / "run.json").write_text(
        '{"exit_code": true, "seconds": "long", "scores": {"a": 1}, "seed": 4}'
    )
    assert read_record(tmp_path) == {"scores": {"a": 1}, "seed": 4}


def test_a_lock_that_is_a_pipe_is_named(tmp_path):
    os.mkfifo(tmp_path / ".lock")
    with pytest.raises(CheckpointError, match="is a pipe"):
        Lock(tmp_path).acquire()
