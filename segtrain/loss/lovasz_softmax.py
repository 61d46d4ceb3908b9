"""The Lovász-softmax loss."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from segtrain.loss.heads import Head, HeadLoss, check_activation, check_classes
from segtrain.options import NOT_NEGATIVE
from segtrain.sample import CLASSES, Target


class LovaszSoftmax(HeadLoss):
    """`(B · mean over classes of the Lovász extension of 1 - IoU, B)`, float32 scalars; (0, 0) if no pixel is
    labelled.

    The mean is over the classes in the targets. Over the batch, the value depends on which images share it;
    per image, total and weight are the sums over the images with a label.
    """

    def __init__(self, ignore_index: int, per_image: bool, aux_weight: float):
        super().__init__(aux_weight)
        self.ignore_index, self.per_image = ignore_index, per_image

    def of_head(self, head: Head, labels: Tensor) -> tuple[Tensor, Tensor]:
        probabilities = head.upsampled().softmax(1).transpose(0, 1)  # C×B×H×W
        if self.per_image:
            parts = [self._of(probabilities[:, i], labels[i]) for i in range(len(labels))]
            losses, valid = (torch.stack(values) for values in zip(*parts, strict=True))
            return losses.sum(), valid.sum()
        loss, valid = self._of(probabilities, labels)
        return loss * len(labels), valid * len(labels)

    def _of(self, probabilities: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of some images, and whether any of their pixels is labelled (1.0 or 0.0). probabilities:
        C×…×H×W, target: …×H×W."""
        probabilities, target = probabilities.flatten(1), target.flatten()  # C×P, P
        slopes, present = slopes_of(probabilities.detach(), target, self.ignore_index)  # C×P, C
        own = torch.arange(len(probabilities), device=target.device)[:, None] == target  # C×P
        # |t - p| = p where t = 0 and 1 - p where t = 1.
        losses = (slopes * torch.where(own, 1 - probabilities, probabilities)).sum(1)  # C
        return losses.sum() / present.sum().clamp_min(1), present.any().float()


def slopes_of(probabilities: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """The slope of the Lovász extension of each class's Jaccard loss by the error of each pixel, float32 C×P,
    0 for classes without a pixel and for pixels without a label; and float32[C], 1 for classes with a pixel.

    probabilities: C×P. target: P. Berman et al. 2018, eq. 8 and algorithm 1. With the pixels in order of
    falling error, the slope is the growth of the Jaccard loss 1 - I/U by counting one pixel more as wrong: I,
    the pixels of the class that are still right, falls by a pixel of the class; U, the union, grows by any
    other.
    """
    slopes = torch.zeros_like(probabilities)
    present = slopes.new_zeros(len(slopes))
    valid = target != ignore_index
    for index, row in enumerate(probabilities):
        own = target == index  # P
        size = own.sum()
        # Most batches hold few of the classes. On a GPU, asking which ones would wait for the forward pass.
        if size.device.type == "cpu" and size == 0:
            continue
        # Pixels without a label come last, where none of the class is left: I is 0, and so is their slope.
        error = torch.where(own, 1 - row, row).masked_fill(~valid, -1.0)
        order = error.argsort(descending=True, stable=True)
        hit = own[order]
        missed = hit.cumsum(0)
        inside = (size - missed).to(row.dtype)  # I
        union = (size + (~hit).cumsum(0)).to(row.dtype)  # U
        # Not as a difference of Jaccard losses, of which float32 keeps few digits.
        slopes[index, order] = torch.where(hit, 1 / union, inside / (union * (union - 1).clamp_min(1)))
        present[index] = size > 0
    return slopes, present


def lovasz_softmax(
    ignore_index: int,
    per_image: bool = False,
    aux_weight: Annotated[float, NOT_NEGATIVE] = 0.4,
    target: Target = CLASSES,
    task_activation: str = "softmax",
) -> LovaszSoftmax:
    """Lovász-softmax loss (Berman et al. 2018): the convex extension of 1 - IoU, the mean over the classes in
    the batch.

    The paper trains with cross-entropy first, or with the sum of both.

    Options:
        per_image: false: IoU over all pixels of the batch; true: the mean of the losses of its images
        aux_weight: weight of the losses of auxiliary heads
    """
    check_classes("lovasz_softmax", target)
    check_activation("lovasz_softmax", "softmax", task_activation)
    return LovaszSoftmax(ignore_index, per_image, aux_weight)
