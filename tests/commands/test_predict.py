"""Masks of folders of images: what is wrong with one, the others do not pay for."""

import errno
import io
import itertools
import os

import numpy as np
import pytest
from PIL import Image

from segtrain.cli import main as cli
from segtrain.predictor import load
from segtrain.run import storage

TINY = [
    "data.num_train=4",
    "data.num_val=2",
    "data.size=48",
    "augmentation.warp.size=48",
    "loader.batch_size=2",
    "loader.workers=0",
]
TINY += ["evaluate.workers=0", "trainer.steps=1", "device=cpu", "threads=1"]


def test_an_image_that_the_network_cannot_take_is_named_and_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "model=unet_padded", "model.width=0.05", *TINY, "name=run"]) == 0
    (tmp_path / "photos").mkdir()
    for name, size in (("a", (40, 33)), ("b", (3, 50)), ("c", (16, 16))):
        Image.fromarray(np.zeros((*size[::-1], 3), np.uint8)).save(tmp_path / "photos" / f"{name}.png")
    capsys.readouterr()
    assert cli.main(["predict", "run=outputs/run", "input=photos", "output=masks", "device=cpu"]) == 3
    summary, printed = capsys.readouterr()
    assert "written   2 masks to masks (classes/, colours/, overlay/); 1 left out" in summary
    assert "1 of 3 images has no mask (reasons above)" in printed
    assert "left out: photos/b.png: the network gets images of 50x3 px" in printed and "from 16 px" in printed
    sizes = {file.name: Image.open(file).size for file in (tmp_path / "masks" / "classes").iterdir()}
    assert sizes == {"a.png": (40, 33), "c.png": (16, 16)}
    assert cli.main(["predict", "run=outputs/run", "input=photos/b.png", "output=masks", "device=cpu"]) == 3
    assert "error: the image could not be used: photos/b.png: the network gets" in capsys.readouterr().err


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (47, 33)])
def test_networks_that_interpolate_take_any_image(tmp_path, monkeypatch, size):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "model.widths=[4,8]", *TINY, "name=run"]) == 0
    Image.fromarray(np.zeros((*size[::-1], 3), np.uint8)).save("photo.png")
    assert cli.main(["predict", "run=outputs/run", "input=photo.png", "output=masks", "device=cpu"]) == 0
    assert Image.open("masks/classes/photo.png").size == size


