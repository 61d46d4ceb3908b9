"""The fixed sections of a config, which do not depend on the chosen network, data set or loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from segtrain.options import (
    ABOVE_0,
    FROM_0,
    FROM_1,
    IS_PATH,
    ODD,
    PROBABILITY,
    SHARE,
    FilePath,
    Limits,
    at_least,
    key,
)

EPOCHS = Limits("above 0 and at most 1000000", lambda value: 0 < value <= 1_000_000)
MINUTES = Limits("above 0 and at most 1000000", lambda value: 0 < value <= 1_000_000)
FRACTION = Limits("above 0 and at most 1", lambda value: 0 < value <= 1)


@dataclass(frozen=True)
class Trainer:
    """The loop. Intervals count optimizer steps; '1ep' means once an epoch."""

    steps: Annotated[int, FROM_1] | None = key(
        None, "optimizer steps of the run; with neither steps nor epochs: 20 epochs, but at least 1000 steps"
    )
    epochs: Annotated[float, EPOCHS] | None = key(None, "passes over the training split; give this or steps")
    minutes: Annotated[float, MINUTES] | None = key(
        None,
        "time of the run in minutes, evaluations included; sets steps after timing 20 of them and some "
        "evaluated batches",
    )
    patience: Annotated[int, FROM_1] | None = key(
        None,
        "early stopping: the run ends after so many evaluations in a row without a better score (mIoU); "
        "those without any score do not count; the best checkpoint is kept; null: no early stopping",
    )
    evaluate_every: Annotated[int, FROM_1] | str | None = key(
        "auto",
        "steps between evaluations; auto: once an epoch, but at least 50 steps apart; null: only after the "
        "last step",
    )
    log_every: Annotated[int, FROM_1] = key(20, "steps between log lines (loss, rate, images/s)")
    save_every: Annotated[int, FROM_1] | str | None = key(
        None, "steps between checkpoints; null: with each evaluation"
    )
    accumulate: Annotated[int, FROM_1] = key(
        1, "gradient accumulation: micro-batches that each batch is split into, to save memory"
    )
    clip_norm: Annotated[float, ABOVE_0] | None = key(
        None, "gradient clipping: largest L2 norm; null: no clipping"
    )
    ema: Annotated[float, SHARE] | None = key(
        None, "decay of the exponential moving average (EMA) of the weights, e.g. 0.999; null: off"
    )
    amp: Literal["none", "bf16", "fp16"] = key("none", "mixed precision of the forward pass")
    freeze: Literal["encoder"] | None = key(
        None, "encoder: its weights and batch-norm statistics stay as they are, which saves time and memory"
    )
    freeze_steps: Annotated[int, FROM_1] | None = key(
        None, "optimizer steps for which trainer.freeze holds; null: the whole run"
    )
    freeze_batch_norm: bool = key(
        False, "keep the statistics and the affine weights of batch-norm as they are"
    )
    batch_norm_momentum: Annotated[float, SHARE] | None = key(
        None,
        "momentum of batch-norm's running statistics, in torch's convention; null: 0.1 or the encoder's own; "
        "0.0003 is DeepLab's decay of 0.9997",
    )
    strategy: Literal["ddp", "fsdp"] = key(
        "ddp",
        "with several processes: ddp: each has the whole network; fsdp: weights, gradients and optimizer "
        "state are cut over them, for networks that do not fit into one GPU",
    )
    sync_batch_norm: bool | None = key(
        None,
        "with several GPUs: batch-norm over the images of all; null: if each has fewer than 8 at a time",
    )
    recompute_batch_norm: Annotated[int, FROM_0] = key(
        0,
        "batches of the training split over which the statistics of batch-norm are averaged anew for each "
        "evaluation and checkpoint; "
        "training goes on with its own; 0: never",
    )
    memory_format: Literal["contiguous", "channels_last", "auto"] = key(
        "contiguous", "auto times both on a copy of the network and saves its choice"
    )
    compile: str | None = key(
        None, "backend of torch.compile for the training step: inductor, aot_eager …; null: not compiled"
    )
    keep_checkpoints: Annotated[int, FROM_1] = key(
        2, "how many of the newest checkpoints stay beside the best one"
    )
    requeue: Literal["slurm"] | None = key(
        None,
        "slurm: if SIGTERM, SIGUSR1, SIGUSR2 or SIGXCPU stops the run (preemption, end of the job's time), "
        "its Slurm job goes back into the queue once the checkpoint is saved; needs name=NAME resume=auto",
    )


@dataclass(frozen=True)
class Loader:
    """Batches."""

    batch_size: Annotated[int, FROM_1] | Literal["auto"] = key(
        8,
        "images per optimizer step; auto tries some steps on a GPU and saves the largest number that its "
        "memory holds, at most the training split (optimizer.lr stays as it is)",
    )
    workers: Annotated[int, FROM_0] = key(2, "processes that read and augment; 0: in the main process")
    on_bad: Literal["error", "skip"] = key(
        "error", "an unreadable sample stops the run, or is replaced by another and counted"
    )
    cache: Literal["none", "memory", "disk"] = key(
        "none",
        "keep decoded training samples. memory: in each worker; disk: in a folder that all runs share, built "
        "first and read window by window",
    )
    cache_dir: FilePath | None = key(
        None, "folder for cache=disk; null: segtrain/decoded in the user's cache folder"
    )

    @property
    def skip_bad(self) -> bool:
        """Whether unreadable training samples are left out."""
        return self.on_bad == "skip"


@dataclass(frozen=True)
class Sampler:
    """Which samples are trained on, and how often; for every data set."""

    fraction: Annotated[float, FRACTION] = key(
        1.0,
        "share of the training split that is used; chosen by a hash of the names, so that every seed has the "
        "same samples and a smaller share is part of a larger one",
    )
    folds: Annotated[int, at_least(2)] | None = key(
        None,
        "cross-validation: training and validation split together are cut into as many folds, which keep the "
        "samples of a group (a drive, a patient) together; null: the splits of the data set",
    )
    fold: Annotated[int, FROM_0] = key(
        0, "the fold, from 0, that is the validation split; the others are the training split"
    )
    class_share: Annotated[float, PROBABILITY] = key(
        0.0,
        "share of the samples that are drawn by class: a class, then an image that holds it; "
        "augmentation=warp, patch and object_crops crop it such that the crop contains the class",
    )
    class_draw: Literal["uniform", "sqrt_inverse"] = key(
        "uniform",
        "how that class is drawn: uniform, or with probability proportional to 1/sqrt of its pixels",
    )
    repeat_threshold: Annotated[float, PROBABILITY] = key(
        0.0,
        "repeat factor sampling (LVIS): an image is repeated sqrt(THRESHOLD / f) times, where f is the share "
        "of images that hold its rarest class; LVIS: 0.001; 0: no repeats",
    )


@dataclass(frozen=True)
class PredictorSettings:
    """How a network is run on whole images; one way for validation, evaluate and predict."""

    tile: Annotated[int, FROM_1] | None = key(
        None,
        "side of the sliding window in pixels; views (tta) and CRF are then computed tile by tile, so that "
        "it bounds the memory; null: the whole image at once (572 for networks without padding)",
    )
    overlap: Annotated[float, SHARE] = key(
        0.5, "share of a tile that the next one covers again; networks without padding need none"
    )
    amp: Literal["none", "bf16", "fp16"] = key("none", "mixed precision of the forward pass")
    tta_merge: Literal["probability", "logit"] = key(
        "probability",
        "how the views of tta are merged. probability: the mean of their probabilities; logit: the mean of "
        "their logits, which is the renormalised geometric mean of the probabilities",
    )
    tta_batch: Annotated[int, FROM_1] | None = key(
        None,
        "views of one size that go through the network together; null: one after the other on a CPU, on a "
        "GPU as many as fit in 4 million pixels",
    )
    boxes: Literal["grid"] | None = key(
        None,
        "grid: the largest score over square boxes of several sizes, each resized to box_input "
        "(DeconvNet's inference)",
    )
    box_sides: tuple[Annotated[int, at_least(112)], ...] | None = key(
        None,
        "sides of the boxes in pixels, from 112; null: the image's longer side and its halves down to 112",
    )
    box_input: Annotated[int, FROM_1] = key(224, "side in pixels that boxes are resized to for the network")
    ensemble: Annotated[str, IS_PATH] | list[str] | None = key(
        None,
        "folder of a second run with the same classes, or a list of several; the scores of their best "
        "checkpoints are merged in",
    )
    ensemble_merge: Literal["product", "mean"] | None = key(
        None,
        "product: of the scores above 0 of two networks, before the softmax (DeconvNet's code); mean: of the "
        "probabilities (its paper); null: product with one further run, mean with several",
    )
    crf: Literal["pydensecrf", "deeplab", "deconvnet"] | None = key(
        None,
        "refine the probabilities by a dense CRF with the parameters of pydensecrf's README, of DeepLab's "
        "or of DeconvNet's",
    )
    crf_solver: Literal["auto", "torch", "pydensecrf"] = key(
        "auto",
        "torch: kernels end at the border of a window; pydensecrf: they reach over the whole image (pip "
        "install 'segtrain[crf]'); "
        "auto: pydensecrf if it is installed",
    )
    crf_window: Annotated[int, ODD] = key(
        11, "side of the window that a pixel is compared with, for crf_solver=torch"
    )

    @property
    def further_runs(self) -> tuple[str, ...]:
        """Folders of the runs that are merged in."""
        return (self.ensemble,) if isinstance(self.ensemble, str) else tuple(self.ensemble or ())

    @property
    def merge(self) -> Literal["product", "mean"]:
        """How the networks are merged."""
        return self.ensemble_merge or ("mean" if len(self.further_runs) > 1 else "product")


@dataclass(frozen=True)
class EvaluateSettings:
    """How scores are made."""

    batch_size: Annotated[int, FROM_1] = key(8, "images per batch; only images of one size share one")
    workers: Annotated[int, FROM_0] = key(2, "processes that read")
    absent: Literal["union", "gt", "zero", "one"] = key(
        "union",
        "which classes the means (mIoU, mean Dice, mean accuracy) leave out. union: those neither labelled "
        "nor predicted, and of the mean accuracy those not labelled; gt: those not labelled; zero, one: "
        "none, and a class neither labelled nor predicted counts as 0 or 1",
    )
    protocol: Literal["default", "cityscapes", "voc", "coco_stuff", "torchvision"] = key(
        "default",
        "rules of a benchmark. cityscapes: adds metric.cityscapes; coco_stuff: absent=gt; torchvision: "
        "images and labels resized to a shorter side of 520 pixels, overlapping objects ignored",
    )
    pictures: Annotated[int, FROM_0] = key(
        4, "images of the validation split that go to TensorBoard and the contact sheet"
    )
    tta_report: bool = key(
        False,
        "segtrain evaluate also scores without views, with each entry of tta alone and at another output "
        "stride, and prints gain and seconds per image",
    )
