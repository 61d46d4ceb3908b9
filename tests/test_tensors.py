"""Files of weights: read by their content, with the same checks and words for every option that names one."""

import argparse
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from segtrain.checkpoint.initial import start_from
from segtrain.errors import CheckpointError, ConfigError
from segtrain.model.encoder.timm_encoder import encoder_of
from segtrain.model.encoder.vgg import VGG16, load_vgg16_weights
from segtrain.model.encoder.weights import load_encoder_weights
from segtrain.model.unet import unet
from segtrain.sample import Facts
from segtrain.tensors import read_weights

FACTS = Facts(("a", "b"), ((0, 0, 0), (1, 1, 1)), 255, 3, (), None)
READERS = {
    "init": lambda path: start_from(unet(2, widths=[4, 8]), FACTS, str(path)),
    "encoder": lambda path: load_encoder_weights(
        encoder_of("test_resnet", 3, 32), "test_resnet", str(path), 3
    ),
    "vgg": lambda path: load_vgg16_weights(VGG16(3, 0.01), str(path), 1.0, 3),
}
"""All that read a file which a user names."""


def weights():
    torch.manual_seed(0)
    return {
        "head.weight": torch.randn(3, 4),
        "encoder.bn.num_batches_tracked": torch.tensor(3),
        "encoder.half": torch.randn(2).bfloat16(),
    }


def same(left, right):
    return left.keys() == right.keys() and all(
        torch.equal(left[key], right[key]) and left[key].dtype == right[key].dtype for key in left
    )


class Attack:
    def __reduce__(self):
        return os.mkdir, (str(Attack.trace),)


def torch_file(value) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


WRONG = {
    "empty": (b"", "is not a weights file or is damaged"),
    "a web page": (b"<!DOCTYPE html><html>", "is not a weights file or is damaged"),
    "a torn zip": (b"PK\x03\x04 torn", "is not a weights file or is damaged"),
    "torn safetensors": (b"\x10\0\0\0\0\0\0\0{torn", "is not a safetensors file or is damaged"),
    "a header of 2^63": (b"\xff" * 7 + b"\x7f{" + b"a" * 99, "is not a safetensors file or is damaged"),
    "half a torch file": (torch_file(weights())[:900], "is not a weights file or is damaged"),
    "no tensors": (torch_file({"epoch": 3, "names": ["a"]}), "holds no weights but epoch, names"),
    "a list": (torch_file([1, 2]), "holds no weights but builtins.list"),
    "code": (lambda: torch_file({"state_dict": Attack()}), "holds Python objects .*never run"),
    "a bare pickle": (lambda: pickle.dumps(Attack()), "is not a weights file|holds Python objects"),
    "a sparse tensor": (torch_file({"a": torch.eye(3).to_sparse()}), "a is a torch.sparse_coo tensor"),
    "complex numbers": (torch_file({"a": torch.ones(2).cfloat()}), "tensor of torch.complex64"),
    "8-bit floats": (torch_file({"a": torch.ones(2).to(torch.float8_e5m2)}), "tensor of torch.float8_e5m2"),
    "a nested tensor": (
        torch_file({"a": torch.nested.nested_tensor([torch.ones(2)])}),
        "a is a nested tensor",
    ),
    "more than the file": (torch_file({"a": torch.ones(1).expand(10**12)}), "more than the whole file"),
    "no numbers": (torch_file({"a": torch.ones(2, device="meta")}), "without numbers"),
    "infinities": (torch_file({"a": torch.tensor([1.0, torch.inf])}), "a holds NaN or infinite values"),
    "not-a-numbers": (
        safetensors.torch.save({"a": torch.tensor([torch.nan]).half()}),
        "a holds NaN or infinite values",
    ),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_what_cannot_be_used_is_refused_in_one_line_for_every_key(tmp_path, monkeypatch, reader, kind, name):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    Attack.trace = tmp_path / "ran"
    content, message = WRONG[kind]
    (tmp_path / name).write_bytes(content() if callable(content) else content)
    with pytest.raises(CheckpointError, match=message) as caught:
        READERS[reader](tmp_path / name)
    assert "\n" not in str(caught.value) and str(tmp_path / name) in str(caught.value)
    assert not Attack.trace.exists()


def test_the_code_of_the_attack_is_real(tmp_path):
    Attack.trace = tmp_path / "ran"
    torch.load(io.BytesIO(torch_file({"state_dict": Attack()})), weights_only=False)
    assert Attack.trace.is_dir()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: {"state_dict": w, "epoch": 3},
        lambda w: {"model": {"module." + k: v for k, v in w.items()}},
        lambda w: {"net": {"_orig_mod." + k: v for k, v in w.items()} | {"version": 2}},
        lambda w: {"state_dict": {"model." + k: v for k, v in w.items()} | {"mean": torch.ones(3)}},
        lambda w: {"state_dict": {"net._orig_mod." + k: v for k, v in w.items()}},
        lambda w: {"model": w, "args": argparse.Namespace(lr=0.1, out=Path("x")), "best": np.float64(0.5)},
        lambda w: {"state_dict": w, "scores": np.arange(3), "random": np.random.get_state()},
    ],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_the_usual_wrappings_are_opened(tmp_path, wrap, legacy):
    torch.save(wrap(weights()), tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    assert same(read_weights(tmp_path / "w.pth"), weights())


def test_a_network_whose_names_begin_otherwise_keeps_them(tmp_path):
    mixed = {"model.a": torch.ones(1), "head.a": torch.ones(2)}
    for tensors in (mixed, {"model": torch.ones(1)}):
        torch.save(tensors, tmp_path / "w.pth")
        assert same(read_weights(tmp_path / "w.pth"), tensors)


def test_code_among_the_options_beside_the_weights_is_refused(tmp_path):
    torch.save({"model": weights(), "args": argparse.Namespace(a=Attack())}, tmp_path / "w.pth")
    Attack.trace = tmp_path / "ran"
    with pytest.raises(CheckpointError, match=r"holds Python objects .*never run"):
        read_weights(tmp_path / "w.pth")
    assert not Attack.trace.exists()


@pytest.mark.parametrize("name", ["w.bin", "w.pth"])
def test_safetensors_are_known_by_their_content(tmp_path, name):
    safetensors.torch.save_file(weights(), tmp_path / name, metadata={"a": "1", "b": "2"})
    assert same(read_weights(tmp_path / name), weights())


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="is not a regular file"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("reader", ["encoder", "vgg"])
def test_a_folder_is_no_weights_file(tmp_path, reader):
    """For init=, a folder is a run."""
    with pytest.raises(ConfigError, match=r"is not a file; allowed: imagenet, none, a \.safetensors"):
        READERS[reader](tmp_path)


@pytest.mark.parametrize("reader", READERS)
def test_a_path_that_is_no_file_is_named_with_what_is_near(tmp_path, reader):
    (tmp_path / "weights.pth").touch()
    key = "init" if reader == "init" else "model.weights"
    with pytest.raises(ConfigError, match=rf"{key}=.*wieghts\.pth does not exist.*'weights\.pth'.*allowed: "):
        READERS[reader](tmp_path / "wieghts.pth")


def test_the_home_folder_may_be_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(weights(), tmp_path / "w.pth")
    for reader in READERS.values():
        with pytest.raises(CheckpointError, match=r"does not fit|missing"):
            reader("~/w.pth")
        with pytest.raises(ConfigError, match=r"~nobody-of-this-name/w\.pth does not exist"):
            reader("~nobody-of-this-name/w.pth")
