"""Several processes, started by torchrun, against one process."""

import itertools
import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.distributed as dist
from launched import end, ranks_of, run, start, wait_for
from PIL import Image

from segtrain import ranks
from segtrain.errors import ConfigError
from segtrain.model.network import Network
from segtrain.ranks import faults
from segtrain.run.rank import Rank, launched
from segtrain.settings import Trainer
from segtrain.train.random_state import distinct_per_rank, random_state, restore_random_state
from segtrain.train.state import new_state

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and signals ranks")

SMALL = (
    *("data=shapes", "data.size=48", "data.num_train=40", "data.num_val=5", "device=cpu", "model=unet"),
    *("model.widths=[4,8]", "augmentation=none", "loader.workers=0", "evaluate.workers=0", "bootstrap=0"),
)
TRAINED = tuple(word for word in SMALL if word != "bootstrap=0")


@pytest.fixture
def noise(tmp_path, write_pair):
    """A folder of noise with uneven shares of ignored pixels, one image fully ignored. In noise no two pixels
    are alike, so that rounding does not move many of them over the kink of a ReLU at once."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 3)):
        for index in range(count):
            image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            mask = (image[..., 0] > 128).astype(np.uint8) + (image[..., 1] > 200)
            mask[rng.random((32, 32)) < index / 19] = 255
            write_pair(tmp_path / "noise" / split, index, image, mask.astype(np.uint8))
    return tmp_path / "noise"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "checkpoints" / "last" / "model.safetensors")


def losses(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["train/loss"] for line in lines if "train/loss" in line]


@pytest.mark.parametrize(
    ("num_ranks", "accumulate", "strategy", "widths", "steps"),
    [
        (2, 1, "ddp", "[4,8]", 30),
        pytest.param(3, 2, "ddp", "[4,8]", 30, marks=pytest.mark.slow),
        pytest.param(2, 2, "fsdp", "[4,400]", 10, marks=pytest.mark.slow),
    ],
)
def test_weights_are_those_of_one_process(
    num_ranks, accumulate, strategy, widths, steps, noise, segtrain, tmp_path
):
    """With 400 channels, FSDP cuts a layer by itself; more steps of such a network amplify rounding."""
    words = (
        *("train", "data=folder", f"data.root={noise}", "data.classes=[a,b,c]", "model=unet"),
        *("augmentation=none", "loader.batch_size=7", "device=cpu"),
        *(f"trainer.steps={steps}", "trainer.log_every=1", "trainer.freeze_batch_norm=true", "optimizer=sgd"),
        *(
            "loader.workers=0",
            "evaluate.workers=0",
            f"model.widths={widths}",
            "optimizer.lr=0.05",
            "threads=1",
        ),
    )
    assert segtrain(*words, "name=one").code == 0
    how = (f"trainer.accumulate={accumulate}", f"trainer.strategy={strategy}")
    code, out = run(*words, "name=several", *how, cwd=tmp_path, num_ranks=num_ranks)
    assert code == 0, out
    one, several = weights(tmp_path / "outputs" / "one"), weights(tmp_path / "outputs" / "several")
    assert max((one[name] - several[name]).abs().max() for name in one) < 1e-6
    assert losses(tmp_path / "outputs" / "several") == pytest.approx(
        losses(tmp_path / "outputs" / "one"), abs=2e-6
    )
    assert out.count("validation:") == 1  # rank 0 alone speaks


@pytest.mark.parametrize("num_ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_counts_are_those_of_one_process_for_every_length(num_ranks, tmp_path):
    script = Path(__file__).with_name("evaluated_in_parts.py")
    code, out = run(script, num_ranks, cwd=tmp_path, num_ranks=num_ranks)
    assert code == 0 and "all equal" in out, out


@pytest.mark.slow
def test_unreadable_samples_of_all_ranks_are_counted(noise, tmp_path):
    (noise / "train" / "images" / "0.png").write_bytes(b"no image")
    words = (
        *("train", "data=folder", f"data.root={noise}", "data.classes=[a,b,c]", "model=unet", "device=cpu"),
        *("model.widths=[4,8]", "augmentation=none", "loader.batch_size=20", "loader.workers=0", "seed=3"),
        *("evaluate.workers=0", "trainer.steps=2", "loader.on_bad=skip"),
    )
    code, out = run(*words, cwd=tmp_path)
    assert code == 0, out
    # One of the two epochs had the file on rank 1, which prints nothing.
    assert out.count("skipped: ") == 1 and "unreadable samples replaced by others: 2 (" in out, out


@pytest.mark.slow
def test_a_gradient_that_one_rank_lacks_counts_as_zeros(tmp_path):
    code, out = run(Path(__file__).with_name("summed.py"), cwd=tmp_path)
    assert code == 0 and "all equal" in out, out


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The directory of a finished run of two ranks, with dropout-free weights of four steps."""
    folder = tmp_path_factory.mktemp("trained")
    code, out = run("train", *TRAINED, "trainer.steps=4", "loader.batch_size=4", "name=run", cwd=folder)
    assert code == 0, out
    return folder


