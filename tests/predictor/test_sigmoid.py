"""Prediction where each class has a sigmoid of its own."""

import pytest
import torch
from torch import nn

from segtrain.errors import ConfigError
from segtrain.model.network import Network
from segtrain.predictor.crf import crf
from segtrain.predictor.ensemble import EnsembleMember
from segtrain.predictor.inference import Inference
from segtrain.sample import Facts, Normalisation, Output
from segtrain.task import TASK

NORM = Normalisation((0.5,) * 3, (0.25,) * 3)
FACTS = Facts(("a", "b", "c"), ((0, 0, 0),) * 3, normalisation=NORM)
SIGMOID = TASK.build({"name": "semantic", "activation": "sigmoid"})


class Pointwise(Network):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return Output(self.layer(x), tuple(x.shape[-2:]))


class LogProbabilities(Pointwise):
    log_probabilities = True


def images(height=24, width=20):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=generator)


def predicted(net=None, task=SIGMOID, views=None, **settings):
    inference = Inference(settings, views or {})
    return inference.predictor_of(net or Pointwise(), FACTS, task, torch.device("cpu"))(images())


def test_probabilities_are_those_of_a_sigmoid_whatever_views_and_tiles():
    net = Pointwise()
    expected = net(NORM(images())).logits.sigmoid().detach()
    for views, settings in (({}, {}), ({"flip": {}}, {}), ({"flip": {}}, {"tile": 16, "overlap": 0.5})):
        torch.testing.assert_close(predicted(net, views=views, **settings), expected, atol=1e-6, rtol=1e-5)
    assert (expected.sum(1) - 1).abs().max() > 0.2


def test_the_crf_takes_probabilities_relative_to_their_sum():
    probabilities = torch.rand(1, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    refine = crf("pydensecrf", 7, "torch")
    given = images(12, 10)[:1]
    expected = refine(given, probabilities / probabilities.sum(1, keepdim=True))
    torch.testing.assert_close(refine(given, probabilities), expected, atol=1e-5, rtol=1e-4)
    refined = predicted(crf="pydensecrf", crf_window=7, crf_solver="torch")
    torch.testing.assert_close(refined.sum(1), torch.ones(2, 24, 20))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"boxes": "grid"}, r"predictor\.boxes=grid merges scores from 0 on.*use predictor\.boxes=null"),
        (
            {"ensemble": "other"},
            r"predictor\.ensemble_merge=product merges.*use predictor\.ensemble_merge=mean",
        ),
    ],
)
def test_merges_of_scores_from_0_on_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        predicted(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"boxes": "grid"}, r"with task=multilabel; use predictor\.boxes=null"),
        ({"ensemble": "other"}, r"with task=multilabel; use predictor\.ensemble_merge=mean"),
        ({"crf": "deeplab"}, r"a sigmoid for each label; use predictor\.crf=null"),
    ],
)
def test_what_needs_a_softmax_is_refused_for_labels(settings, message):
    with pytest.raises(ConfigError, match=message):
        predicted(task=TASK.build({"name": "multilabel"}), **settings)


def test_the_logits_of_views_of_labels_may_be_averaged():
    views = {"flip": {}}
    expected = predicted(views=views, tta_merge="logit")
    of_labels = predicted(task=TASK.build({"name": "multilabel"}), views=views, tta_merge="logit")
    assert torch.equal(of_labels, expected)


def test_log_probabilities_are_refused():
    with pytest.raises(ConfigError, match=r"are log-probabilities; use task\.activation=softmax"):
        predicted(LogProbabilities())
    predicted(LogProbabilities(), TASK.build({"name": "semantic"}))


def test_the_mean_with_a_second_network_of_the_same_activation(monkeypatch):
    net, other = Pointwise(), Pointwise()
    nn.init.normal_(other.layer.bias)

    def reader(activation):
        return lambda settings, device: (
            EnsembleMember(lambda x: other(NORM(x)).logits, FACTS, "other", 7, activation),
        )

    settings = {"ensemble": "other", "ensemble_merge": "mean"}
    monkeypatch.setattr("segtrain.predictor.inference.read_ensemble", reader("sigmoid"))
    logits = [one(NORM(images())).logits for one in (net, other)]
    expected = (logits[0].sigmoid() + logits[1].sigmoid()) / 2
    torch.testing.assert_close(predicted(net, **settings), expected)
    monkeypatch.setattr("segtrain.predictor.inference.read_ensemble", reader("softmax"))
    with pytest.raises(ConfigError, match=r"predictor\.ensemble=other was trained for a softmax"):
        predicted(net, **settings)


def test_a_second_network_of_another_task_is_refused():
    """Both decide by a sigmoid, over one channel and over two."""
    other = EnsembleMember(lambda images: images, FACTS, "other", 7, "sigmoid", "semantic")
    with pytest.raises(ConfigError, match=r"predictor\.ensemble=other was trained for task=semantic"):
        other.check_same(FACTS, "sigmoid", "binary")
