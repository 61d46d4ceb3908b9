"""Memory, address space, open files, shared memory and processes that run out: exit 6 and the fix, soon."""

import json
import shutil
import subprocess

import pytest
from program import SMALL, one_line, run

resource = pytest.importorskip("resource")


@pytest.mark.parametrize("kilobytes", [33_000, 150_000, 1_000_000, 2_000_000])
@pytest.mark.parametrize(
    "words", [["train", *SMALL, "name=run"], ["describe", "model=unet"]], ids=lambda w: w[0]
)
def test_too_little_address_space_to_import_torch(tmp_path, words, kilobytes):
    said = one_line(run(*words, cwd=tmp_path, shell=f'ulimit -v {kilobytes}; exec "$0" "$@"'), 6)
    assert "GB (ulimit -v)" in said
    assert not (tmp_path / "outputs" / "run").exists()


def test_too_little_memory_for_the_training_is_on_record(tmp_path):
    """The first layer's output for two images takes 2 GiB, of which nothing is left above torch."""
    large = ("data.size=1024", "model.widths=[256,8]", "name=run", "resume=auto")
    (tmp_path / "outputs" / "run").mkdir(parents=True)  # not made for this run, so that it stays
    ended = run("train", *SMALL, *large, cwd=tmp_path, shell='ulimit -v 4500000; exec "$0" "$@"')
    said = one_line(ended, 6)
    assert "memory" in said and "loader.batch_size" in said
    assert json.loads((tmp_path / "outputs/run/run.json").read_text())["exit_code"] == 6


def with_shared_memory(options):
    """A shell in which /dev/shm is a tmpfs of its own; skips where this user may not mount one."""
    mount = f"mount -t tmpfs -o {options} tmpfs /dev/shm"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("this user may not mount a /dev/shm of its own")
    return f'exec unshare -m bash -c \'{mount} && exec "$0" "$@"\' "$0" "$@"'


SHELLS = {
    "4 kB": lambda: with_shared_memory("size=4k"),
    "64 kB": lambda: with_shared_memory("size=64k"),
    "read-only": lambda: with_shared_memory("ro"),
    "64 open files": lambda: 'ulimit -n 64; exec "$0" "$@"',
}
FIXES = {"64 open files": ("ulimit -n", "{}.workers")}


@pytest.mark.skipif(not shutil.which("unshare"), reason="no unshare")
@pytest.mark.parametrize(
    "limits",
    SHELLS,
)
@pytest.mark.slow
def test_workers_that_the_system_does_not_carry(tmp_path, limits):
    words = ("train", *SMALL, "trainer.steps=1", "loader.workers=16", "name=run", "resume=auto")
    (tmp_path / "outputs" / "run").mkdir(parents=True)
    said = one_line(run(*words, cwd=tmp_path, shell=SHELLS[limits](), limit_s=30), 6)
    assert all(fix.format("loader") in said for fix in FIXES.get(limits, ("--shm-size", "{}.workers=0")))
    assert json.loads((tmp_path / "outputs/run/run.json").read_text())["exit_code"] == 6
    # As the error proposes.
    ended = run(*words, "loader.workers=0", cwd=tmp_path, shell=SHELLS[limits](), limit_s=30)
    assert ended.returncode == 0, ended.stderr
    if limits == "4 kB":
        words = ("evaluate", "run=outputs/run", "evaluate.workers=2")
        assert "evaluate.workers=0" in one_line(run(*words, cwd=tmp_path, shell=SHELLS[limits]()), 6)