@pytest.mark.slow
def test_evaluate_and_predict_give_what_one_process_gives(trained, segtrain, monkeypatch):
    monkeypatch.chdir(trained)
    words = ("run=outputs/run", "evaluate.batch_size=2", "evaluate.workers=0")
    code, out = run("evaluate", *words, "output=several", cwd=trained)
    assert code == 0 and out.count("mean ") == 1 and "Warning" not in out, out
    assert segtrain("evaluate", *words, "output=one").code == 0
    one, several = (json.loads((trained / name / "scores.json").read_text()) for name in ("one", "several"))
    for scores in (one, several):
        del scores["protocol"]["seconds"]
    assert one == several
    assert (trained / "one" / "sheet.png").read_bytes() == (trained / "several" / "sheet.png").read_bytes()
    rng = np.random.default_rng(0)
    (trained / "photos").mkdir()
    for index in range(3):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(
            trained / "photos" / f"{index}.png"
        )
    code, out = run("predict", "run=outputs/run", "input=photos", "output=masks", cwd=trained)
    assert code == 0 and out.count("3 masks") == 1, out
    assert segtrain("predict", "run=outputs/run", "input=photos", "output=alone").code == 0
    for index in range(3):
        path = Path("classes") / f"{index}.png"
        assert (trained / "masks" / path).read_bytes() == (trained / "alone" / path).read_bytes()


def step_of(run_folder: Path) -> int:
    return int((run_folder / "checkpoints" / "last").resolve().name)


LONG = (*TRAINED, "trainer.steps=100000", "trainer.log_every=5", "name=run", "loader.batch_size=4")


