"""Fully connected layers as convolutions: the same numbers, at every place."""

import pytest
import torch
from torch import nn

from segtrain.errors import ConfigError
from segtrain.model.parts.fc_to_conv import fc_to_conv

torchvision = pytest.importorskip("torchvision")


def doubled(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*layers).double().eval()


def vgg() -> tuple[nn.Sequential, nn.Sequential]:
    """Torchvision's VGG, narrow: its own builder for the features, and its classifier's layers with fewer
    channels."""
    features = torchvision.models.vgg.make_layers([4, "M", 6, "M", 8, "M", 8, "M", 8, "M"])
    fully_connected = (
        nn.Linear(8 * 49, 32),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(32, 16),
        nn.ReLU(),
        nn.Linear(16, 5),
    )
    return doubled(*features), doubled(nn.AdaptiveAvgPool2d((7, 7)), nn.Flatten(), *fully_connected)


def test_vggs_logits_on_an_image_of_its_size():
    features, classifier = vgg()
    x = torch.randn(2, 3, 224, 224, dtype=torch.double)
    dense = nn.Sequential(features, *fc_to_conv(classifier, (7, 7)))
    assert [type(layer).__name__ for layer in dense[1:]] == [
        "Conv2d",
        "ReLU",
        "Dropout",
        "Conv2d",
        "ReLU",
        "Conv2d",
    ]
    with torch.no_grad():
        torch.testing.assert_close(dense(x)[..., 0, 0], classifier(features(x)), rtol=0, atol=1e-14)
        assert dense(x[..., :, :128].repeat(1, 1, 1, 3)).shape == (2, 5, 1, 6)


@pytest.mark.parametrize("form", ["flattened", "pooled"])
def test_without_padding_every_place_is_the_window_there(form):
    """Stride 4; a window of 27 px has 5x5 features."""
    features = doubled(
        nn.Conv2d(3, 6, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 2, stride=2),
        nn.ReLU(),
        nn.Conv2d(8, 8, 2),
    )
    if form == "flattened":
        classifier = doubled(nn.Flatten(), nn.Linear(8 * 25, 9), nn.ReLU(), nn.Linear(9, 4))
    else:
        classifier = doubled(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 9), nn.ReLU(), nn.Linear(9, 4)
        )
    x = torch.randn(1, 3, 27 + 4 * 5, 27 + 4 * 3, dtype=torch.double)
    with torch.no_grad():
        dense = fc_to_conv(classifier, (5, 5))(features(x))
        assert dense.shape == (1, 4, 6, 4)
        for i in range(6):
            for j in range(4):
                window = x[..., 4 * i : 4 * i + 27, 4 * j : 4 * j + 27]
                torch.testing.assert_close(dense[..., i, j], classifier(features(window)), rtol=0, atol=1e-14)


def test_with_padding_they_differ():
    """So that the test above could fail."""
    features = doubled(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    classifier = doubled(nn.Flatten(), nn.Linear(6 * 64, 4))
    x = torch.randn(1, 3, 20, 20, dtype=torch.double)
    with torch.no_grad():
        dense = fc_to_conv(classifier, (8, 8))(features(x))
        assert (dense[..., 1, 1] - classifier(features(x[..., 2:18, 2:18]))).abs().max() > 1e-3


def test_the_weights_are_the_same_memory():
    classifier = doubled(nn.Flatten(), nn.Linear(3 * 4, 2), nn.ReLU(), nn.Linear(2, 2, bias=False))
    dense = fc_to_conv(classifier, (2, 2))
    assert dense[0].weight.data_ptr() == classifier[1].weight.data_ptr() and dense[2].bias is None
    before = dense(torch.ones(1, 3, 2, 2, dtype=torch.double)).flatten()
    with torch.no_grad():
        classifier[3].weight.mul_(2)
    torch.testing.assert_close(dense(torch.ones(1, 3, 2, 2, dtype=torch.double)).flatten(), 2 * before)
    assert all(parameter.requires_grad for parameter in classifier.parameters())


def test_pooling_that_depends_on_the_size_is_refused():
    with pytest.raises(ConfigError, match="pooling"):
        fc_to_conv(nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(9, 2)), (7, 7))
