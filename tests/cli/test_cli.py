"""The program as a user meets it: help, errors, exit codes, and what a run leaves behind."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from segtrain.cli import launch, resumed
from segtrain.errors import (
    SIGPIPE,
    CheckpointError,
    ConfigError,
    DataError,
    DivergedError,
    Interrupted,
    ResourceError,
)
from segtrain.run.lock import Lock

TINY = [
    "data.size=64",
    "data.num_train=8",
    "data.num_val=2",
    "model.widths=[4,8]",
    "augmentation=none",
    "loader.workers=0",
    "evaluate.workers=0",
]
TINY += ["loader.batch_size=4", "trainer.steps=2", "evaluate.batch_size=2", "device=cpu"]


# --- help and lists


def test_help_explains_with_examples_and_keys(segtrain):
    general = segtrain("--help")
    assert general.code == 0
    for word in (
        "train",
        "evaluate",
        "predict",
        "list",
        "config",
        "--multirun",
        "--config-dir",
        "Exit codes",
    ):
        assert word in general.out
    train = segtrain("train", "--help")
    for word in (
        "segtrain train experiment=",
        "resume=",
        "deeplabv3plus",
        "trainer.evaluate_every=auto",
        "loader.batch_size=8",
        "segtrain list",
    ):
        assert word in train.out
    assert "run=(needed)" in segtrain("evaluate", "-h").out
    assert "input=(needed)" in segtrain("-h", "predict").out
    assert "encoders" in segtrain("list", "--help").out
    assert "config train" in segtrain("config", "--help").out


def test_no_command(segtrain):
    result = segtrain()
    assert result.code == 2
    assert "segtrain train" in result.err


@pytest.mark.parametrize("words", [["--version"], ["train", "--version"], ["list", "--version"]])
def test_version(segtrain, words):
    result = segtrain(*words)
    assert (result.code, result.out.split()[0]) == (0, "segtrain")


LIGHT = [
    ["--help"],
    ["train", "--help"],
    ["evaluate", "-h"],
    ["list"],
    ["list", "models"],
    ["list", "losses"],
    ["list", "data", "camvid"],
    ["--version"],
]


def test_help_and_lists_import_neither_torch_nor_hydra():
    code = (
        "import sys; from segtrain.cli.main import main\n"
        f"for words in {LIGHT!r}: assert main(words) == 0\n"
        "heavy = {'torch', 'numpy', 'hydra', 'omegaconf', 'timm', 'yaml', 'cv2'} & set(sys.modules)\n"
        "print('heavy:', heavy, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "heavy: set()"


def test_help_takes_little_time():
    def cpu_s() -> float:
        before = os.times()
        subprocess.run(
            [sys.executable, "-m", "segtrain", "train", "--help"], stdout=subprocess.DEVNULL, check=True
        )
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(cpu_s() for _ in range(4)) <= 0.15


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["list"], ["model", "deeplabv3plus", "experiments", "demo"]),
        (["list", "models"], ["unet", "deeplabv3plus", "DeepLabv3+"]),
        (["list", "model"], ["unet"]),
        (["list", "losses"], ["cross_entropy", "ross-entropy"]),
        (["list", "data"], ["camvid", "folder", "shapes"]),
        (["list", "experiments"], ["camvid_lite0", "CamVid"]),
        (["list", "loss", "cross_entropy"], ["loss.smoothing=0.0", "loss.class_weights=none", "inverse"]),
        (["list", "tta", "flip"], ["tta.flip.axes=[horizontal]"]),
    ],
)
def test_list(segtrain, words, parts):
    result = segtrain(*words)
    assert result.code == 0
    for part in parts:
        assert part in result.out


def test_list_of_encoders(segtrain):
    result = segtrain("list", "encoders", "resnet1")
    assert "resnet18" in result.out.split()
    segtrain("list", "encoders", "nixda").refused("nixda")


def test_list_shows_own_yaml_and_refuses_unknown(segtrain, tmp_path):
    (tmp_path / "own" / "model").mkdir(parents=True)
    (tmp_path / "own" / "model" / "mine.yaml").write_text("name: unet\n")
    assert "mine" in segtrain("list", "models", "--config-dir", "own").out
    segtrain("list", "modls").refused("modls", "did you mean 'models'")
    segtrain("list", "model", "unett").refused("unett", "did you mean 'unet'")


def test_config_says_value_default_meaning_and_who_set_it(segtrain):
    result = segtrain("config", "train", "experiment=camvid_lite0", "optimizer.lr=0.5", "model=deeplabv3plus")
    rows = {line.split()[0]: line for line in result.out.splitlines()}
    assert "command line" in rows["optimizer.lr"]
    assert "0.5" in rows["optimizer.lr"]
    assert "experiment camvid_lite0" in rows["model.encoder"]
    assert "conf/model/deeplabv3plus.yaml" in rows["model.dropout"]
    assert "command line" in rows["model"]
    assert " default " in rows["trainer.ema"]
    assert "moving average" in rows["trainer.ema"]
    segtrain("config", "train", "loss.smothing=3").refused("loss.smothing", "did you mean 'smoothing'")
    segtrain("config").refused("config needs a command", "train|evaluate|")


# --- flags


FLAGS = [
    (["trian"], ["trian is not a command", "did you mean 'train'"]),
    (["model=unet"], ["segtrain train model=unet"]),
    (["train", "--multrun"], ["--multrun", "did you mean '--multirun'"]),
    (["train", "--steps=3"], ["without dashes", "steps=3"]),
    (["train", "--cfg"], ["--cfg needs a value"]),
    (["train", "--cfg", "hydra"], ["--cfg hydra", "--cfg job"]),
    (["train", "--config-dir", "nix"], ["--config-dir nix is not a folder"]),
    (["train", "--config-dir="], ["--config-dir needs a value"]),
    (["train", "--experimental-rerun", "x"], ["--experimental-rerun is not allowed"]),
    (["train", "--config-path", "x"], ["--config-path is not allowed"]),
    (["train", "--config-name=x"], ["--config-name is not allowed"]),
    (["train", "-cp=x"], ["-cp is not allowed"]),
    (["evaluate", "-m", "run=x"], ["--multirun goes with segtrain train"]),
    (["evaluate"], ["run is missing"]),
    (["predict", "input=x", "output=y"], ["run is missing"]),
    (["evaluate", "run=nix"], ["run=nix does not exist"]),
    (["evaluate", "run=."], ["run=. is not the folder of a run"]),
    (["train", "resume=nix"], ["resume=nix does not exist"]),
    (["train", "resume=auto"], ["name=NAME"]),
    (["train", "name=a/b"], ["name is 'a/b'"]),
    (["train", "name=x", "hydra.run.dir=y"], ["give one of them"]),
]


@pytest.mark.parametrize(("words", "parts"), FLAGS, ids=lambda value: " ".join(value)[:40])
def test_refused_command_lines(segtrain, training, tmp_path, words, parts):
    segtrain(*words).refused(*parts)
    assert training.configs == []
    assert not (tmp_path / "outputs").exists()


def test_cfg_job_prints_the_checked_config_and_makes_nothing(segtrain, tmp_path):
    result = segtrain("train", "--cfg", "job", "model=deeplabv3plus", "augmentation=warp", "trainer.steps=3")
    config = yaml.safe_load(result.out)
    assert (result.code, config["trainer"]["steps"], config["model"]["name"]) == (0, 3, "deeplabv3plus")
    assert config["augmentation"]["warp"]["flip"] == 0.5
    assert list(tmp_path.iterdir()) == []
    segtrain("train", "--cfg=job", "loss.smothing=1").refused("loss.smothing", "did you mean 'smoothing'")


# --- a run and what it leaves


def test_run_folder_config_and_record(segtrain, training):
    result = segtrain("train", "name=first", "trainer.steps=2", "seed=5")
    assert result.code == 0
    assert "outputs/first: step 2, val/miou 0.0005" in result.out
    folder = Path("outputs/first")
    assert training.folders == [folder]
    assert yaml.safe_load((folder / "config.yaml").read_text()) == json.loads(json.dumps(training.configs[0]))
    record = json.loads((folder / "run.json").read_text())
    assert record["command"] == ["segtrain", "train", "name=first", "trainer.steps=2", "seed=5"]
    assert (record["exit_code"], record["error"], record["seed"], record["scores"]["step"]) == (0, None, 5, 2)
    assert {"segtrain", "torch", "hydra-core", "omegaconf"} <= set(record["versions"])
    assert record["started"] <= record["ended"]
    assert record["earlier"] == []


def test_record_knows_the_commit(segtrain, training):
    for words in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=b", "commit", "-q", "--allow-empty", "-m", "x"],
    ):
        subprocess.run(["git", *words], check=True)
    segtrain("train", "name=first", "trainer.steps=2")
    git = json.loads(Path("outputs/first/run.json").read_text())["git"]
    assert len(git["commit"]) == 40
    assert git["changed"] is False


def test_folders_without_a_name_and_by_wish(segtrain, training, tmp_path):
    assert segtrain("train").code == 0
    assert segtrain("train").code == 0
    first, second = training.folders
    assert first != second
    assert first.parts[0] == "outputs"
    assert len(first.parts) == 3
    assert segtrain("train", f"hydra.run.dir={tmp_path}/elsewhere/x").code == 0
    assert training.folders[-1] == tmp_path / "elsewhere" / "x"


def test_dry_run_makes_no_folder(segtrain, training, tmp_path):
    assert segtrain("train", "dry_run=true", "name=x").code == 0
    assert training.folders == [None]
    assert list(tmp_path.iterdir()) == []


def test_name_is_taken(segtrain, training):
    segtrain("train", "name=x")
    segtrain("train", "name=x").refused("outputs/x exists")
    assert len(training.configs) == 1


def test_resume_auto_starts_then_goes_on(segtrain, training):
    words = ["train", "name=x", "resume=auto", "trainer.steps=2"]
    assert segtrain(*words).code == segtrain(*words, "loader.workers=0").code == 0
    assert training.folders == [Path("outputs/x")] * 2
    assert len(json.loads(Path("outputs/x/run.json").read_text())["earlier"]) == 1
    segtrain(*words, "optimizer.lr=0.5").refused(
        "optimizer.lr is 0.5, but outputs/x was started with 0.001", "init=outputs/x"
    )
    segtrain(*words, "model=deeplabv3plus").refused("deeplabv3plus", "unet")
    # A refusal changes nothing.
    assert yaml.safe_load(Path("outputs/x/config.yaml").read_text())["optimizer"]["lr"] == 0.001


def test_resume_by_folder(segtrain, training):
    segtrain("train", "name=x", "model.widths=[4,8]", "tta=flip", "trainer.steps=2")
    assert segtrain("train", "resume=outputs/x", "loader.workers=0", "trainer.log_every=1").code == 0
    assert training.configs[1]["model"] == training.configs[0]["model"]
    assert training.configs[1]["tta"] == training.configs[0]["tta"]
    assert training.configs[1]["trainer"]["log_every"] == 1
    segtrain("train", "resume=outputs/x", "loader.batch_size=3").refused(
        "loader.batch_size is 3", "started with 8"
    )
    segtrain("train", "resume=outputs/x", "model=unet").refused("model.widths")


def test_a_folder_without_a_checkpoint_starts_anew(segtrain, training):
    Path("outputs/x").mkdir(parents=True)
    assert segtrain("train", "name=x", "resume=auto").code == 0
    assert training.folders == [Path("outputs/x")]


ERRORS = [
    (ConfigError("c"), 2),
    (DataError("d\nx"), 3),
    (CheckpointError("k"), 4),
    (DivergedError("v"), 5),
    (ResourceError("r"), 6),
    (MemoryError(), 6),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), 6),
    (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), 6),
    (OSError(errno.EMFILE, os.strerror(errno.EMFILE), "a.png"), 6),
    (BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)), 6),
    (RuntimeError("can't start new thread"), 6),
    (ImportError("libtorch_cpu.so: failed to map segment from shared object"), 6),
    (OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), "x" * 300), 2),
    (KeyError("ours"), 1),
    (Interrupted(signal.SIGHUP, "h"), 129),
    (Interrupted(SIGPIPE, "p"), 141),
    (Interrupted(signal.SIGINT, "i"), 130),
    (Interrupted(signal.SIGTERM, "t"), 143),
]


@pytest.mark.parametrize(("error", "code"), ERRORS, ids=lambda value: str(value)[:12])
def test_exit_codes(segtrain, training, error, code):
    def act(*_):
        raise error

    training.act = act
    segtrain("train", "name=x").refused(code=code)
    record = json.loads(Path("outputs/x/run.json").read_text())
    assert record["exit_code"] == code and record["error"]


def test_our_own_fault_leaves_its_traceback_in_the_run_folder(segtrain, training):
    def act(*_):
        raise KeyError("lost")

    training.act = act
    segtrain("train", "name=x").refused("fault of segtrain", "KeyError", "outputs/x/debug.log", code=1)
    assert "in act" in Path("outputs/x/debug.log").read_text()
    assert json.loads(Path("outputs/x/run.json").read_text())["exit_code"] == 1


def test_our_own_fault_outside_of_a_run(segtrain, monkeypatch):
    monkeypatch.setattr("segtrain.cli.catalogue.listing", lambda *_: 1 / 0)
    result = segtrain("list")
    result.refused("ZeroDivisionError", ".debug.log", code=1)
    path = Path(result.err.partition("the traceback is in ")[2].partition(",")[0])
    assert "1 / 0" in path.read_text()
    path.unlink()


def test_folder_made_for_a_bad_config_goes_again(segtrain, training, tmp_path):
    segtrain("train", "loss.smothing=1").refused("loss.smothing", "did you mean 'smoothing'")
    segtrain("train", "name=x", "loss.smoothing=a").refused("loss.smoothing is 'a'")
    segtrain("train", "data=camvid", "name=x").refused("data.root is missing")
    assert list((tmp_path / "outputs").iterdir()) == []
    Path("outputs/x").mkdir()
    segtrain("train", "name=x", "resume=auto", "loss.smoothing=a").refused("loss.smoothing")
    assert Path("outputs/x").is_dir()


def test_config_error_found_while_building(segtrain, training, tmp_path):
    training.act = lambda config, folder, stop: (
        (folder / "checkpoints" / "2").rmdir() or (_ for _ in ()).throw(ConfigError("late"))
    )
    segtrain("train", "name=x").refused("late")
    assert list((tmp_path / "outputs").iterdir()) == []


@pytest.mark.parametrize("error", [DataError("d"), CheckpointError("c"), ResourceError("r")], ids=str)
@pytest.mark.parametrize("begun", [False, True])
def test_name_is_free_again_after_a_run_that_could_not_begin(segtrain, training, tmp_path, error, begun):
    def act(_, folder, __):
        (folder / "checkpoints" / "2").rmdir()
        if begun:
            (folder / "metrics.jsonl").write_text("{}\n")
        raise error

    training.act = act
    segtrain("train", "name=x").refused(code=error.exit_code)
    assert (tmp_path / "outputs" / "x").exists() == begun


def test_folder_that_another_process_began_in_stays(segtrain, training, monkeypatch):
    Path("outputs/x").mkdir(parents=True)
    monkeypatch.setattr(launch, "run_folder_of", lambda *_: (Path("outputs/x"), True))
    with Lock(Path("outputs/x")):
        segtrain("train", "name=x", "resume=auto").refused("in use")
    assert Path("outputs/x").is_dir()


def test_memory_that_torch_cannot_have(segtrain, training):
    def act(*_):
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:1] . DefaultCPUAllocator: can't allocate memory: you tried to "
            "allocate 9 bytes"
        )

    training.act = act
    segtrain("train", "name=x").refused("out of memory", code=6)


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "run={}"],
        ["compare", "runs=[{}]"],
        ["predict", "run={}", "input=x", "output=y"],
        ["train", "resume={}"],
        ["train", "init={}", "dry_run=true"],
        ["train", "data=folder", "data.root={}", "dry_run=true"],
        ["train", "hydra.run.dir={}"],
        ["train", "hydra.run.dir={}/x"],
        ["train", "--config-dir", "{}"],
        ["list", "models", "--config-dir", "{}"],
    ],
    ids=lambda words: " ".join(words)[:30],
)
def test_name_that_no_file_can_have(segtrain, words):
    result = segtrain(*(word.format("x" * 300) for word in words))
    result.refused("xxx", code=result.code)
    assert result.code in (2, 4)
    assert "fault of segtrain" not in result.err


RECORDS = [
    {"earlier": 5},
    {"earlier": {"a": 1}},
    {"exit_code": "0"},
    {"exit_code": 0, "scores": [1], "seconds": "x"},
    {"exit_code": 0, "scores": {"score": [1], "step": {}}},
    {"exit_code": 0, "scores": {"score": "val/miou", "val/miou": "x"}},
    [1],
    5,
]


@pytest.mark.parametrize("record", RECORDS, ids=str)
def test_record_with_values_of_another_type(segtrain, training, record):
    sweep = ["train", "-m", "name=s", "seed=1,2", "trainer.steps=2"]
    assert segtrain("train", "name=x", "trainer.steps=2").code == segtrain(*sweep).code == 0
    for folder in ("outputs/x", "outputs/s/seed-1"):
        Path(folder, "run.json").write_text(json.dumps(record))
    assert segtrain("train", "resume=outputs/x").code == segtrain(*sweep).code == 0


def test_record_that_no_reader_survives(segtrain, training):
    segtrain("train", "name=x", "trainer.steps=2")
    Path("outputs/x/run.json").write_text("[" * 100_000)
    assert segtrain("train", "resume=outputs/x").code == 0


@pytest.mark.parametrize("value", ["5", "x", "[1]", "true"])
@pytest.mark.parametrize("key", ["predictor", "model", "data", "tta", "loss"])
def test_saved_config_with_values_of_another_type(segtrain, key, value):
    Path("r").mkdir()
    Path("r/config.yaml").write_text(f"{key}: {value}\n")
    for words in (["evaluate", "run=r", "model=unet"], ["train", "resume=r"], ["compare", "runs=[r]"]):
        segtrain(*words).refused("r/config.yaml", key, code=4)


# --- order at the start


def test_signals_and_lock_come_before_torch(segtrain, training, monkeypatch):
    seen = {}
    original = resumed.check

    def check(*words):
        seen.setdefault("owner", Path("outputs/x/.lock").read_text())
        seen.setdefault("handler", signal.getsignal(signal.SIGTERM))
        return original(*words)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(resumed, "check", check)
    assert segtrain("train", "name=x").code == 0
    assert str(os.getpid()) in seen["owner"]
    assert seen["handler"] not in (before, signal.SIG_DFL)
    assert signal.getsignal(signal.SIGTERM) == before


def test_signal_before_the_run_begins(segtrain, training, monkeypatch):
    monkeypatch.setattr(
        "segtrain.cli.composition.composed", lambda *_: os.kill(os.getpid(), signal.SIGTERM) or ({}, {})
    )
    segtrain("train", "name=x").refused("SIGTERM", code=143)
    assert training.configs == []


def test_second_process_ends_within_three_seconds_naming_the_owner(tmp_path):
    folder = tmp_path / "outputs" / "x"
    folder.mkdir(parents=True)
    code = (
        "import sys; from segtrain.cli.main import main; c = main(sys.argv[1:]); print('torch' in "
        "sys.modules); sys.exit(c)"
    )
    with Lock(folder):
        start = time.monotonic()
        words = [sys.executable, "-c", code, "train", "name=x", "resume=auto"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - start
    assert done.returncode == 2
    assert str(os.getpid()) in done.stderr
    assert done.stdout.split() == ["False"]
    assert len(done.stderr.splitlines()) == 1
    assert seconds < 3


def test_reader_of_a_pipe_that_leaves(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "segtrain", "config", "train"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141


# --- all of it, once


def test_train_evaluate_predict_and_go_on(segtrain, tmp_path):
    import numpy as np
    from PIL import Image

    assert segtrain("train", *TINY, "name=x").code == 0
    assert segtrain("train", "resume=outputs/x").code == 0
    assert segtrain("evaluate", "run=outputs/x", "tta=flip").code == 0
    [scores] = Path("outputs/x").rglob("scores.json")
    assert "miou" in json.loads(scores.read_text())
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "photos" / "ü 1.png")
    assert segtrain("predict", "run=outputs/x", "input=photos", "output=out").code == 0
    assert list((tmp_path / "out").rglob("ü 1*.png"))
    segtrain("predict", "run=outputs/x", "input=nix", "output=out").refused("input=nix does not exist")
    (tmp_path / "file").write_text("mine")
    segtrain("evaluate", "run=outputs/x", "output=file").refused(
        "cannot write file", "give the name of a folder", code=4
    )
    segtrain("predict", "run=outputs/x", "input=photos", "output=file").refused(
        "give the name of a folder", code=4
    )
    assert (tmp_path / "file").read_text() == "mine"
