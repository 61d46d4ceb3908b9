"""`segtrain submit`: an archive whose masks score what `segtrain evaluate` says."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtrain.cli import main as cli
from segtrain.data.cityscapes import CLASS_LISTS, LABELS
from segtrain.predictor.mask import load

TREE = Path(__file__).parents[1] / "data" / "cityscapes" / "tree"
TINY = ["model=unet", "model.widths=[4,8]", "augmentation=none", "loader.batch_size=2", "loader.workers=0"]
TINY += ["evaluate.workers=0", "trainer.steps=2", "device=cpu", "threads=1"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("submit")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.main(["train", *TINY, "data=cityscapes", f"data.root={TREE}", "name=run"]) == 0
        assert cli.main(["train", *TINY, "data.num_train=2", "data.num_val=1", "name=shapes"]) == 0
        yield folder


def test_masks_of_the_test_images_by_label_ids(place, capsys):
    assert cli.main(["submit", "run=outputs/run", "output=out", "device=cpu"]) == 0
    assert "out/cityscapes_test.zip: 1 mask" in capsys.readouterr().out
    with zipfile.ZipFile("out/cityscapes_test.zip") as archive:
        assert archive.namelist() == ["berlin_000000_000019_leftImg8bit.png"]
    mask = load("outputs/run", device="cpu")
    image = TREE / "leftImg8bit/test/berlin/berlin_000000_000019_leftImg8bit.png"
    ids = {label.name: label.id for label in LABELS}
    expected = np.array([ids[name] for name in CLASS_LISTS["19"].names])[mask(image)]
    assert np.array_equal(np.asarray(Image.open("out/berlin_000000_000019_leftImg8bit.png")), expected)


def test_a_submission_of_val_has_the_scores_of_evaluate(place):
    assert cli.main(["submit", "run=outputs/run", "output=val", "split=val", "device=cpu"]) == 0
    same = ["evaluate.protocol=cityscapes", "evaluate.pictures=0", "evaluate.workers=0", "device=cpu"]
    assert cli.main(["evaluate", "run=outputs/run", "output=evaluated", *same]) == 0
    data = ["data=cityscapes", f"data.root={TREE}", "ids=labels", "protocol=cityscapes"]
    assert cli.main(["score", "predictions=val", "output=scored", *data]) == 0
    ours, theirs = (json.loads(Path(name, "scores.json").read_text()) for name in ("evaluated", "scored"))
    del ours["protocol"], theirs["protocol"]
    assert ours == theirs


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run=outputs/shapes"], "data=shapes is no benchmark with a server"),
        (["run=outputs/shapes", "format=voc"], "no data.root"),
        (["run=outputs/run", "split=tests"], "no folder leftImg8bit/tests"),
        (["run=outputs/shapes", "data=cityscapes", f"data.root={TREE}"], "of which the benchmark has no"),
    ],
)
def test_what_cannot_be_submitted(place, capsys, words, said):
    assert cli.main(["submit", "output=other", "device=cpu", *words]) == 2
    assert said in capsys.readouterr().err
    assert not list(Path("other").glob("*"))
