"""What a network declares beside `forward`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segtrain.sample import Normalisation

MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
"""By the values of trainer.memory_format."""


class Network(nn.Module):
    """Base class of all networks: `forward(images)` takes B×K×H×W float images and returns an `Output`.

    Attributes and methods below are all that training, prediction and checkpoints ask of a network. A network
    overrides what is different for it. Those from plug-ins inherit from this class too.
    """

    tile_sides: tuple[int, int] = (1, 1)
    """The valid heights and widths of images in pixels: the first is the smallest, the second the step to the
    next."""

    margin: int = 0
    """Pixels at each border of the input for which there are no logits (unpadded convolutions). If above 0,
    images are predicted in overlapping tiles, and `Output.window` says which pixels have logits."""

    head_keys: tuple[str, ...] = ()
    """Tensors of the state_dict whose first dimension is the classes. `init=RUN` copies their rows by class
    name."""

    mixing_keys: tuple[str, ...] = ()
    """Tensors of the state_dict whose shape depends on the classes in other ways. `init=RUN` copies them only
    if the classes are the same in the same order."""

    log_probabilities: bool = False
    """Whether the logits are log-probabilities. These are never above 0, so they cannot be merged by methods
    that need non-negative scores."""

    normalisation: Normalisation | None = None
    """Mean and std of the images that the pretrained weights expect; None if any will do."""

    weights_report: str = "no pretrained weights"
    """One line about which pretrained weights were loaded."""

    encoder: nn.Module | None
    """The part that may hold pretrained weights; optimizers multiply its learning rate by `encoder_factor`.
    None if there is no such part."""

    encoder_stride: int | None = None
    """Image side divided by the side of the coarsest features, where it is the same for all options but the
    encoder's; None where it is unknown or can be chosen (see `output_stride`)."""

    options: Any = None
    """Options of a network with a chosen output stride: a frozen dataclass whose method `at(output_stride)`
    gives those at another one. None for all other networks."""

    fits_itself: bool = False
    """Whether the network learns by one call of `fit` and not by an optimizer."""

    def __init__(self):
        super().__init__()
        # Not on the class: there it would hide the module of this name.
        self.encoder = None

    @property
    def output_stride(self) -> int | None:
        """Image side divided by the side of the encoder's last features; None if it cannot be chosen."""
        return None if self.options is None else self.options.output_stride

    @property
    def bias_keys(self) -> tuple[str, ...]:
        """Tensors of the state_dict with one value a class, each of which is added to the logits of one head,
        main or auxiliary. A network that adds up the logits of several layers overrides this: it names one of
        their biases."""
        return tuple(key for key in self.head_keys if key.rpartition(".")[2] == "bias")

    @torch.no_grad()
    def set_biases(self, value: float) -> None:
        """Gives all logits this initial value, but for what the initial weights add to it."""
        for key in self.bias_keys:
            self.get_parameter(key).fill_(value)

    def built_with(self) -> Mapping[str, Any]:
        """`options` by name, without the pretrained weights; empty for networks without a chosen output
        stride."""
        options = {} if self.options is None else vars(self.options)
        return {name: value for name, value in options.items() if name != "weights"}

    def fit(self, samples: Iterable, rng: np.random.Generator) -> None:
        """Fits the network to the `Sample`s of the training split. samples: have a length; may be iterated
        more than once."""
        raise NotImplementedError(f"{type(self).__name__} is trained by an optimizer")

    def resize_for(self, weights: Mapping[str, Tensor]) -> None:
        """Gives tensors whose sizes are found by `fit` the sizes that they have in `weights`. Called before
        `load_state_dict`; CheckpointError if `weights` are of no such network."""


def typed(options: Mapping) -> str:
    """Options of a network as words of the command line; "name" stands for `model=`."""
    return " ".join(
        f"{'model' if key == 'name' else f'model.{key}'}={as_typed(value)}" for key, value in options.items()
    )


def as_typed(value) -> str:
    """The value of an option as it is typed on the command line."""
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(as_typed, value))}]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
