"""SIGTERM and SIGINT end the step and save; a second SIGINT ends everything at once, children too."""

import configparser
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from program import SMALL
from program import start as start_program

from segtrain.checkpoint import find
from segtrain.run.stop import descendants

LOOP = """
import subprocess, sys, time
from segtrain.errors import SegtrainError
from segtrain.run.stop import Stop
from segtrain.run.storage import append_line
stop = Stop().install()
child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(child.pid, flush=True)
try:
    for step in range(10 ** 6):
        time.sleep(float(sys.argv[2]))
        append_line(sys.argv[1] + "/steps", str(step))
        if stop.requested:
            append_line(sys.argv[1] + "/saved", str(step))
            stop.raise_if_requested()
except SegtrainError as error:
    child.kill()
    child.wait()
    sys.exit(error.exit_code)
"""

STUCK = """
import hashlib, signal, subprocess, sys
if sys.argv[1] == "ours":
    from segtrain.run.stop import Stop
    stop = Stop().install()
else:
    count = []
    def handler(*_):
        count.append(0)
        if len(count) == 2:
            sys.exit(130)
    signal.signal(signal.SIGINT, handler)
command = ["sh", "-c", "sleep 60 & echo $!; wait"]
child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True)
print(child.pid, child.stdout.readline().strip(), flush=True)
hashlib.pbkdf2_hmac("sha256", b"one long operation", b"outside of Python", 1 << 30)
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
        return process, [int(word) for word in process.stdout.readline().split()]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def lives(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids, within_s=3.0):
    end = time.monotonic() + within_s
    while time.monotonic() < end and any(map(lives, pids)):
        time.sleep(0.02)
    return not any(map(lives, pids))


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        (signal.SIGINT, 130),
        (signal.SIGUSR1, 138),
        (signal.SIGUSR2, 140),
        (signal.SIGXCPU, 152),
    ],
)
def test_one_signal_ends_the_step_and_saves(start, tmp_path, number, code):
    process, children = start(LOOP, tmp_path, 0.05)
    time.sleep(0.2)
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == code
    assert (tmp_path / "saved").read_text().splitlines() == (tmp_path / "steps").read_text().splitlines()[-1:]
    assert said.count("\n") == 1 and signal.Signals(number).name in said and gone(children)


def test_a_naive_process_dies_without_saving(start, tmp_path):
    process, children = start(LOOP.replace("stop = Stop().install()", "stop = Stop()"), tmp_path, 0.05)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == -signal.SIGTERM and not (tmp_path / "saved").exists() and lives(children[0])
    os.kill(children[0], signal.SIGKILL)


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_launcher_that_passes_a_signal_on_does_not_cost_the_checkpoint(start, tmp_path, first):
    """The terminal sends SIGINT to all, and the launcher sends it again, or SIGTERM, some milliseconds
    later."""
    process, _ = start(LOOP, tmp_path, 0.4)
    for number in (first, signal.SIGINT):
        process.send_signal(number)
        time.sleep(0.01)
    process.communicate(timeout=20)
    assert process.returncode == 128 + first and (tmp_path / "saved").exists()


def test_a_second_sigint_ends_at_once_in_the_middle_of_a_long_operation(start):
    process, children = start(STUCK, "ours")
    assert all(map(lives, children)) and len(children) == 2
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130 and time.monotonic() - begin < 2
    assert gone(children)


def test_a_naive_handler_waits_for_the_end_of_the_operation(start):
    process, children = start(STUCK, "naive")
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
    assert process.poll() is None
    process.kill()
    process.wait()
    assert all(map(lives, children))
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def test_a_forked_worker_can_be_terminated_and_leaves_ctrl_c_to_its_parent(start):
    code = """
import os, signal, time
from segtrain.run.stop import Stop
stop = Stop().install()
worker = os.fork()
if worker == 0:
    time.sleep(60)
time.sleep(0.1)
print(worker, flush=True)
os.kill(worker, signal.SIGINT)
time.sleep(0.2)
os.kill(worker, signal.SIGINT)
time.sleep(0.2)
assert os.waitpid(worker, os.WNOHANG) == (0, 0) and stop.requested is None
os.kill(worker, signal.SIGTERM)
assert os.WTERMSIG(os.waitpid(worker, 0)[1]) == signal.SIGTERM
"""
    process, _ = start(code)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 0 and not said


def test_restore_gives_the_signals_back(start):
    code = """
import os, signal, threading
from segtrain.run.stop import Stop
before = signal.getsignal(signal.SIGINT)
stop = Stop().install()
os.kill(os.getpid(), signal.SIGINT)
stop.restore()
assert signal.getsignal(signal.SIGINT) is before and stop.requested == signal.SIGINT
other = threading.Thread(target=Stop().install)
other.start()
other.join()
assert signal.getsignal(signal.SIGINT) is before
print(1)
"""
    process, _ = start(code)
    assert process.wait(timeout=20) == 0


SLOW_SCAN = """
import sys, time
import numpy as np
from segtrain.cli import main as cli
from segtrain.data.files import scan
def slow(path, max_pixels):
    time.sleep(1.0)
    return np.zeros((8, 8), np.uint8)
