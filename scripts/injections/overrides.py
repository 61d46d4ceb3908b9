"""Command lines made at random: valid, mistyped and hostile overrides."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import signal
import time
import traceback
from collections import Counter
from pathlib import Path

from injections import programs
from injections.figure import Figure

COMMANDS = (*("train",) * 6, "evaluate", "predict", "describe", "data check", "plan", "resume")
"""resume: `train` over a saved run."""
NUMBERS = (
    "0", "1", "-1", "2", "7", "1e-3", "0.5", "1e308", "-1e308", "nan", "inf", "-inf", "1e-320", "1_000",
    "2147483648", "9223372036854775808", "1" + "0" * 40, "0x10", "1e3", "00", "+1", "--1", "1.2.3", "٣",
)  # fmt: skip
TEXTS = (
    "", "null", "true", "False", "none", "???", "ü", "a b", "a,b", "a=b", "'", '"', "[", "]", "{", "}", "(",
    "&", "[]", "{}", "[[[]]]", "[1,2", "{a:1}", "{a:{b:[1,2]}}", "[null,null]", "[a,a,a]", "{1:2}", "\\",
    "\\n", "\n", "\t", "\x1b[31m", "\udcff", "a" * 5000, "[" * 300, "${seed}", "${nix}", "${oc.env:HOME}",
    "${now:%Y}", "${seed", "${${seed}}", "$(id)", "`id`", "%s", "{0}", "..", "../../x", "/", "/dev/zero",
    "/dev/null", "~", "~root", "file:///etc/passwd", "!!python/object/apply:os.system [id]", "_target_",
    "os.system", "*a", "&a", "<<", "a: b", "#", "'a", "range(1,3)", "choice(a,b)", "glob(*)", "int(x)",
    "interval(0,1)", "shuffle([1])", "sort(3,1)",
)  # fmt: skip
FLAGS = (
    "-m", "--multirun", "--config-dir=/nowhere", "-cd", "--cfg=x", "--hydra-help", "-x",
    "--experimental-rerun=x",
)  # fmt: skip
HYDRA = (
    "hydra.callbacks.x._target_=os.system", "hydra.run.dir=../x", "hydra/launcher=joblib", "hydra={}",
    "hydra.searchpath=[/]", "hydra.sweeper._target_=x", "hydra.job.chdir=true", "hydra.run.dir=",
    "+hydra.x=1",
)  # fmt: skip


def override_lists(quick: bool, folder: Path) -> list[Figure]:
    """1000 random lists of overrides through the command line as far as the checked config; a part of those
    that it accepts as dry runs, which build everything and take one step."""
    rng, count, dry_runs = random.Random(0), 60 if quick else 1000, 2 if quick else 40
    saved = folder / "saved"
    whole = programs.run(("train", *programs.SMALL, "trainer.steps=1", "name=run"), saved)
    assert whole.code == 0, whole.err
    lines = [_line(rng) for _ in range(count)]
    ended = _all(lines, saved)
    codes = Counter(one["code"] for one in ended)
    failures = [f"{one['words']!r:.300}: {one['wrong']}" for one in ended if one["wrong"]]
    slowest = max(one["seconds"] for one in ended)
    accepted = [one["words"][1:-2] for one in ended if one["code"] == 0 and one["words"][0] == "train"]
    built = [_dry(words, folder / "dry") for words in rng.sample(accepted, min(dry_runs, len(accepted)))]
    failures += [one for _, one in built if one]
    dry_codes = Counter(code for code, _ in built)
    return [
        Figure(
            4,
            "random lists of overrides",
            count,
            f"{_shown(codes)}; of those accepted {len(built)} as dry runs: {_shown(dry_codes)}; each error "
            f"one line, {len(failures)} with a traceback, exit 1 or several lines",
            failures,
        ),
        Figure(
            6,
            "random lists of overrides",
            count,
            f"each is answered within {slowest:.1f} s",
            [f"{one['words']!r:.300}" for one in ended if one["seconds"] > programs.LIMIT_S],
        ),
    ]


def _shown(codes: Counter) -> str:
    return ", ".join(f"{number} exit {code}" for code, number in sorted(codes.items(), key=str))


def _line(rng: random.Random) -> list[str]:
    from segtrain.cli.catalogue import load

    command = rng.choice(COMMANDS)
    name = "train" if command == "resume" else command
    words = name.split(" ")
    if command in ("evaluate", "predict", "resume"):
        words.append(f"{'resume' if command == 'resume' else 'run'}=outputs/run")
    wild = rng.choice((0.0, 0.1, 0.5))
    for _ in range(rng.randint(1, 5)):
        words += _overrides(rng, load(), name, wild)
    return [*words, "--cfg", "job"]


def _overrides(rng: random.Random, catalogue: dict, command: str, wild: float) -> list[str]:
    """A choice of a group, a key of a group with the choice that it belongs to, or a key of a section.
    wild: the share of those that are anything else, and of mistyped keys and values."""
    if rng.random() < wild / 3:
        return [rng.choice(rng.choice((FLAGS, HYDRA, TEXTS)))]
    groups = [group for group in catalogue["command_groups"][command] if catalogue["groups"].get(group)]
    if groups and rng.random() < 0.6:
        group = rng.choice(groups)
        entry = rng.choice(list(catalogue["groups"][group]))
        chosen = [f"{_mistyped(rng, group, wild / 5)}={_mistyped(rng, entry, wild / 5)}"]
        options = catalogue["groups"][group][entry]["options"]
        if not options or rng.random() < 0.3:
            return chosen
        key = rng.choice(list(options))
        inside = f"{group}.{entry}.{key}" if group in catalogue["composites"] else f"{group}.{key}"
        return [*chosen, _assigned(rng, inside, options[key], wild)]
    sections = catalogue["commands"][command]
    section = rng.choice([name for name in sections if sections[name]["keys"]])
    key = rng.choice(list(sections[section]["keys"]))
    return [_assigned(rng, f"{section}.{key}".lstrip("."), sections[section]["keys"][key], wild)]


def _assigned(rng: random.Random, key: str, option: dict, wild: float) -> str:
    value = json.dumps(option.get("default")).replace('"', "").replace(" ", "")
    if {"int", "float"} & set(option["kinds"]) and rng.random() < 0.3:
        value = rng.choice(NUMBERS[:7])
    if rng.random() < wild:
        value = rng.choice(rng.choice((NUMBERS, TEXTS)))
    plus = rng.choice(("+", "++", "~")) if rng.random() < wild / 4 else ""
    return f"{plus}{_mistyped(rng, key, wild / 3)}={value}"


def _mistyped(rng: random.Random, text: str, share: float) -> str:
    if rng.random() >= share:
        return text
    at = rng.randrange(len(text))
    return text[:at] + rng.choice(("", text[at] * 2, ".", "@", "/", "x", "=", " ", "ü")) + text[at + 1 :]


def _all(lines: list[list[str]], folder: Path) -> list[dict]:
    """How each command line ended, tried one after another in forked processes; one that hangs or dies ends
    its process alone."""
    programs.warm()
    results = folder / "results.jsonl"
    results.touch()
    found: list[dict] = []
    while len(found) < len(lines):
        pid = os.fork()
        if pid == 0:
            _try(lines[len(found) :], folder, results)
        since, done = time.monotonic(), len(found)
        while not os.waitpid(pid, os.WNOHANG)[0]:
            time.sleep(0.05)
            if (now := results.read_text().count("\n")) > done:
                since, done = time.monotonic(), now
            if time.monotonic() - since > programs.LIMIT_S:
                os.kill(pid, signal.SIGKILL)
        found = [json.loads(line) for line in results.read_text().splitlines()]
        if len(found) < len(lines):
            seconds = time.monotonic() - since
            lost = {"words": lines[len(found)], "code": None, "seconds": seconds, "wrong": "hung or died"}
            found.append(lost)
            with open(results, "a") as file:
                file.write(json.dumps(lost) + "\n")
        programs.progress(f"override lists: {len(found)}, {sum(bool(one['wrong']) for one in found)} wrong")
    return found


def _try(lines: list[list[str]], folder: Path, results: Path) -> None:
    from segtrain.cli.main import main

    os.chdir(folder)
    with open(results, "a", buffering=1) as file:
        for words in lines:
            out, err, began = io.StringIO(), io.StringIO(), time.monotonic()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    code = main(list(words))
                except BaseException:
                    traceback.print_exc()
                    code = 1
            seconds = time.monotonic() - began
            wrong = programs.Ended(code, out.getvalue(), err.getvalue(), seconds).wrong(0, 2, 3, 4)
            file.write(json.dumps({"words": words, "code": code, "seconds": seconds, "wrong": wrong}) + "\n")
    os._exit(0)


def _dry(words: list[str], folder: Path) -> tuple[int | None, str | None]:
    """(exit code, what is wrong) of a dry run with little memory."""
    line = ("train", *programs.SMALL, *words, "dry_run=true")
    ended = programs.run(line, folder, limit_s=2 * programs.LIMIT_S, change=_little_memory)
    wrong = ended.wrong(0, 2, 3, 4, 5, 6)
    return ended.code, wrong and f"{words!r:.300}, dry run: {wrong}"


def _little_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
