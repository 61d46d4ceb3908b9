"""stdout and stderr that are closed, full, without a reader, or of an encoding that lacks characters."""

import json
import os

import numpy as np
import pytest
from PIL import Image
from program import SMALL, one_line, run

from segtrain.checkpoint import find
from segtrain.commands import COMMANDS

CLOSED, FULL = 'exec "$0" "$@" >&- 2>&-', 'exec "$0" "$@" >/dev/full'
ALL_CLOSED, ALL_FULL = 'exec "$0" "$@" <&- >&- 2>&-', 'exec "$0" "$@" >/dev/full 2>/dev/full'
FULL_DISK = "cannot write to stdout: the disk is full"

needs_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the finished run outputs/run and photos/a.png."""
    folder = tmp_path_factory.mktemp("streams")
    assert run("train", *SMALL, "name=run", cwd=folder).returncode == 0
    (folder / "photos").mkdir()
    Image.new("RGB", (48, 48)).save(folder / "photos" / "a.png")
    return folder


PRINTING = [
    *([*row.words, "--help"] for row in COMMANDS.values()),
    *([], ["--help"], ["--version"], ["list"], ["list", "models"], ["config", "train"]),
]


@needs_full
@pytest.mark.parametrize("words", PRINTING, ids=" ".join)
def test_commands_that_print(tmp_path, words):
    code = 0 if words else 2
    for shell in (CLOSED, ALL_CLOSED, 'exec "$0" "$@" 2>&-', 'exec "$0" "$@" 2>/dev/full'):
        ended = run(*words, cwd=tmp_path, shell=shell)
        assert ended.returncode == code and not ended.stderr
    if words:
        assert FULL_DISK in one_line(run(*words, cwd=tmp_path, shell=FULL), 4)
        assert run(*words, cwd=tmp_path, shell=ALL_FULL).returncode == 4


@needs_full
@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "run=outputs/run", "output=scores"],
        ["predict", "run=outputs/run", "input=photos", "output=masks"],
        ["compare", "runs=[outputs/run]", "output=scores"],
        ["describe", "model=unet"],
        ["train", "--cfg", "job"],
    ],
    ids=lambda words: words[0],
)
def test_commands_that_compute_keep_their_files_and_say_that_stdout_is_full(place, words):
    assert FULL_DISK in one_line(run(*words, cwd=place, shell=FULL), 4)
    kept = {
        "evaluate": "scores/scores.json",
        "predict": "masks/classes/a.png",
        "compare": "scores/compare.json",
    }
    assert words[0] not in kept or (place / kept[words[0]]).stat().st_size > 0


@needs_full
@pytest.mark.parametrize(
    "shell",
    [pytest.param(ALL_CLOSED, marks=pytest.mark.slow), pytest.param(FULL, marks=pytest.mark.slow), ALL_FULL],
    ids=["closed", "full", "both full"],
)
def test_a_training_goes_on_without_its_streams(place, tmp_path, shell):
    ended = run("train", *SMALL, "name=run", cwd=tmp_path, shell=shell)
    assert ended.returncode == 0
    assert ended.stderr == (f"segtrain: {FULL_DISK}; the run goes on\n" if shell == FULL else "")
    for name in ("metrics.jsonl", "config.yaml"):
        lines = [(root / "outputs/run" / name).read_text().count("\n") for root in (tmp_path, place)]
        assert lines[0] == lines[1] > 0
    weights = [
        (root / "outputs/run/checkpoints/4/model.safetensors").read_bytes() for root in (tmp_path, place)
    ]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_a_pipe_that_is_closed_stops_a_training_as_a_signal_does(tmp_path):
    words = ("train", *SMALL, "trainer.log_every=1", "name=run", "resume=auto")
    piped = run(*words, cwd=tmp_path, shell='set -o pipefail; "$0" "$@" | head -5')
    assert "a checkpoint is saved" in one_line(piped, 141) and "stdout has no reader" in piped.stderr
    folder = tmp_path / "outputs" / "run"
    record = json.loads((folder / "run.json").read_text())
    assert record["exit_code"] == 141 and "stopped after step" in record["error"]
    step = find(folder, "last").name
    resumed = run(*words, cwd=tmp_path)
    assert resumed.returncode == 0 and f"resuming from outputs/run/checkpoints/{step}" in resumed.stdout


@pytest.mark.parametrize("words", [["--help"], ["list", "models"], ["config", "train"]], ids=" ".join)
def test_a_pipe_that_is_closed_ends_a_command_without_a_word(tmp_path, words):
    # `sleep` keeps the reader from being gone before the pipe is made.
    ended = run(*words, cwd=tmp_path, shell='set -o pipefail; (sleep 1; exec "$0" "$@") | exec true')
    assert ended.returncode == 141 and not ended.stderr


ENCODINGS = {
    "C": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("words", PRINTING, ids=" ".join)
def test_characters_that_the_encoding_lacks_are_escaped(tmp_path, encoding, words):
    ended = run(*words, cwd=tmp_path, **ENCODINGS[encoding])
    assert ended.returncode == (0 if words else 2) and "Traceback" not in ended.stderr
    assert ("\\u2026" in ended.stdout + ended.stderr) == ("…" in shown(words, tmp_path))


def shown(words, cwd):
    ended = run(*words, cwd=cwd, PYTHONIOENCODING="utf-8")
    return ended.stdout + ended.stderr


def test_a_training_with_class_names_that_the_locale_lacks(tmp_path):
    rng = np.random.default_rng(0)
    for kind, shape in (("images", (48, 48, 3)), ("masks", (48, 48))):
        (tmp_path / kind).mkdir()
        for number in range(4):
            pixels = rng.integers(0, 256 if kind == "images" else 2, shape, np.uint8)
            Image.fromarray(pixels).save(tmp_path / kind / f"{number}.png")
    (tmp_path / "classes.txt").write_text("Weg\nStraße\n", "utf-8")
    small = [word for word in SMALL if not word.startswith("data")]
    data = ["data=folder", f"data.root={tmp_path}", "data.classes=classes.txt"]
    ended = run("train", *small, *data, "name=run", cwd=tmp_path, **ENCODINGS["C"])
    assert ended.returncode == 0 and "Stra\\xdfe" in ended.stdout, ended.stderr
    saved = json.loads((tmp_path / "outputs/run/checkpoints/last/description.json").read_text("utf-8"))
    assert saved["facts"]["classes"] == ["Weg", "Straße"]
