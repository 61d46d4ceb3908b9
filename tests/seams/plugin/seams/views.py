"""Views that see less than the image, or see it in another size."""

import math

import torch
import torch.nn.functional as F

from segtrain.sample import View


def rotate(degrees: tuple[float, ...] = (10.0,)) -> list[View]:
    """The image turned by small angles.

    Options:
        degrees: of each view
    """
    return [View(lambda x, d=d: turned(x, d), lambda p, size, d=d: back(p, d)) for d in degrees]


def turned(images, degrees, padding="reflection"):
    angle, ratio = math.radians(degrees), images.shape[-1] / images.shape[-2]
    matrix = [[math.cos(angle), -math.sin(angle) / ratio, 0], [math.sin(angle) * ratio, math.cos(angle), 0]]
    theta = torch.tensor(matrix).expand(len(images), 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    read = F.grid_sample(images.float(), grid, padding_mode=padding, align_corners=False)
    return read if images.is_floating_point() else read.round().to(images.dtype)


def back(probabilities, degrees):
    seen = turned(torch.ones_like(probabilities[:, :1]), degrees, "zeros")
    weight = turned(seen, -degrees, "zeros")
    return turned(probabilities, -degrees, "zeros") / weight.clamp_min(1e-6), (weight > 0.999).float()


def scale(factors: tuple[float, ...] = (0.5,)) -> list[View]:
    """The image in other sizes.

    Options:
        factors: of each view
    """
    return [View(lambda x, f=f: resized(x, f), lambda p, size: (resized(p, size=size), 1.0)) for f in factors]


def resized(x, factor=None, size=None):
    read = F.interpolate(x.float(), size=size, scale_factor=factor, mode="bilinear", align_corners=False)
    return read if x.is_floating_point() else read.round().to(x.dtype)
