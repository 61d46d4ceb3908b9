"""`segtrain submit`: the masks of a benchmark's test images, in the form that its server takes."""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from segtrain.checkpoint.reading import read
from segtrain.checkpoint.restore import build_from
from segtrain.commands.dataset import located
from segtrain.commands.prepare import prepare
from segtrain.data.files.reading import read_image
from segtrain.data.submission import FORMAT_OF, SUBMISSIONS
from segtrain.errors import ConfigError
from segtrain.predictor.inference import inference_of
from segtrain.predictor.mask import mask_of
from segtrain.run.storage import probe, storage
from segtrain.task import task_of
from segtrain.text import count, say


def submit(config: dict, stop) -> dict:
    """Predicts the images of a split, packs the masks into an archive, and verifies the archive. Returns the
    path of the archive and the number of masks."""
    device = prepare(config)
    checkpoint = read(config["run"], config["checkpoint"])
    data = located(config, config["run"], checkpoint.description)
    chosen = config["format"] or FORMAT_OF.get(data["name"])
    if chosen is None:
        raise ConfigError(
            f"data={data['name']} is no benchmark with a server; choose format= of {', '.join(SUBMISSIONS)}"
        )
    model, facts = build_from(checkpoint, config["model"])
    submission = SUBMISSIONS[chosen](data, config["split"])
    submission.check_classes(facts.classes, config["run"])
    output = Path(config["output"])
    with storage(output):
        output.mkdir(parents=True, exist_ok=True)
    probe(output, 1 << 20)
    task = task_of(checkpoint.description)
    inference = inference_of(config, config["run"], checkpoint.description)

    def interrupt() -> None:
        stop.raise_if_requested("stopped while predicting; no archive was written")

    mask = mask_of(model.to(device), facts, task, inference, device, interrupt)
    for name, image in tqdm(submission.files.items(), unit="image", disable=None):
        interrupt()
        submission.write(output, name, submission.encoded(mask(read_image(image)), facts.classes))
    path = submission.pack(output)
    submission.verify(path)
    masks = count(len(submission.files), "mask")
    say(f"written   {path}: {masks}; names, sizes and label ids are as {chosen} takes them")
    return {"archive": str(path), "masks": len(submission.files)}
