"""With predictor.tile, memory is set by the tile, whatever else is asked for."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from segtrain.model.network import Network
from segtrain.predictor.predictor import predictor
from segtrain.sample import Normalisation, Output, Window
from segtrain.settings import PredictorSettings
from segtrain.tta import TTA

NORM = Normalisation((0.5,) * 3, (0.25,) * 3)
CLASSES, HEIGHT, WIDTH, TILE = 21, 300, 200, 32
BAND = CLASSES * TILE * WIDTH * 4
"""Bytes of the probabilities of a row of tiles."""


class Largest(TorchDispatchMode):
    """Remembers the bytes of the largest tensor that any operation made."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for one in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(one, torch.Tensor):
                self.bytes = max(self.bytes, one.untyped_storage().nbytes())
        return result


class Pixelwise(Network):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, CLASSES, 1)

    def forward(self, x):
        return Output(self.layer(x), tuple(x.shape[-2:]))


class Inner(Pixelwise):
    """Without padding."""

    margin, tile_sides = 4, (12, 2)

    def forward(self, x):
        inner = x.shape[-1] - 8
        return Output(self.layer(x[..., 4:-4, 4:-4]), (inner, inner), window=Window(4, 4, inner, inner))


@pytest.mark.parametrize("network", [Pixelwise, Inner])
@pytest.mark.parametrize(
    "views", [{}, pytest.param({"flip": {"axes": ["horizontal", "both"]}}, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("crf", [{}, {"crf": "deeplab", "crf_solver": "torch", "crf_window": 3}])
def test_no_tensor_is_larger_than_a_row_of_tiles(network, views, crf):
    image = torch.randint(0, 256, (1, 3, HEIGHT, WIDTH), dtype=torch.uint8)
    settings = PredictorSettings(tile=TILE, **crf)
    run = predictor(network(), NORM, lambda x, images: x.softmax(1), settings, TTA.build_each(views))
    with Largest() as largest:
        classes = run.decided(lambda p: p.max(1).indices, image)
    assert classes.shape == (1, HEIGHT, WIDTH)
    # The class indices of all pixels are int64 here.
    assert largest.bytes <= max(BAND, 8 * HEIGHT * WIDTH) < CLASSES * HEIGHT * WIDTH * 4 / 5


def test_without_a_tile_views_are_those_of_the_whole_image():
    """So that the answers of runs that were trained so stay what they were."""
    torch.manual_seed(0)
    image, model = torch.randint(0, 256, (1, 3, 40, 30), dtype=torch.uint8), Inner()

    def run(views, **settings):
        return predictor(model, NORM, lambda x, images: x.softmax(1), PredictorSettings(**settings), views)(
            image
        )

    views = TTA.build_each({"flip": {}})
    plain = predictor(model, NORM, lambda x, images: x.softmax(1), PredictorSettings(), ())
    assert torch.equal(run(views), (plain(image) + plain(image.flip(-1)).flip(-1)) / 2)
    torch.testing.assert_close(run(views, tile=20), run(views), rtol=0, atol=1e-6)


PREDICT = """
import resource, sys
import numpy as np, torch
from PIL import Image
from test_memory import NORM, Pixelwise
from segtrain.commands.predict_files import Results, predict
from segtrain.predictor.mask import Mask
from segtrain.predictor.predictor import predictor
from segtrain.sample import Facts
from segtrain.settings import PredictorSettings
from segtrain.task import TASK
from segtrain.tta import TTA

torch.set_num_threads(1)
task = TASK.build({"name": "semantic"})
facts = Facts(tuple(map(str, range(21))), ((0, 0, 0),) * 21, normalisation=NORM)
settings = PredictorSettings(tile=128, overlap=0.1)
run = predictor(Pixelwise(), NORM, task.activate, settings, TTA.build_each({"flip": {}}))
mask = Mask(run, task.decide, facts, torch.device("cpu"))

def used(name, height, width):
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(name)
    predict(mask, Results("out", task, facts, overlay=True, probabilities=True), name)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

small = used("small.png", 200, 150)
print(used("large.png", 3000, 2000) - small)
"""


def test_probabilities_of_a_large_image_are_never_held_together(tmp_path):
    """They would take 500 MB as float32 and 250 MB as they are written."""
    run = subprocess.run(
        [sys.executable, "-c", PREDICT],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    assert run.returncode == 0, run.stderr
    written = np.load(tmp_path / "out" / "probabilities" / "large.npy", mmap_mode="r")
    assert written.shape == (21, 3000, 2000) and written.dtype == np.float16
    assert int(run.stdout) < 300, run.stdout