@pytest.fixture
def run(tmp_path, monkeypatch):
    """outputs/run, and photos/a.png and photos/more/b.png beside it."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "model.widths=[4,8]", *TINY, "name=run"]) == 0
    for name in ("a", "more/b"):
        (tmp_path / "photos" / name).parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "photos" / f"{name}.png")
    return tmp_path


@pytest.mark.parametrize(
    ("source", "output"),
    [("photos", "photos/masks"), ("photos", "photos/more"), ("photos/more/..", "photos/new/x")],
)
def test_results_below_the_images_are_not_predicted_in_turn(run, capsys, source, output):
    words = [
        "predict",
        "run=outputs/run",
        f"input={source}",
        f"output={output}",
        "probabilities=true",
        "device=cpu",
    ]
    for _ in range(2):
        capsys.readouterr()
        assert cli.main(words) == 0
        assert (
            f"written   2 masks to {output} (classes/, colours/, overlay/, probabilities/)"
            in capsys.readouterr().out
        )
    classes = run / output / "classes"
    assert sorted(str(file.relative_to(classes)) for file in classes.rglob("*.png")) == [
        "a.png",
        "more/b.png",
    ]


def test_results_into_a_link_that_leads_nowhere_are_refused(run, capsys):
    (run / "circle").symlink_to("circle")
    assert cli.main(["predict", "run=outputs/run", "input=photos", "output=circle", "device=cpu"]) in (2, 4)
    assert "circle" in capsys.readouterr().err


def test_results_among_the_images_are_refused(run, capsys):
    for output in ("photos", "./photos/more/.."):
        assert cli.main(["predict", "run=outputs/run", "input=photos", f"output={output}", "device=cpu"]) == 2
        assert f"output={output} is the folder of the images" in capsys.readouterr().err
    assert sorted(path.name for path in (run / "photos").iterdir()) == ["a.png", "more"]
    assert cli.main(["predict", "run=outputs/run", "input=photos/a.png", "output=photos", "device=cpu"]) == 0
    assert "written   1 mask to photos" in capsys.readouterr().out
    assert (
        cli.main(["predict", "run=outputs/run", "input=photos/overlay", "output=photos", "device=cpu"]) == 2
    )
    assert "input=photos/overlay holds no image but results of output=photos" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["input", "output"])
def test_an_empty_path_is_not_the_current_folder(run, capsys, key):
    words = {"run": "outputs/run", "input": "photos", "output": "masks", key: ""}
    assert cli.main(["predict", *(f"{name}={value}" for name, value in words.items())]) == 2
    assert f"{key} is empty (an unset variable of the shell?); give" in capsys.readouterr().err
    assert sorted(path.name for path in run.iterdir()) == ["outputs", "photos"]


class Refusing(io.FileIO):
    """A file of which the system refuses the write that is due."""

    writes, due, number = 0, 0, errno.ENOSPC

    def write(self, data):
        type(self).writes += 1
        if self.writes == self.due:
            raise OSError(self.number, os.strerror(self.number))
        return super().write(data)


def contents(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_on_a_full_disk_a_result_is_whole_or_not_there(run, capsys, monkeypatch):
    words = ["predict", "run=outputs/run", "input=photos", "probabilities=true", "device=cpu"]
    assert cli.main([*words, "output=whole", "predictor.tile=16"]) == 0
    whole, seen = contents(run / "whole"), set()
    # Of an image: masks, colours, overlay, and of the probabilities a header and 5 classes in 2 strips.
    assert len(whole) == 2 * 4
    monkeypatch.setattr(storage, "open", lambda path, mode: Refusing(path, mode), raising=False)
    for due in range(1, 100):
        monkeypatch.setattr(Refusing, "writes", 0)
        monkeypatch.setattr(Refusing, "due", due)
        output = run / f"out{due}"
        capsys.readouterr()
        code = cli.main([*words, f"output=out{due}", "predictor.tile=16"])
        found = contents(output)
        assert found.items() <= whole.items()
        if code == 0:
            break
        assert code == 4 and "Traceback" not in (said := capsys.readouterr().err)
        assert "cannot write out" in said and ": the disk is full; needed " in said
        seen.add(len(found))
    assert due == 2 * (3 + 1 + 2 * 5) + 1 and found == whole and seen == set(range(8))


def test_a_failed_write_keeps_the_result_that_was_there(run, monkeypatch):
    words = ["predict", "run=outputs/run", "input=photos/a.png", "output=out", "device=cpu"]
    assert cli.main(words) == 0
    before = contents(run / "out")
    monkeypatch.setattr(storage, "open", lambda path, mode: Refusing(path, mode), raising=False)
    for due, number in itertools.product((1, 2, 3), (errno.ENOSPC, errno.EIO)):
        monkeypatch.setattr(Refusing, "writes", 0)
        monkeypatch.setattr(Refusing, "due", due)
        monkeypatch.setattr(Refusing, "number", number)
        assert cli.main(words) == 4 and contents(run / "out") == before


def test_the_file_of_probabilities_is_numpys(run):
    words = ["predict", "run=outputs/run", "input=photos/a.png", "probabilities=true", "device=cpu"]
    for tile in ("null", "16"):
        assert cli.main([*words, f"output=out{tile}", f"predictor.tile={tile}"]) == 0
        path = run / f"out{tile}" / "probabilities" / "a.npy"
        values = np.load(path, allow_pickle=False)
        assert values.shape == (5, 20, 30) and values.dtype == np.float16
        np.testing.assert_allclose(values.astype(np.float32).sum(0), 1, atol=5e-3)
        mask = load("outputs/run", device="cpu", settings={"tile": None if tile == "null" else 16})
        assert np.array_equal(mask.probabilities("photos/a.png")[0].half().numpy(), values)
        np.save(run / "again.npy", values)
        assert path.read_bytes() == (run / "again.npy").read_bytes()
