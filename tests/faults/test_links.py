"""Links in the place of what evaluate, compare and predict write: nothing outside is written to."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from segtrain.cli.main import main

QUICK = ("device=cpu", "threads=1")
SCORE = (*QUICK, "evaluate.workers=0", "evaluate.pictures=1")
DATA = ("data=shapes", "data.size=48", "data.num_train=2", "data.num_val=2", "augmentation=none")
TRAIN = (*DATA, *QUICK, "model=unet", "model.widths=[4,8]", "loader.batch_size=2", "loader.workers=0")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    place = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(["train", *TRAIN, "evaluate.workers=0", "trainer.steps=1", "name=run"]) == 0
    return place / "outputs" / "run"


@pytest.fixture
def place(trained, tmp_path):
    """A working directory with outputs/run, photos/in/a.png and outside/precious."""
    shutil.copytree(trained, tmp_path / "outputs" / "run", symlinks=True)
    (tmp_path / "photos" / "in").mkdir(parents=True)
    Image.fromarray(np.zeros((48, 48, 3), np.uint8)).save(tmp_path / "photos" / "in" / "a.png")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_text("precious")
    return tmp_path


def link(path, to):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(to)


def outside(place):
    """{path: content} of the files there."""
    files = (path for path in (place / "outside").rglob("*") if path.is_file())
    return {str(path.relative_to(place)): path.read_bytes() for path in files}


PRECIOUS = {"outside/precious": b"precious"}
EVALUATE = ("evaluate", "run=outputs/run", *SCORE)
COMPARE = ("compare", "runs=[outputs/run]", *SCORE)
PREDICT = ("predict", "run=outputs/run", "input=photos", "probabilities=true", *QUICK)


def test_the_folder_of_evaluations_is_named(segtrain, place):
    link(place / "outputs" / "run" / "evaluate", place / "outside")
    segtrain(*EVALUATE).refused("outputs/run/evaluate is a link", "move it away", code=4)
    assert outside(place) == PRECIOUS


@pytest.mark.parametrize("target", ["outside", "nowhere"])
def test_an_evaluation_that_is_a_link_is_passed_over(segtrain, place, target):
    link(place / "outputs" / "run" / "evaluate" / "val-1", place / target)
    assert segtrain(*EVALUATE).code == 0
    assert outside(place) == PRECIOUS and not (place / "nowhere").exists()
    written = ["confusion.png", "scores.json", "sheet.png"]
    assert sorted(os.listdir(place / "outputs/run/evaluate/val-1-2")) == written


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ((*EVALUATE, "output=out"), ["confusion.png", "scores.json", "sheet.png"]),
        ((*COMPARE, "output=out"), ["compare.json", "compare.png"]),
        (
            (*PREDICT, "output=out", "overlay=true"),
            [f"{kind}/in/a.png" for kind in ("classes", "colours", "overlay")] + ["probabilities/in/a.npy"],
        ),
    ],
    ids=["evaluate", "compare", "predict"],
)
@pytest.mark.parametrize("target", ["outside/precious", "outside/new"])
def test_a_file_that_is_a_link_is_replaced(segtrain, place, words, names, target):
    for name in names:
        link(place / "out" / name, place / target)
    result = segtrain(*words)
    assert result.code == 0, result.err
    assert outside(place) == PRECIOUS
    assert all((place / "out" / name).is_file() and not (place / "out" / name).is_symlink() for name in names)


def test_a_picture_of_other_scores_goes_and_what_it_is_a_link_to_stays(segtrain, place):
    link(place / "out" / "sheet.png", place / "outside" / "precious")
    assert segtrain(*EVALUATE, "output=out", "evaluate.pictures=0").code == 0
    assert outside(place) == PRECIOUS
    assert sorted(os.listdir(place / "out")) == ["confusion.png", "scores.json"]


@pytest.mark.parametrize("folder", ["classes", "colours", "overlay", "probabilities", "classes/in"])
def test_a_folder_of_predictions_that_is_a_link_is_named(segtrain, place, folder):
    link(place / "out" / folder, place / "outside")
    words = (*PREDICT, "output=out", "overlay=true")
    segtrain(*words).refused(f"out/{folder} is a link", "choose another output", code=4)
    assert outside(place) == PRECIOUS


def test_one_that_is_not_written_to_may_be_a_link(segtrain, place):
    link(place / "out" / "overlay", place / "outside")
    assert segtrain(*PREDICT, "output=out", "overlay=false").code == 0
    assert outside(place) == PRECIOUS


@pytest.mark.parametrize(
    ("words", "made"),
    [(EVALUATE, "scores.json"), (COMPARE, "compare.json"), (PREDICT, "classes/in/a.png")],
    ids=["evaluate", "compare", "predict"],
)
def test_the_folder_that_the_user_chose_may_be_a_link(segtrain, place, words, made):
    link(place / "chosen", place / "outside")
    assert segtrain(*words, "output=chosen").code == 0
    assert (place / "outside" / made).is_file() and PRECIOUS.items() <= outside(place).items()


def test_a_run_that_is_named_by_a_link_is_evaluated_in_its_folder(segtrain, place):
    link(place / "latest", place / "outputs" / "run")
    assert segtrain("evaluate", "run=latest", *SCORE).code == 0
    scores = json.loads((place / "outputs/run/evaluate/val-1/scores.json").read_text())
    assert scores["protocol"]["checkpoint"] == 1
