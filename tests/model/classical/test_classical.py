"""The classical system: what it learns from, what it says, what it keeps."""

import importlib
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("skimage")
pytest.importorskip("sklearn")
pytest.importorskip("maxflow")

from safetensors.torch import load, save

from segtrain.data.shapes import shapes
from segtrain.errors import ConfigError, DataError
from segtrain.model import MODEL
from segtrain.model.classical.classical import classical, majority
from segtrain.sample import IGNORE, Normalisation, Sample

module = importlib.import_module(
    "segtrain.model.classical.classical"
)  # the package has the factory under this name
OPTIONS = {"num_regions": 60, "textons": 8, "trees": 10, "min_leaf": 2}


def colours(seed: int, side: int = 48) -> Sample:
    """Red is class 0, green 1, blue 2, with noise: what colour alone can tell."""
    rng = np.random.default_rng(seed)
    target = np.zeros((side, side), np.uint8)
    target[:, rng.integers(side // 3, side // 2) :] = 1
    target[rng.integers(side // 2, side - side // 4) :] = 2
    image = np.full((side, side, 3), 40)
    image[np.arange(side)[:, None], np.arange(side)[None], target] = 210
    noisy = (image + rng.integers(-20, 21, image.shape)).astype(np.uint8)
    target[:2] = IGNORE
    return Sample(noisy, target, name=str(seed))


def fitted(count: int = 4, **options):
    net = classical(3, **{**OPTIONS, **options})
    net.fit([colours(seed) for seed in range(count)], np.random.default_rng(0))
    return net.eval()


@pytest.fixture(scope="module")
def net():
    return fitted()


def answer(net, sample: Sample) -> torch.Tensor:
    return net(net.normalisation(torch.from_numpy(sample.image.transpose(2, 0, 1))[None])).logits[0]


@pytest.mark.parametrize("smoothing", ["none", "icm", "expansion"])
@pytest.mark.parametrize("regions", ["slic", "watershed"])
def test_colours_are_learnt(regions, smoothing):
    net = fitted(regions=regions, smoothing=smoothing)
    sample = colours(99)
    known = sample.target != IGNORE
    right = answer(net, sample).argmax(0).numpy() == sample.target
    assert right[known].mean() > 0.95


def test_without_smoothing_the_probabilities_are_the_forests(net):
    net.chosen = replace(net.chosen, smoothing="none")
    sample = colours(7)
    regions, _, _, features = net.described(net._rgb_of(sample.image))
    expected = net.forest(features)
    found = answer(net, sample).softmax(0).numpy()
    assert found.shape == (3, 48, 48) and np.abs(found - expected.T[:, regions]).max() < 1e-6


def test_scores_are_log_probabilities_and_the_network_says_so(net):
    from segtrain.predictor.predictor import predictor
    from segtrain.settings import PredictorSettings

    assert (answer(net, colours(7)) <= 1e-6).all() and net.log_probabilities
    with pytest.raises(ConfigError, match=r"predictor\.boxes=grid"):
        predictor(net, net.normalisation, torch.softmax, PredictorSettings(boxes="grid"))


@pytest.mark.parametrize("smoothing", ["icm", "expansion"])
def test_smoothing_of_no_weight_changes_nothing(net, smoothing):
    sample = colours(7)
    net.chosen = replace(net.chosen, smoothing="none")
    plain = answer(net, sample)
    net.chosen = replace(net.chosen, smoothing=smoothing, smoothing_weight=0.0)
    torch.testing.assert_close(answer(net, sample), plain)


def test_smoothing_of_much_weight_gives_one_class(net):
    sample = colours(7)
    net.chosen = replace(net.chosen, smoothing="expansion", smoothing_weight=1e4)
    assert len(answer(net, sample).argmax(0).unique()) == 1


def test_smoothed_probabilities_name_the_solvers_labels(net, monkeypatch):
    found = []
    original = module.alpha_expansion
    monkeypatch.setattr(
        module, "alpha_expansion", lambda *problem: found.append(original(*problem)) or found[-1]
    )
    net.chosen = replace(net.chosen, smoothing="expansion", smoothing_weight=0.7)
    sample = shapes(size=48).splits["val"][0]
    logits = answer(net, sample)
    regions = net.described(net._rgb_of(sample.image))[0]
    assert np.array_equal(logits.argmax(0).numpy(), found[0][regions])
    torch.testing.assert_close(logits.exp().sum(0), torch.ones(48, 48))


def test_the_same_generator_gives_the_same_forest():
    one, other = (fitted(2).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_saved_and_loaded_without_scikit_learn(net, monkeypatch):
    stored = load(save(net.state_dict()))
    assert set(stored) == set(net.state_dict()) and all(torch.is_tensor(tensor) for tensor in stored.values())
    monkeypatch.setitem(sys.modules, "sklearn", None)
    again = classical(3, **OPTIONS).eval()
    again.resize_for(stored)
    again.load_state_dict(stored)
    net.chosen = replace(net.chosen, smoothing="expansion", smoothing_weight=0.5)
    assert torch.equal(answer(again, colours(3)), answer(net, colours(3)))


def test_predicted_pixels_are_those_that_were_stored(net):
    """The network gets 0..1 and describes the same image as the fit did."""
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    floats = net.normalisation(torch.from_numpy(image.transpose(2, 0, 1))[None])[0].permute(1, 2, 0)
    assert np.array_equal((floats.numpy() * 255).round().astype(np.uint8), image)
    assert np.array_equal(net._rgb_of(image), floats.numpy())
    assert net.normalisation == Normalisation((0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize(("channels", "dtype"), [(1, np.uint8), (4, np.uint16), (2, np.float32)])
def test_grey_and_further_channels(channels, dtype):
    full = {np.uint8: 255, np.uint16: 65535, np.float32: 1}[dtype]
    rng = np.random.default_rng(0)
    target = (np.mgrid[:32, :32][1] > 15).astype(np.uint8)
    image = (full * (0.2 + 0.5 * target[..., None] + 0.1 * rng.random((32, 32, channels)))).astype(dtype)
    net = classical(2, channels, **OPTIONS)
    net.fit([Sample(image, target)] * 2, rng)
    assert (answer(net, Sample(image)).argmax(0).numpy() == target).mean() > 0.9


def test_labels_are_clear_majorities():
    regions = np.repeat(np.arange(5), 10).reshape(5, 10)
    target = np.zeros((5, 10), np.uint8)
    target[0, :6] = 1  # 60 % of class 1
    target[1, :5] = 1  # 50 %: not clear
    target[2, :4], target[2, 4:] = 2, IGNORE  # 40 % labelled
    target[3, :5], target[3, 5:] = 2, IGNORE  # half is enough
    target[4] = IGNORE
    assert majority(regions, target, 3).tolist() == [1, -1, -1, 2, -1]


def test_no_more_regions_than_wanted():
    sizes = []
    net = classical(3, **OPTIONS, max_regions=40)
    net.forest.fit = lambda features, labels, **_: sizes.append((features.shape, labels.shape))
    net.fit([colours(seed) for seed in range(4)], np.random.default_rng(0))
    assert sizes == [((40, 2 * (6 + 8 + 10 + 3)), (40,))]


@pytest.mark.parametrize(
    "options",
    [
        {"compactness": 1e-6},
        {"compactness": 1e6},
        {"num_regions": 100_000},
        {"num_regions": 100_000, "regions": "watershed"},
        {"textons": 1},
        {"trees": 1},
        {"min_leaf": 1_000_000},
        {"max_regions": 1},
        {"smoothing_weight": 1000.0},
        {"smoothing_weight": 1000.0, "smoothing": "icm"},
    ],
)
def test_the_ends_of_the_limits_work(options):
    net = MODEL.build({"name": "classical", **OPTIONS, **options}, out_channels=3, in_channels=3)
    net.fit([colours(seed) for seed in range(2)], np.random.default_rng(0))
    assert net(torch.rand(1, 3, 20, 30)).logits.isfinite().all()


def test_nothing_to_learn_from_is_said():
    sample = colours(0)
    sample.target[:] = IGNORE
    with pytest.raises(DataError, match="no region"):
        classical(3, **OPTIONS).fit([sample], np.random.default_rng(0))


def test_before_the_fit_every_class_is_as_likely():
    probabilities = classical(4, **OPTIONS)(torch.rand(2, 3, 20, 30)).logits.softmax(1)
    torch.testing.assert_close(probabilities, torch.full((2, 4, 20, 30), 0.25))


@pytest.mark.parametrize(("absent", "options", "words"), [
    ("skimage", {}, "scikit-image"),
    ("maxflow", {}, "PyMaxflow.*smoothing=icm"),
    ("maxflow", {"smoothing": "icm"}, None),
    ("sklearn", {}, None),
])  # fmt: skip
def test_a_missing_package_is_named_with_its_extra(monkeypatch, absent, options, words):
    found = module.importlib.util.find_spec
    monkeypatch.setattr(
        module.importlib.util, "find_spec", lambda name: None if name == absent else found(name)
    )
    if words is None:
        net = classical(3, **OPTIONS, **options)
        if absent == "sklearn":
            with pytest.raises(ConfigError, match=r"scikit-learn.*segtrain\[classical\]"):
                net.fit([], np.random.default_rng(0))
    else:
        with pytest.raises(ConfigError, match=words):
            classical(3, **OPTIONS, **options)


@pytest.mark.parametrize(
    "option", ["num_regions", "textons", "trees", "min_leaf", "max_regions", "compactness"]
)
def test_numbers_that_make_no_sense_are_refused(option):
    with pytest.raises(ConfigError, match=f"model.{option} is 0"):
        MODEL.build({"name": "classical", **OPTIONS, option: 0}, out_channels=3)
    with pytest.raises(ConfigError, match=r"model\.smoothing_weight is -1"):
        MODEL.build({"name": "classical", "smoothing_weight": -1.0}, out_channels=3)
