"""A system without fcntl, fork and POSIX signal masks trains, stops by a signal and goes on."""

import os
import signal
import subprocess
import sys
import time

import pytest

CODE = """
import os, signal, sys
for name in ("SIGHUP", "pthread_sigmask", "SIGBUS"):
    delattr(signal, name)
import asyncio, cv2, multiprocessing, random, tempfile, torch.utils.data  # others' own business
for module in ("fcntl", "resource"):
    sys.modules[module] = None
for name in ("register_at_fork", "O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK", "pread",
             "pwrite", "set_blocking", "posix_fallocate"):
    delattr(os, name)
multiprocessing.set_start_method("spawn", force=True)
if __name__ == "__main__":
    from segtrain.cli.main import main
    sys.exit(main(sys.argv[1:]))
"""
TRAIN = (
    *(
        "train",
        "data=shapes",
        "data.size=48",
        "data.num_train=6",
        "data.num_val=2",
        "device=cpu",
        "model=unet",
    ),
    *("model.widths=[4,8]", "loader.batch_size=2", "loader.workers=1", "evaluate.workers=1", "threads=1"),
    *("trainer.save_every=1", "resume=auto"),
)


@pytest.fixture
def start(tmp_path):
    (tmp_path / "other.py").write_text(CODE)
    started = []

    def start(*words):
        process = subprocess.Popen(
            [sys.executable, "other.py", *TRAIN, *words],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_WAIT_POLICY": "passive"},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_it_trains_to_the_end(start):
    process = start("trainer.steps=4", "name=run")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0 and "step 4, val/miou" in out, err


@pytest.mark.slow
def test_it_stops_by_a_signal_and_goes_on(start, tmp_path):
    checkpoints = tmp_path / "outputs" / "run" / "checkpoints"

    def newest():
        found = checkpoints.iterdir() if checkpoints.is_dir() else ()
        return max((int(path.name) for path in found if path.name.isdigit()), default=0)

    for _ in range(2):
        before, end = newest(), time.monotonic() + 120
        process = start("trainer.steps=100000", "name=run")
        while newest() <= before and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 143 and "a checkpoint is saved" in err, err
        assert (f"resuming from outputs/run/checkpoints/{before}" in out) == (before > 0)
