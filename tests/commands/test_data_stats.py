"""`segtrain data stats` from the command line."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from segtrain.loss.class_weights import class_weights

SHAPES = ("data.size=48", "data.num_train=3", "data.num_val=2", "data.objects=3")


def test_tables_and_files(segtrain, tmp_path):
    result = segtrain("data", "stats", *SHAPES)
    assert result.code == 0 and list(tmp_path.iterdir()) == []
    assert result.out.splitlines()[0].startswith("shapes train: 3 images, 6.91 k pixels, ")
    for word in ("w inverse", "w median", "w enet", "mean      [0.", "48x48 (height x width)", "median px"):
        assert word in result.out
    result = segtrain("data", "stats", *SHAPES, "split=all", "output=there/stats")
    assert "shapes all: 5 images" in result.out and "written   there/stats/stats.json" in result.out
    record = json.loads((tmp_path / "there/stats/stats.json").read_text())
    assert record["images"] == 5 and record["split"] == "all" and record["data"]["size"] == 48
    assert Image.open(tmp_path / "there/stats/stats.png").size[0] > 400


def test_json_has_the_numbers_of_the_split(segtrain, tmp_path, write_pair):
    rng = np.random.default_rng(0)
    targets = [rng.integers(0, 3, (6, 5 + number), np.uint8) for number in range(4)]
    targets[0][targets[0] == 2] = 255
    for number, target in enumerate(targets):
        image = np.full((*target.shape, 3), 51 * number, np.uint8)
        write_pair(tmp_path / "files", f"{'val' if number == 3 else 'train'}/{number}", image, target)
    result = segtrain("data", "stats", "data=folder", "data.root=files", "data.classes=[a,b,c]", "json=true")
    record = json.loads(result.out)
    pixels = np.array([[(target == index).sum() for index in range(3)] for target in targets[:3]])
    total = pixels.sum(axis=0)
    in_images = [pixels[pixels[:, index] > 0].sum() for index in range(3)]
    for index, name in enumerate("abc"):
        found = record["classes"][name]
        assert found["pixels"] == total[index] and found["images"] == (pixels[:, index] > 0).sum()
        assert found["share"] == total[index] / total.sum() and found["objects"] is None
        for rule, weight in found["weights"].items():
            expected = class_weights(rule, 1.0, torch.as_tensor(total), torch.as_tensor(in_images))
            assert weight == pytest.approx(float(expected[index]))
    assert set(record["classes"]["a"]["weights"]) == {"inverse", "median", "enet"}
    assert record["unlabelled"] == (targets[0] == 255).sum()
    assert record["height"] == {"min": 6, "median": 6.0, "max": 6}
    assert record["width"] == {"min": 5, "median": 6.0, "max": 7}
    assert record["mean"] == pytest.approx([(0 * 30 + 0.2 * 36 + 0.4 * 42) / 108] * 3)


def test_what_is_refused(segtrain, tmp_path, write_pair):
    segtrain("data", "stats", *SHAPES, "split=tset").refused("split=tset", "train, val, all")
    segtrain("data", "stats", "output=").refused("output is empty")
    for name in ("train/a", "val/b"):
        write_pair(tmp_path / "files", name, np.zeros((4, 4, 3), np.uint8), np.full((4, 4), 255, np.uint8))
    words = ("data=folder", "data.root=files", "data.classes=[a,b,c]")
    segtrain("data", "stats", *words).refused("no pixel of 1 sample has a label", code=3)
