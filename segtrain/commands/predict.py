"""`segtrain predict`: masks of image files."""

from __future__ import annotations

from segtrain.checkpoint.reading import read
from segtrain.checkpoint.restore import build_from
from segtrain.commands import predict_files as files
from segtrain.commands.predict_rasters import by_windows
from segtrain.commands.prepare import prepare
from segtrain.data.files.channels import Channels
from segtrain.errors import DataError
from segtrain.predictor.inference import Inference, inference_of
from segtrain.predictor.mask import Mask, mask_of
from segtrain.task import task_of
from segtrain.text import count, say


def predict(config: dict, stop) -> dict:
    """Predicts a mask for each image file and writes it; returns the counts."""
    device = prepare(config)
    checkpoint = read(config["run"], config["checkpoint"])
    model, facts = build_from(checkpoint, config["model"])
    trained = checkpoint.description["config"]
    task = task_of(checkpoint.description)
    inference = inference_of(config, config["run"], checkpoint.description)
    model.to(device)

    def mask_by(inference: Inference, votes: bool = False) -> Mask:
        return mask_of(model, facts, task, inference, device, stop.raise_if_requested, votes=votes)

    results = files.Results(
        config["output"],
        task,
        facts,
        config["overlay"],
        config["probabilities"],
        config["disagreement"],
        trained["data"],
    )
    counts = files.predict(
        mask_by(inference, results.disagreement),
        results,
        config["input"],
        stop.raise_if_requested,
        config["max_pixels"],
        Channels.of(trained["data"].get("channels")),
        by_windows(inference, mask_by, trained["data"], config["max_pixels"]),
    )
    # Folders that no option switches off are always written, but for GeoTIFFs.
    written = [f"{name}/" for name in results.folders if counts.get(name, True)]
    left_out = f"; {counts['left_out']} left out" if counts["left_out"] else ""
    say(f"written   {count(counts['images'], 'mask')} to {config['output']} ({', '.join(written)}){left_out}")
    if counts["left_out"]:
        total, left = counts["images"] + counts["left_out"], counts["left_out"]
        raise DataError(f"{left} of {total} images {'has' if left == 1 else 'have'} no mask (reasons above)")
    return counts