def begun(tmp_path, *words, says="step 5 ", **how):
    """A training of two ranks whose log has come to that text, and the log."""
    log = tmp_path / "log.txt"
    with open(log, "w") as file:
        process = start("train", *LONG, *words, cwd=tmp_path, log=file, **how)
    try:
        wait_for(lambda: says in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
    except BaseException:
        end(process)
        raise
    return process, log


def errors(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if line.startswith("segtrain: error:")]


@pytest.mark.slow
def test_a_signal_to_one_rank_makes_all_save_at_one_step_and_the_run_resumes(tmp_path):
    process, log = begun(tmp_path)
    try:
        os.kill(ranks_of(process)[1], signal.SIGTERM)
        process.wait(timeout=30)
        assert log.read_text().count("exitcode  : 143") == 2, log.read_text()
        (message,) = errors(log)
        stopped = step_of(tmp_path / "outputs" / "run")
        assert f"stopped after step {stopped} of 100000; a checkpoint is saved" in message
        assert json.loads((tmp_path / "outputs" / "run" / "run.json").read_text())["exit_code"] == 143
        end(process)
        process, log = begun(tmp_path, "resume=auto", says="images/s")
        assert f"resuming from outputs/run/checkpoints/{stopped}" in log.read_text()
    finally:
        end(process)


@pytest.mark.parametrize(
    ("number", "rank", "said"),
    [
        (signal.SIGKILL, 1, "rank 0: another rank is gone"),
        pytest.param(signal.SIGKILL, 0, "rank 1: another rank is gone", marks=pytest.mark.slow),
        pytest.param(signal.SIGSTOP, 1, "rank 0: rank 1 did not answer for 20 s", marks=pytest.mark.slow),
    ],
)
def test_a_rank_that_dies_or_sleeps_ends_the_others(number, rank, said, tmp_path):
    process, log = begun(tmp_path)
    try:
        os.kill(ranks_of(process)[rank], number)
        start_s = time.monotonic()
        assert process.wait(timeout=30) != 0 and time.monotonic() - start_s < 30
        (message,) = errors(log)
        assert said in message
        assert not ranks_of(process)
    finally:
        end(process)


@pytest.mark.slow
def test_torchrun_restarts_a_run_from_its_checkpoint(tmp_path):
    process, log = begun(tmp_path, "trainer.save_every=2", options=("--max-restarts=1",))
    try:
        wait_for(lambda: (tmp_path / "outputs" / "run" / "checkpoints" / "last").exists())
        os.kill(ranks_of(process)[1], signal.SIGKILL)
        wait_for(lambda: "resuming from outputs/run/checkpoints/" in log.read_text())
    finally:
        end(process)


def test_an_error_is_told_once(tmp_path):
    (tmp_path / "data" / "images").mkdir(parents=True)
    code, out = run("train", "data=folder", "data.root=data", cwd=tmp_path)
    assert code == 1 and out.count("segtrain: error:") == 1 and "exitcode  : 2" in out, out
    assert not (tmp_path / "outputs").exists() or not any((tmp_path / "outputs").iterdir())
    code, out = run("train", "modle=unet", cwd=tmp_path)
    assert code == 1 and out.count("segtrain: error: rank 0: modle") == 1, out
    code, out = run("train", *TRAINED, "loader.batch_size=1", cwd=tmp_path)
    assert "cannot be split into trainer.accumulate=1 parts of an image or more on 2 ranks" in out, out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "--multirun", "seed=0,1"), "segtrain train --multirun runs in one process"),
        (("explain", "run=outputs/x"), "segtrain explain runs in one process"),
        (("train", "experiment=fcn_paper"), "stages run one after another in one process"),
    ],
)
def test_what_several_ranks_cannot_do(words, said, monkeypatch, segtrain):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("segtrain.ranks.faults.is_first_to_fail", lambda: True)
    segtrain(*words).refused("rank 0: ", said)


