"""The campaigns of `make faults` in their quick form, and what makes one of them fail."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


def run(*words, timeout=280):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, SCRIPTS / "faults.py", *words],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment,
        check=False,
    )


@pytest.mark.parametrize(
    "names",
    [
        ("kills", "resumes"),
        ("signals", "nan", "overrides"),
        ("calls", "disks", "folder", "workers"),
    ],
    ids=" ".join,
)
def test_quick_campaigns_keep_every_promise(tmp_path, names):
    ended = run("--quick", *names, "--json", str(tmp_path / "figures.json"))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())["figures"]
    assert len(figures) >= len(names) and all(figure["ok"] and figure["count"] for figure in figures)
    assert "kept" in ended.stdout and "BROKEN" not in ended.stdout


def test_an_unknown_campaign_is_named():
    wrong = run("kils")
    assert wrong.returncode == 2 and "kils is not a campaign; campaigns are kills, " in wrong.stderr


@pytest.mark.parametrize("outcome", ["failure", "nothing", "error", "left out"])
def test_a_campaign_that_fails_or_proves_nothing_is_told(monkeypatch, capsys, outcome):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import faults
    from injections.figure import Figure, LeftOut

    def campaign(quick, folder):
        if outcome == "error":
            raise RuntimeError("broken")
        if outcome == "left out":
            raise LeftOut("no disk")
        failures = ["run 3: lost"] if outcome == "failure" else []
        return [Figure(1, "kills", 0 if outcome == "nothing" else 5, "1 lost", failures)]

    def good(quick, folder):
        return [Figure(2, "stops", 7, "0 differ")]

    monkeypatch.setattr(faults, "CAMPAIGNS", {"a": campaign, "b": good})
    assert faults.main([]) == (0 if outcome == "left out" else 1)
    out = capsys.readouterr().out
    assert "2 Exact resume: kept. stops (7): 0 differ" in out
    said = {"error": "a: failed: RuntimeError: broken", "left out": "a: left out: no disk"}
    assert said.get(outcome, "1 No lost work: BROKEN") in out
    assert ("run 3: lost" in out) == (outcome == "failure")


def test_a_saver_that_loses_work_fails_the_kills(monkeypatch, tmp_path):
    """The campaign must see what a naive saver loses, or it proves nothing."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from injections import kills
    from injections.kills import Kills, _newest

    found, folder = Kills(), tmp_path / "run"
    (folder / "checkpoints" / "3").mkdir(parents=True)
    (folder / "checkpoints" / "last").symlink_to("3")
    assert _newest(found, folder, 2) == 2 and len(found.unreadable) == 1
    (figure, *_) = kills._figures(Kills(count=8, in_a_save=8), unreadable=0, tried=60, quick=True)
    assert not figure.ok and "prove nothing" in figure.failures[0]
    (figure, *_) = kills._figures(Kills(count=8, in_a_save=1), unreadable=2, tried=60, quick=False)
    assert not figure.ok and "only 1 of 8" in figure.failures[0]
