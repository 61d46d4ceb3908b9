"""Faults that the tests inject, slow ones included: a campaign runs their files and counts the cases."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as xml
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from injections import programs
from injections.figure import Figure, LeftOut

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Tests:
    """promise and injected: as in a Figure. paths: below tests/. only: an expression of pytest's -k."""

    promise: int
    injected: str
    paths: tuple[str, ...]
    only: str = ""


TESTS = {
    "saves": Tests(
        1,
        "kills, power cuts, flipped bits and cut files of bare saves",
        ("faults/test_kills.py", "faults/test_rotation.py", "checkpoint/test_checkpoint.py"),
    ),
    "refusals": Tests(
        1,
        "full, read-only and foreign folders, locks of the dead, of the living and of other machines",
        ("faults/test_storage.py", "faults/test_locks.py", "faults/test_finished.py"),
    ),
    "stops": Tests(
        2,
        "stops at single steps, in an evaluation, between stages, in several ranks",
        ("train", "end_to_end/test_interrupted.py", "end_to_end/test_interrupted_stages.py", "ranks"),
        "resumed or interrupted or kill or signal or freezes_as or exactly or goes_on or straight",
    ),
    "numbers": Tests(
        3,
        "data split over processes and micro-batches, missing labels, rules of other programs",
        (
            "ranks/test_ranks.py::test_weights_are_those_of_one_process",
            "ranks/test_ranks.py::test_counts_are_those_of_one_process_for_every_length",
            "ranks/test_ranks.py::test_evaluate_and_predict_give_what_one_process_gives",
            "train/test_train.py::test_micro_batches_give_the_gradient_of_the_whole_batch",
            "train/test_train.py::test_a_batch_without_labels_changes_nothing",
            "train/test_train.py::test_a_step_without_weight_changes_nothing",
            *("metric/test_confusion.py", "evaluate/test_conventions.py", "evaluate/test_rules.py"),
        ),
    ),
    "garbage": Tests(
        4,
        "garbage, pipes, folders and links for files; closed and full streams; other systems; advice",
        (
            *("faults/test_garbage.py", "faults/test_streams.py", "faults/test_other_systems.py"),
            *(
                "end_to_end/test_advice.py",
                "commands/test_bad_files.py",
                "commands/test_control_characters.py",
            ),
        ),
    ),
    "malice": Tests(
        5,
        "malicious checkpoints, weights, configs, archives, images and links",
        (
            *("test_tensors.py", "train/test_fits.py", "faults/test_links.py", "data/files/test_archives.py"),
            *("data/files/test_damage.py", "data/files/test_channels.py::test_pickles_are_not_loaded"),
            "data/test_preparation.py::test_a_hostile_archive_is_refused_in_one_line",
            "checkpoint/test_checkpoint.py::test_a_pickle_is_never_run",
            "checkpoint/test_checkpoint.py::test_a_forged_description_is_refused",
            "checkpoint/test_checkpoint.py::test_a_huge_description_is_not_read",
            "checkpoint/test_checkpoint.py::test_a_state_that_grows_when_it_is_read_is_refused",
            "checkpoint/test_checkpoint.py::test_a_link_out_of_the_folder_is_refused",
            "checkpoint/test_checkpoint.py::test_configs_that_are_not_plain_are_refused",
            "cli/test_config.py::test_hydra_node_cannot_be_set",
            "cli/test_config.py::test_yaml_may_set_nothing_of_hydra",
            "cli/test_config.py::test_attack_through_an_own_entry_of_a_group",
            "cli/test_config.py::test_yaml_bombs",
            "cli/test_config.py::test_what_costs_without_meaning_is_refused_at_once",
            "cli/test_config.py::test_saved_config_that_holds_more_than_data",
            "cli/test_config.py::test_environment_is_read_from_an_allow_list_only",
        ),
    ),
    "resources": Tests(
        6,
        "little memory, address space, open files and /dev/shm; dead, slow and frozen workers and ranks",
        ("faults/test_resources.py", "loader/test_loader.py", "ranks/test_ranks.py"),
        "little or carry or worker or frozen or dies or restarts or shared or limit or signal or killed",
    ),
    "signalled": Tests(
        7,
        "signals in imports, in long operations, to workers, twice, from terminals and batch systems",
        ("faults/test_signals.py", "run/test_stop.py"),
    ),
}


def campaign(tests: Tests) -> Callable[[bool, Path], list[Figure]]:
    def run(quick: bool, folder: Path) -> list[Figure]:
        if quick:
            raise LeftOut("these tests are part of make test")
        report = folder / "report.xml"
        words = ["-m", "slow or not slow", "--timeout=900", f"--junitxml={report}", "-p", "no:cacheprovider"]
        words += [*(f"tests/{path}" for path in tests.paths), *(["-k", tests.only] if tests.only else [])]
        with open(folder / "log", "w") as log:
            command = [sys.executable, "-m", "pytest", *words]
            subprocess.run(command, cwd=ROOT, env=programs.environment(), stdout=log, stderr=log, check=False)
        return [_figure(tests, report)]

    run.__doc__ = f"Tests: {tests.injected}."
    return run


def _figure(tests: Tests, report: Path) -> Figure:
    cases = list(xml.parse(report).iter("testcase"))
    skipped = [case for case in cases if case.find("skipped") is not None]
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    count = len(cases) - len(skipped)
    text = f"{count - len(failed)} of {count} tests pass" + (f", {len(skipped)} skipped" if skipped else "")
    names = [f"{case.get('classname')}::{case.get('name')}" for case in failed]
    return Figure(tests.promise, tests.injected, count, text, names)
