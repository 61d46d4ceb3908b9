"""A start of a run that exists: what is finished stays as it is, and what dead processes left goes."""

import os
import subprocess
import sys

SMALL = (
    *("data=shapes", "data.size=48", "data.num_train=6", "data.num_val=2", "device=cpu", "model=unet"),
    *("model.widths=[4,8]", "augmentation=none", "loader.batch_size=2", "loader.workers=0"),
    *("evaluate.workers=0", "trainer.steps=1"),
)


def content(folder):
    return {
        path.relative_to(folder): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_a_finished_run_is_left_as_it_is(segtrain, tmp_path):
    assert segtrain("train", *SMALL, "name=run").code == 0
    run = tmp_path / "outputs" / "run"
    before = content(run)
    for words in ((*SMALL, "name=run", "resume=auto"), (f"resume={run}", "loader.workers=1")):
        result = segtrain("train", *words)
        assert result.code == 0 and "is finished" in result.out and "step 1, val/miou" in result.out, (
            result.err
        )
        assert content(run) == before


def test_a_finished_run_whose_last_checkpoint_is_gone_goes_on(segtrain, tmp_path):
    assert segtrain("train", *SMALL, "trainer.save_every=1", "trainer.steps=2", "name=run").code == 0
    last = tmp_path / "outputs" / "run" / "checkpoints" / "2"
    os.truncate(last / "model.safetensors", 100)
    result = segtrain("train", f"resume={tmp_path / 'outputs' / 'run'}")
    assert result.code == 0 and "is finished" not in result.out, result.err
    assert (last / "model.safetensors").stat().st_size > 100


def test_what_dead_processes_left_half_written_goes_at_the_next_start(segtrain, tmp_path):
    assert segtrain("train", *SMALL, "name=run").code == 0
    run = tmp_path / "outputs" / "run"
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    names = [f".run.json.{int(dead.stdout)}-0a1b2c.tmp", f".validation.png.{os.getppid()}-0a1b2c.tmp"]
    for folder in (run, run / "report", run / "checkpoints"):
        for name in names:
            (folder / name).write_text("half")
    assert segtrain("train", f"resume={run}").code == 0
    for folder in (run, run / "report", run / "checkpoints"):
        assert [name for name in names if (folder / name).exists()] == names[1:], (
            "only the living one's stays"
        )
