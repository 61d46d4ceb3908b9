"""`segtrain sweep show`: the trials of a sweep, the importance of its keys, and a picture of both."""

from __future__ import annotations

import io
import json
import shlex
from pathlib import Path

from segtrain.errors import ConfigError
from segtrain.report.bars import Bar, chart, panel
from segtrain.report.sweep_picture import BEST, Axis, Mark, history, parallel
from segtrain.run.lock import holder
from segtrain.run.own import check_own
from segtrain.run.storage import write_atomic
from segtrain.sweep.parameters import Parameter, importance, parameters
from segtrain.sweep.results import STATE, Results, read_results
from segtrain.sweep.trial import Trial
from segtrain.text import number, say

PICTURE = "sweep.png"


def sweep_show(config: dict, stop=None) -> Results:
    """Prints and draws a sweep; returns it. config: the options of `settings.SweepShow`, checked."""
    folder = Path(config["sweep"])
    results = read_results(folder) if folder.is_dir() else None
    if results is None:
        what = "is not the folder of a sweep: it holds no " + STATE if folder.exists() else "does not exist"
        raise ConfigError(f"sweep={folder} {what}; give the folder that segtrain train --multirun printed")
    if holder(folder) is None:
        for trial in results.trials:
            trial.status = "stopped" if trial.status == "running" else trial.status
    shares, reason = importance(results)
    if config["json"]:
        found = {"trials": [trial.plain() for trial in results.ranked()], "importance": shares}
        say(*json.dumps(found, indent=1).splitlines())
    else:
        say(*results.as_text(config["num"] or None), "")
        say(*_importance_lines(shares, reason), *_best_lines(results, folder))
    picture = Path(config["output"]) if config["output"] else folder / PICTURE
    check_own(picture, of="output")
    data = io.BytesIO()
    _picture(results, shares, str(folder)).save(data, "png")
    write_atomic(picture, data.getvalue())
    if not config["json"]:
        say(f"picture     {picture}")
    return results


def _importance_lines(shares: dict[str, float], reason: str) -> list[str]:
    if reason:
        return [f"importance  none: {reason}"]
    found = ", ".join(f"{key} {share:.2f}" for key, share in shares.items())
    return [f"importance  {found} (fANOVA: share of the variance of the score)"] if found else []


def _best_lines(results: Results, folder: Path) -> list[str]:
    """The best trial, and the commands that train and score it."""
    best, second = [*results.finished(), None, None][:2]
    if best is None:
        return ["best        no trial is finished with a score"]
    again = f"name={folder.name}-best"
    lines = [
        f"best        trial {best.number}: {results.score.name} {number(best.best.value)} at step "
        f"{best.best.step}, in {best.folder}",
        f"train       {shlex.join(['segtrain', 'train', *results.flags, *best.words, again])}",
        f"evaluate    {shlex.join(['segtrain', 'evaluate', f'run={best.folder}'])}",
    ]
    if second is not None:
        words = shlex.join(["segtrain", "compare", f"runs=[{best.folder},{second.folder}]"])
        lines.append(f"compare     {words}  # is it better than the second?")
    return lines


def _picture(results: Results, shares: dict[str, float], title: str):
    marks = [
        Mark(trial.number, trial.status, *(trial.best[1:] if trial.best else (None,)))
        for trial in results.trials
    ]
    rows = [[history(marks, results.score.name, results.score.lower_is_better)]]
    finished = results.finished()
    axes = parameters(finished, results.settings.get("over"))
    if len(finished) > 1 and axes:
        rows.append([parallel(*_lines(results, finished, axes))])
    if shares:
        bars = [Bar(key, BEST, 0.0, share, f"{share:.2f}") for key, share in shares.items()]
        rows.append([panel("importance (fANOVA)", bars)])
    return chart(f"sweep {title}", rows)


def _lines(results: Results, finished: list[Trial], axes: list[Parameter]):
    """The axes and lines of the parallel coordinates, the best trial drawn last."""
    values = [trial.best.value for trial in finished]
    score = Parameter(results.score.name, (), min(values), max(values))
    last = max(1, len(finished) - 1)
    lines = []
    for place, trial in enumerate(finished):
        positions = [one.position(trial.swept[one.key]) for one in axes]
        lines.append(([*positions, score.position(trial.best.value)], 1 - place / last))
    return [Axis(one.key, one.ticks()) for one in [*axes, score]], lines[::-1]
