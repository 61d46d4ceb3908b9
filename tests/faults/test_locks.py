"""One process per run folder: a second one is told who has it, and a dead one's lock is taken over."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from segtrain.errors import CheckpointError, ConfigError
from segtrain.run.lock import Lock

HOLD = """
import sys, time
from segtrain.run.lock import Lock
lock = Lock(sys.argv[1]).acquire()
print("locked", flush=True)
time.sleep(60)
"""
TRY = """
import sys
from segtrain.errors import SegtrainError
from segtrain.run.lock import Lock
try:
    Lock(sys.argv[1]).acquire()
except SegtrainError as error:
    print(error)
    sys.exit(error.exit_code)
print("locked")
"""


@pytest.fixture
def start():
    started = []

    def start(code, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def holding(start, folder):
    holder = start(HOLD, folder)
    assert holder.stdout.readline() == "locked\n"
    return holder


def test_a_second_process_ends_at_once_and_names_the_first(start, tmp_path):
    holder = holding(start, tmp_path)
    begin = time.monotonic()
    second = start(TRY, tmp_path)
    said, error = second.communicate(timeout=30)
    assert second.returncode == 2 and time.monotonic() - begin < 3 and not error
    assert (
        f"is in use by process {holder.pid} of " in said
        and socket.gethostname() in said
        and "since 20" in said
        and said.count("\n") == 1
    )
    with pytest.raises(ConfigError, match=f"process {holder.pid}"):
        Lock(tmp_path).acquire()


def test_of_many_that_start_together_one_gets_it(start, tmp_path):
    code = TRY + "import time; sys.stdout.flush(); time.sleep(5)"
    processes = [start(code, tmp_path) for _ in range(6)]
    lines = [process.stdout.readline() for process in processes]
    assert lines.count("locked\n") == 1 and sum("is in use by process" in line for line in lines) == 5


def naive_lock(path):
    """A file with the process id and no kernel behind it."""
    if path.exists():
        raise ConfigError("in use")
    path.write_text(str(os.getpid()))


def test_the_lock_of_a_killed_process_is_taken_over_with_a_notice(start, tmp_path, capsys):
    holder = holding(start, tmp_path)
    naive_lock(tmp_path / "naive")
    holder.kill()
    holder.wait()
    with Lock(tmp_path):
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and f"took over the lock of process {holder.pid}" in said
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    with pytest.raises(ConfigError):
        naive_lock(tmp_path / "naive")


def test_a_released_lock_is_free_without_a_notice(start, tmp_path, capsys):
    for _ in range(2):
        with Lock(tmp_path), pytest.raises(ConfigError, match=f"process {os.getpid()}"):
            Lock(tmp_path).acquire()
    assert not capsys.readouterr().err
    assert start(TRY, tmp_path).communicate()[0] == "locked\n"


@pytest.mark.parametrize("naive", [False, True])
def test_a_worker_that_outlives_its_parent_does_not_keep_the_lock(tmp_path, naive, capsys):
    """Naive: a plain flock, which every forked child holds too."""
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        if naive:
            plain = open(tmp_path / ".lock", "w")  # noqa: SIM115
            fcntl.flock(plain, fcntl.LOCK_EX)
        else:
            lock = Lock(tmp_path).acquire()
            assert lock
        worker = os.fork()
        if worker == 0:
            time.sleep(60)
        time.sleep(0.1)
        os.write(write, str(worker).encode())
        time.sleep(60)
    worker = int(os.read(read, 20))
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    try:
        if naive:
            with pytest.raises(ConfigError, match="another process"):
                Lock(tmp_path).acquire()
        else:
            Lock(tmp_path).acquire().release()
    finally:
        os.kill(worker, signal.SIGKILL)
        os.close(read)
        os.close(write)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', "null", "\x00" * 50])
def test_a_torn_lock_file_is_no_obstacle(tmp_path, content):
    (tmp_path / ".lock").write_text(content)
    Lock(tmp_path).acquire().release()


def test_the_lock_of_another_machine_is_named_with_the_way_out(tmp_path):
    owner = {
        "pid": 7,
        "host": "elsewhere\n",
        "user": "somebody",
        "since": "2024-01-01T00:00:00+00:00",
        "boot": "other",
    }
    (tmp_path / ".lock").write_text(json.dumps(owner))
    with pytest.raises(
        ConfigError, match=r"process 7 of somebody on elsewhere\\n since 2024.*remove .*\.lock"
    ):
        Lock(tmp_path).acquire()
    (tmp_path / ".lock").unlink()
    Lock(tmp_path).acquire().release()


def test_another_container_of_this_machine_is_this_machine(tmp_path, capsys):
    with Lock(tmp_path):
        owner = json.loads((tmp_path / ".lock").read_text())
    if not owner["boot"]:
        pytest.skip("the kernel does not name its boot")
    (tmp_path / ".lock").write_text(json.dumps({**owner, "host": "container-1"}))
    Lock(tmp_path).acquire().release()
    assert "took over the lock" in capsys.readouterr().err


def test_without_kernel_locks_the_process_id_decides(start, tmp_path, monkeypatch, capsys):
    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    holder = holding(start, tmp_path)
    with pytest.raises(ConfigError, match=f"process {holder.pid}"):
        Lock(tmp_path).acquire()
    holder.kill()
    holder.wait()
    Lock(tmp_path).acquire().release()
    assert "took over" in capsys.readouterr().err


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("text")
    os.symlink("precious", tmp_path / ".lock")
    with pytest.raises(CheckpointError, match=r"\.lock is a link"):
        Lock(tmp_path).acquire()
    assert (tmp_path / "precious").read_text() == "text"
