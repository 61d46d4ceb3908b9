"""The files of an evaluation: scores.json, contact sheet, confusion matrix."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from segtrain.evaluate.comparison import Entry
from segtrain.evaluate.loop import Scores
from segtrain.report.matrix import confusion_picture
from segtrain.report.sheet import comparison, sheet
from segtrain.run.own import check_own
from segtrain.run.storage import storage, write_atomic, write_json
from segtrain.sample import Facts


def contact_sheet(scores: Scores, facts: Facts, task, title: str):
    """The contact sheet of an evaluation, with its score in the title."""
    score = scores.value(task.score)
    title += "" if score is None else f", {task.score} {score:.4f}"
    return sheet(scores.pictures, facts, task.picture, task.errors, title)


def comparison_sheet(entries: Sequence[Entry], facts: Facts, task, title: str):
    """The predictions of several runs beside image and target, a column for each run."""
    rows = [
        (image, target, *(entry.scores.pictures[i][2] for entry in entries))
        for i, (image, target, _) in enumerate(entries[0].scores.pictures)
    ]
    heads = [entry.heads(task.score) for entry in entries]
    return comparison(rows, heads, facts, task.picture, title)


def write_scores(path: Path, record: dict, picture_path: Path, picture) -> str:
    """Writes the record as JSON and the picture as PNG; returns the line that names them. Without a picture,
    an existing one is removed, because it shows other scores."""
    named = _write_picture(picture_path, picture)
    write_json(path, record)
    return f"written   {path}{named}"


def write_matrix(path: Path, scores: Scores, facts: Facts, title: str) -> str:
    """Writes the confusion matrix as PNG, if it is among the scores; returns what the line of written files
    adds for it."""
    counts = scores.totals.get("confusion")
    picture = None
    if counts is not None:
        picture = confusion_picture(counts.cpu().numpy(), facts.classes, title)
    return _write_picture(path, picture)


def _write_picture(path: Path, picture) -> str:
    """Writes the picture as PNG, or removes an existing one if there is none; returns ", PATH" or ""."""
    if picture is None:
        with storage(path):
            path.unlink(missing_ok=True)
        return ""
    data = io.BytesIO()
    picture.save(data, "png")  # writing a file itself, Pillow would hide the system's reason for an error
    write_atomic(path, data.getvalue())
    return f", {path}"


def output_folder(config: Mapping, step: int, kind: str = "evaluate") -> Path:
    """`config["output"]`, or a new RUN/KIND/SPLIT-STEP, SPLIT-STEP-2 …; the protocol in the files tells
    repeated evaluations apart.

    The output folder may be a symbolic link; RUN/KIND may not. Files in both are never written through a
    link.
    """
    if config["output"]:
        with storage(Path(config["output"])):
            Path(config["output"]).mkdir(parents=True, exist_ok=True)
        return Path(config["output"])
    plain = Path(config["run"]) / kind / f"{config['split']}-{step}"
    check_own(plain.parent, folder=True)
    with storage(plain):
        plain.parent.mkdir(exist_ok=True)
        for number in itertools.count(1):
            folder = plain if number == 1 else plain.with_name(f"{plain.name}-{number}")
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                return folder
    raise AssertionError("unreachable")


@contextlib.contextmanager
def removed_if_empty(folder: Path | None) -> Iterator[None]:
    """Removes the folder if the block ends with nothing in it, such as by an error or a signal."""
    try:
        yield
    finally:
        if folder is not None:
            with contextlib.suppress(OSError):  # it holds something
                folder.rmdir()
