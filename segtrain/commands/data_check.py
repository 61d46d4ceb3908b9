"""`segtrain data check`: everything that is wrong in a data set."""

from __future__ import annotations

from collections.abc import Sequence

from segtrain.commands.parts import check_kind
from segtrain.data import DATA
from segtrain.data.parts import Data
from segtrain.data.survey.check import Finding, findings
from segtrain.data.survey.kinds import KINDS, lines, num_wrong
from segtrain.errors import DataError
from segtrain.run.storage import json_text
from segtrain.task import TASK
from segtrain.text import count, say


def data_check(config: dict, stop) -> dict:
    """Prints all that is found, as text or JSON, and returns it as plain data. DataError if something is
    wrong."""
    task = TASK.build(config["task"])
    with stop.at_once():
        data = DATA.build(config["data"], target=task.target, unread_in=("train", "val", "test"))
        check_kind(task, data.facts, config)
        found = findings(data, task.target.classes, config["similar"])
    messages = {kind: [one.message for one in found if one.kind == kind] for kind in KINDS}
    wrong, samples = num_wrong(messages), _samples(data)
    record = _record(config, data, found)
    if config["json"]:
        print(json_text(record), flush=True)
    else:
        say(*lines(messages), *([] if wrong else [_verdict(len(found), samples)]))
    if wrong:
        raise DataError(
            f"{count(wrong, 'thing is', 'things are')} wrong in {samples}, as listed on stdout; correct or "
            f"remove the files"
        )
    return record


def _verdict(num_notes: int, samples: str) -> str:
    if not num_notes:
        return f"nothing found in {samples}"
    return f"nothing wrong in {samples}; {count(num_notes, 'thing is', 'things are')} worth a look"


def _samples(data: Data) -> str:
    parts = ", ".join(f"{len(split)} {name}" for name, split in data.splits.items())
    return f"{count(sum(map(len, data.splits.values())), 'sample')} ({parts})"


def _record(config: dict, data: Data, found: Sequence[Finding]) -> dict:
    """The findings as plain data, by kind."""
    kinds = {}
    for name, kind in KINDS.items():
        of_kind = [one for one in found if one.kind == name]
        if of_kind:
            kinds[name] = {
                "wrong": kind.wrong,
                "about": kind.counted(len(of_kind)),
                "remedy": kind.remedy,
                "count": len(of_kind),
                "found": [
                    {
                        "message": one.message,
                        "samples": [
                            {"split": sample.split, "index": sample.index, "name": sample.name}
                            for sample in one.samples
                        ],
                    }
                    for one in of_kind
                ],
            }
    return {
        "data": config["data"],
        "samples": {name: len(split) for name, split in data.splits.items()},
        "wrong": sum(one["count"] for one in kinds.values() if one["wrong"]),
        "kinds": kinds,
    }