scan.read_mask = slow
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_start_up_ends_at_once(tmp_path, number, code):
    """Nothing is lost before the first step, so nothing is waited for; the folder made for the run goes
    again."""
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for index in range(60):
            Image.fromarray(np.zeros((8, 8, 3)[: 3 - (kind == "masks")], np.uint8)).save(
                tmp_path / kind / f"{index}.png"
            )
    words = [
        "train",
        "data=folder",
        f"data.images={tmp_path}/images",
        f"data.masks={tmp_path}/masks",
        "name=run",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_SCAN, *words],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
    )
    assert any("reading 60 masks" in line for line in process.stderr)
    started = time.monotonic()
    process.send_signal(number)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == code and "stopped by SIG" in errors, errors
    assert time.monotonic() - started < 5  # the whole scan takes 7.5 s with 8 threads, 30 s with 2
    assert not (tmp_path / "outputs" / "run").exists()


SIGNAL_IN_IMPORT = """
import os, sys
from segtrain.cli import main as cli
class Sender:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1] and self in sys.meta_path:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), int(sys.argv[2]))
sys.meta_path.insert(0, Sender())
sys.exit(cli.main(sys.argv[3:]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize(
    "module",
    [
        "torch.nn",
        "segtrain.checkpoint",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("torch.serialization", "torchvision", "timm")
        ),
    ],
)
def test_a_signal_in_the_middle_of_an_import_ends_the_run_politely(tmp_path, module, number, code):
    """Broken off, the import of torch would leave half a module behind, and the next use of it a crash."""
    words = [
        "train",
        "data.size=48",
        "name=run",
        "device=cpu",
        "loader.workers=0",
        "trainer.steps=1",
        "model.encoder=test_resnet",
    ]
    command = [sys.executable, "-c", SIGNAL_IN_IMPORT, module, str(int(number)), *words, "model.weights=none"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert ended.returncode == code and f"stopped by {number.name}" in ended.stderr, ended.stderr
    assert "Traceback" not in ended.stderr and not (tmp_path / "outputs" / "run").exists()


INTERRUPTED_AT = """
import os, signal, sys
at = sys.argv.pop(1)
class Sender:
    def find_spec(self, name, path=None, target=None):
        if name == at:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Sender())
from segtrain.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize("module", ["segtrain.cli.main", "segtrain.commands", "segtrain.cli.catalogue"])
def test_ctrl_c_while_the_program_is_imported_prints_no_traceback(module):
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_AT, module, "list"], capture_output=True, text=True
    )
    # A shell calls this 130, as it does 128 + any signal that ends a process.
    assert ended.returncode == -signal.SIGINT and not ended.stderr


SIGNALLED_BEHIND_THE_END = """
import atexit, os, sys
atexit.register(os.kill, os.getpid(), int(sys.argv.pop(1)))
from segtrain.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 2), (signal.SIGHUP, 2), (signal.SIGUSR1, 2), (signal.SIGINT, -signal.SIGINT)],
)
def test_a_signal_behind_the_end_leaves_the_exit_code(number, code):
    command = [sys.executable, "-c", SIGNALLED_BEHIND_THE_END, str(int(number)), "lst"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert ended.returncode == code and "lst is not a command" in ended.stderr, ended.stderr


def test_the_installed_program_begins_there():
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[2] / "setup.cfg")
    scripts = setup["options.entry_points"]["console_scripts"].split("\n")
    assert "segtrain = segtrain.__main__:main" in scripts


@pytest.mark.parametrize("ignored", [False, True], ids=["terminal closed", "nohup"])
def test_a_closed_terminal_stops_the_run_politely(start, tmp_path, ignored):
    hang_up = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" if ignored else ""
    process, _ = start(hang_up + LOOP, tmp_path, 0.05)
    time.sleep(0.2)
    process.send_signal(signal.SIGHUP)
    if ignored:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.send_signal(signal.SIGTERM)
    assert process.wait(10) == (143 if ignored else 129)
    assert (tmp_path / "saved").exists()


@pytest.mark.parametrize("number", [signal.SIGUSR1, pytest.param(signal.SIGXCPU, marks=pytest.mark.slow)])
def test_what_a_batch_system_sends_to_every_process_of_a_job_stops_the_run_politely(tmp_path, number):
    words = (*SMALL, "loader.workers=2", "trainer.steps=100000", "trainer.evaluate_every=null")
    process = start_program("train", *words, "trainer.log_every=20", "name=run", cwd=tmp_path)
    try:
        assert any(line.startswith("step 20 of") for line in process.stdout)
        for worker in descendants(process.pid):
            os.kill(worker, number)
        time.sleep(0.5)
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 128 + number and "a checkpoint is saved" in said


@pytest.mark.parametrize("frozen", [pytest.param(1, marks=pytest.mark.slow), 2], ids=["one", "all"])
@pytest.mark.slow
def test_sigterm_is_obeyed_while_workers_are_frozen(tmp_path, frozen):
    words = (*SMALL, "loader.workers=2", "trainer.steps=100000", "trainer.evaluate_every=null")
    process = start_program("train", *words, "trainer.log_every=20", "name=run", cwd=tmp_path)
    try:
        assert any(line.startswith("step 20 of") for line in process.stdout)
        for worker in descendants(process.pid)[:frozen]:
            os.kill(worker, signal.SIGSTOP)
        time.sleep(1.5)
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 143 and "a checkpoint is saved" in said
    assert time.monotonic() - begin < 6  # 3 s on a machine with nothing else to do
    assert find(tmp_path / "outputs" / "run", "last").name in said
