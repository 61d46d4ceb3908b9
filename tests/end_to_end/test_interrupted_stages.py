"""A signal in the second stage ends all of them; the same command goes on there and ends as if nothing had
happened."""

import signal

import pytest
from conftest import TINY, run, start
from test_interrupted import losses, wait_for_step

STAGES = (
    'stages=[["trainer.steps=4"],["trainer.steps=30","optimizer.lr=0.0003","trainer.freeze_batch_norm=true"]]'
)
LINE = (
    "train",
    *TINY,
    STAGES,
    "trainer.save_every=2",
    "trainer.evaluate_every=null",
    "name=run",
    "resume=auto",
)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    place = tmp_path_factory.mktemp("straight")
    ended = run(*LINE, cwd=place)
    assert ended.returncode == 0, ended.stderr
    return place / "outputs" / "run"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.slow
def test_interrupted_stages_equal_the_straight_ones(straight, tmp_path, number, code):
    folder = tmp_path / "outputs" / "run"
    process = start(*LINE, cwd=tmp_path)
    wait_for_step(folder / "stage2", 5, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "stage 2 of 2: stopped after step" in errors and "Traceback" not in errors
    ended = run(*LINE, cwd=tmp_path)
    assert ended.returncode == 0 and "stage 1 of 2: trainer.steps=4 finished before" in ended.stdout, (
        ended.stderr
    )
    for stage, step in (("stage1", 4), ("stage2", 30)):
        place = f"{stage}/checkpoints/{step}/model.safetensors"
        assert (folder / place).read_bytes() == (straight / place).read_bytes()
        assert losses(folder / stage) == losses(straight / stage)