def test_the_rank_is_that_of_torchrun_alone(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert launched() == Rank(0, 1, 0, 0, 0)  # another program's variables
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert launched() == Rank(1, 2, 0, 0, 0)


@pytest.fixture
def second_of_two(monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)


def test_one_gpu_for_several_ranks_is_refused(second_of_two):
    one, device = "device=cuda:1 is one GPU, and torchrun started 2", "use device=cuda, "
    with pytest.raises(ConfigError, match=f"{one} .*{device}"), ranks.process_group("cuda:1"):
        raise AssertionError("the ranks have begun")


def test_the_wait_for_rank_0_has_a_limit(second_of_two, monkeypatch):
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setattr(faults, "_store", store)
    monkeypatch.setattr(faults, "START_S", 0.2)
    called, late = [], "rank 0 did not begin within 0 s, and rank 1 waits for it"
    with pytest.raises(faults.LostRank, match=late), ranks.process_group("cpu", lambda: called.append(1)):
        raise AssertionError("the ranks have begun")
    assert called and not dist.is_initialized()


def test_a_rank_that_is_added_draws_other_numbers_after_each_step(monkeypatch):
    torch.manual_seed(3)
    saved = random_state()
    monkeypatch.setattr(ranks, "rank", lambda: 1)

    def drawn(step: int) -> float:
        restore_random_state(saved, step)
        return torch.rand(1).item()

    distinct_per_rank(3)
    at_the_start = torch.rand(1).item()
    assert len({at_the_start, drawn(5), drawn(6)}) == 3 and drawn(5) == drawn(5)


def test_parts_hold_every_place_once(monkeypatch):
    for count in range(1, 12):
        for size in (1, 2, 3, 5):
            monkeypatch.setattr(ranks, "world_size", lambda size=size: size)
            places = []
            for rank in range(size):
                monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
                places += [list(ranks.part_of(count))]
            lengths = [len(part) for part in places]
            assert [*itertools.chain(*places)] == list(range(count)) and max(lengths) - min(lengths) <= 1


def test_interleaved():
    assert ranks.interleaved([[0, 3, 6], [1, 4], [2, 5]]) == list(range(7))
    assert ranks.interleaved([[], []]) == []


def stopped_after_step_5(*words, cwd):
    """Trains on two ranks until SIGTERM comes to one of them, soon after step 5."""
    log = cwd / "log.txt"
    with open(log, "w") as file:
        process = start("train", *words, cwd=cwd, log=file)
    try:
        wait_for(lambda: "step 5 " in log.read_text())
        os.kill(ranks_of(process)[1], signal.SIGTERM)
        process.wait(timeout=30)
    finally:
        end(process)


@pytest.mark.slow
def test_a_resumed_run_of_several_ranks_is_bit_identical(tmp_path):
    """With batch-norm, EMA, accumulation and a rank that has more images than the other."""
    words = (
        *TRAINED,
        *("trainer.steps=40", "trainer.log_every=1", "trainer.ema=0.9", "trainer.accumulate=2"),
        "loader.batch_size=5",
    )
    code, out = run("train", *words, "name=straight", cwd=tmp_path)
    assert code == 0, out
    stopped_after_step_5(*words, "name=cut", cwd=tmp_path)
    assert step_of(tmp_path / "outputs" / "cut") < 40
    code, out = run("train", *words, "name=cut", "resume=auto", cwd=tmp_path)
    assert code == 0 and "resuming from" in out, out
    one, other = (
        (tmp_path / "outputs" / name / "checkpoints" / "40" / "model.safetensors").read_bytes()
        for name in ("straight", "cut")
    )
    assert one == other
    assert losses(tmp_path / "outputs" / "straight") == losses(tmp_path / "outputs" / "cut")


@pytest.mark.slow
def test_a_sharded_run_goes_on_in_another_number_of_processes(segtrain, tmp_path):
    words = (
        *TRAINED,
        *("trainer.strategy=fsdp", "trainer.steps=40", "trainer.log_every=1", "trainer.ema=0.9"),
        *("loader.batch_size=4", "model.widths=[4,400]", "trainer.save_every=1", "threads=1", "name=run"),
    )
    stopped_after_step_5(*words, cwd=tmp_path)
    stopped = step_of(tmp_path / "outputs" / "run")
    assert stopped < 40
    result = segtrain("train", *words, "resume=auto")
    assert result.code == 0 and f"resuming from outputs/run/checkpoints/{stopped}" in result.out
    assert len(losses(tmp_path / "outputs" / "run")) == 40
    _, out = run("train", *words[:-1], "trainer.amp=fp16", cwd=tmp_path)
    assert "trainer.strategy=fsdp does not go with trainer.amp=fp16; use trainer.amp=bf16" in out


def test_checkpoints_of_versions_without_ranks_are_resumed():
    class OneLayer(Network):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)

    state = new_state(OneLayer(), {}, Trainer(), torch.device("cpu"))
    plain = state.plain()
    assert plain["random"].pop("ranks") == []
    state.restore(state.weights(), plain, "an earlier checkpoint")


def test_a_network_that_fits_itself_is_refused(monkeypatch):
    monkeypatch.setattr(ranks, "world_size", lambda: 2)
    with pytest.raises(ConfigError, match="is fitted in one process, and torchrun started 2"):
        ranks.refuse("model=classical is fitted in one process")
