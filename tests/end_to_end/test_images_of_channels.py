"""Training, scoring and prediction of images of other than three channels, and of drawn shapes."""

import json

import numpy as np
import tifffile
from PIL import Image

SHORT = ("device=cpu", "model=unet", "model.widths=[4,8]", "loader.batch_size=2", "loader.workers=0")
SHORT += ("evaluate.workers=0", "trainer.steps=2", "trainer.evaluate_every=null")


def test_a_run_reads_what_it_predicts_as_its_data_set_did(segtrain, tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("images", "other"):
        (tmp_path / folder).mkdir()
    for place in range(4):
        image = rng.integers(0, 5000, (32, 32, 2)).astype(np.uint16)
        for channel, end in enumerate(("_vv", "_vh")):
            Image.fromarray(image[..., channel]).save(tmp_path / f"images/x{place}{end}.png")
        shape = {"label": "ship", "shape_type": "rectangle", "points": [[4, 4], [20, 12]]}
        content = {"imageHeight": 32, "imageWidth": 32, "shapes": [shape]}
        (tmp_path / f"images/x{place}.json").write_text(json.dumps(content))
    data = ("data=folder", "data.images=images", "data.annotations=images", "data.channels=[_vv,_vh]")
    trained = segtrain("train", *SHORT, *data, "name=run")
    assert trained.code == 0, trained.err
    assert "ship" in trained.out
    predicted = segtrain(
        "predict", "run=outputs/run", "input=images", "output=out", "device=cpu", "max_pixels=1024"
    )
    assert predicted.code == 0, predicted.err
    assert sorted(path.name for path in (tmp_path / "out/classes").iterdir()) == [
        f"x{n}.png" for n in range(4)
    ]
    large = ("predict", "run=outputs/run", "input=images", "output=large", "device=cpu")
    segtrain(*large, "max_pixels=1023").refused("1024 pixels", "1023 (max_pixels)", code=3)
    tifffile.imwrite(tmp_path / "other/a_vv.tif", np.zeros((32, 32, 3), np.uint16), photometric="rgb")
    tifffile.imwrite(tmp_path / "other/a_vh.tif", np.zeros((32, 32), np.uint16))
    other = segtrain("predict", "run=outputs/run", "input=other", "output=b", "device=cpu")
    other.refused("a_vv.tif has 3 bands, and data.channels=[_vv,_vh] needs one", code=3)
