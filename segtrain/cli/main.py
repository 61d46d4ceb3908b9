"""The command line. Help and lists are printed without importing torch; signal handlers and the lock of the
run folder are in place before torch is imported."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import segtrain
from segtrain.cli.streams import Output, prepare, tell
from segtrain.commands import COMMANDS, of_one_run
from segtrain.errors import SIGPIPE, ConfigError, SegtrainError, nearest
from segtrain.text import say

FLAGS = {"-h": "help", "--help": "help", "--version": "version", "-m": "multirun", "--multirun": "multirun"}
VALUED = {"-c": "cfg", "--cfg": "cfg", "-cd": "config_dir", "--config-dir": "config_dir"}
REFUSED = {
    "--experimental-rerun": "it would run what a file holds",
    "--config-path": "segtrain's own YAMLs are always read; add yours by --config-dir DIR",
    "-cp": "segtrain's own YAMLs are always read; add yours by --config-dir DIR",
    "--config-name": "each command has one; choose by experiment=NAME",
    "-cn": "each command has one; choose by experiment=NAME",
}


@dataclass
class Arguments:
    """A parsed command line. words: the overrides, that is, all but the flags and the command."""

    command: str | None = None
    words: list[str] = field(default_factory=list)
    help: bool = False
    version: bool = False
    multirun: bool = False
    cfg: str | None = None
    config_dir: str | None = None


def main(arguments: list[str] | None = None) -> int:
    """Runs one command line and returns its exit code; every error is one line on stderr."""
    arguments = sys.argv[1:] if arguments is None else arguments
    output = prepare()
    try:
        code = _run(arguments, output)
        if output.stop is None:
            output.check()
        return code
    except SegtrainError as error:
        return _fail(str(error), error.exit_code)
    except BrokenPipeError:
        return 128 + SIGPIPE  # without a word, as is usual: `segtrain list | head`
    except KeyboardInterrupt:
        return 130
    except MemoryError:
        return _fail("out of memory", 6)


def _fail(message: str, code: int) -> int:
    tell(message, of_signal=code > 128)
    return code


def _run(words: list[str], output: Output) -> int:
    arguments = parse_arguments(words)
    if arguments.version:
        print(f"segtrain {segtrain.__version__}")
        return 0
    if arguments.help or arguments.command is None:
        from segtrain.cli.help import text

        print(text(arguments.command), file=sys.stdout if arguments.help else sys.stderr)
        return 0 if arguments.help else 2
    from segtrain.run.debug_log import debug_log

    with debug_log(None):
        return _command(arguments, words, output)


def parse_arguments(words: list[str]) -> Arguments:
    """Parses a command line: flags may stand anywhere, the first other word is the command. ConfigError for
    an unknown flag or command."""
    found = Arguments()
    rest = iter(words)
    for word in rest:
        flag, equals, value = word.partition("=")
        if flag in REFUSED:
            raise ConfigError(f"{flag} is not allowed: {REFUSED[flag]}")
        if word in FLAGS:
            setattr(found, FLAGS[word], True)
        elif flag in VALUED:
            value = value if equals else next(rest, "")
            if not value:
                raise ConfigError(
                    f"{flag} needs a value, such as "
                    f"{'--cfg job' if VALUED[flag] == 'cfg' else '--config-dir my_conf'}"
                )
            setattr(found, VALUED[flag], value)
        elif word.startswith("-") and not equals:
            raise ConfigError(
                f"{word} is not an option{nearest(word, [*FLAGS, *VALUED])}; options are "
                f"{', '.join([*FLAGS, *VALUED])}"
            )
        else:
            found.words.append(word)
    if found.words:
        found.command = _take_command(found.words)
    if found.multirun and found.command != "train" and not found.help:
        raise ConfigError(f"--multirun goes with segtrain train; {found.command} takes one run at a time")
    if found.cfg not in (None, "job"):
        raise ConfigError(f"--cfg {found.cfg} is not possible; --cfg job prints the config that would be run")
    return found


def _take_command(words: list[str]) -> str:
    """The name of the command that `words` begin with; its one or two words are removed from `words`."""
    for length in (2, 1):
        name = " ".join(words[:length])
        if len(words) >= length and name in COMMANDS:
            del words[:length]
            return name
    seconds = [row.words[1] for row in COMMANDS.values() if row.words[0] == words[0]]
    if seconds:
        raise ConfigError(
            f"{words[0]} needs a second word: {', '.join(f'segtrain {words[0]} {one}' for one in seconds)}"
        )
    word = words[0]
    hint = (
        "; keys come after a command, such as segtrain train " + word
        if "=" in word
        else nearest(word, COMMANDS)
    )
    raise ConfigError(f"{word} is not a command{hint}; commands are {', '.join(COMMANDS)}")


def _command(arguments: Arguments, words: list[str], output: Output) -> int:
    if arguments.command == "list":
        from segtrain.cli.catalogue import listing

        print(listing(arguments.words, arguments.config_dir))
        return 0
    if arguments.command == "config":
        return _config(arguments)
    from segtrain.run.resources import check_address_space

    check_address_space()
    if arguments.cfg:
        from segtrain.cli.printing import print_config

        print_config(arguments.command, arguments.words, arguments.config_dir)
        return 0
    return _signalled(arguments, words, output)


def _signalled(arguments: Arguments, words: list[str], output: Output) -> int:
    from segtrain.cli.on_ranks import check_ranks
    from segtrain.run.stop import Stop

    # Before anything slow: a signal that comes while torch is imported must end the run as one that comes
    # later does.
    stop = Stop().install()
    if arguments.command == "train":
        output.stop = stop
    try:
        row = COMMANDS[arguments.command]
        check_ranks("", row)
        multirun = arguments.multirun or any(map(row.asks_for_sweep, arguments.words))
        return (_sweep if multirun else _once)(arguments, stop, words)
    finally:
        stop.restore()


def _sweep(arguments: Arguments, stop, words: list[str]) -> int:
    from segtrain.cli.on_ranks import check_ranks
    from segtrain.cli.sweeps.sweep import sweep

    check_ranks("--multirun", COMMANDS[arguments.command])
    return sweep(arguments.words, arguments.config_dir, stop, words)


def _once(arguments: Arguments, stop, words: list[str]) -> int:
    from segtrain.cli.composition import composed
    from segtrain.cli.on_ranks import run
    from segtrain.run.debug_log import debug_log
    from segtrain.run.existing import existing_run

    config, hydra_keys = composed(arguments.command, arguments.words, arguments.config_dir)
    stop.raise_if_requested()
    if arguments.command == "train":
        from segtrain.cli.stages import train_all

        if config["sweep"]["name"] is not None:  # an experiment's
            return _sweep(arguments, stop, words)
        _check_single(config, arguments.words)
        run_dir, command_line = hydra_keys.get("hydra.run.dir"), ["segtrain", *words]
        folder, scores = train_all(
            of_one_run(config), arguments.words, arguments.config_dir, run_dir, stop, command_line
        )
        say(f"{folder or 'dry run'}: {_in_words(scores)}")
        return 0
    # A comparison belongs to no run.
    with debug_log(existing_run(config["run"], "run") if "run" in config else None):
        run(arguments.command, config, stop)
    return 0


def _check_single(config: dict, words: list[str]) -> None:
    """ConfigError for options of a sweep on the command line of a single run, which would ignore them."""
    if config["launcher"]["name"] is not None:
        raise ConfigError(
            f"launcher={config['launcher']['name']} starts the trials of a sweep; add --multirun or "
            f"sweep=NAME, or leave launcher out"
        )
    keys = [word.partition("=")[0].lstrip("+~") for word in words]
    if not {"sweep", "sweep.name"}.intersection(keys):  # sweep=null wants a single run
        for key in keys:
            if key.partition(".")[0] in COMMANDS["train"].of_sweep:
                raise ConfigError(
                    f"{key} is an option of a sweep; add --multirun or sweep=NAME, or leave {key} out"
                )


def _in_words(scores: dict) -> str:
    score = scores.get(scores.get("score"))
    return f"step {scores.get('step')}" + (
        f", {scores['score']} {score:.4f}" if isinstance(score, (int, float)) else ""
    )


def _config(arguments: Arguments) -> int:
    """`segtrain config train …`: a table of every key with its value, default, origin and meaning."""
    from segtrain.cli.composition import composition
    from segtrain.cli.help import config_table

    commands = [name for name, row in COMMANDS.items() if row.sections]
    given = " ".join(arguments.words[:2])
    if not arguments.words or not given.startswith(tuple(commands)):
        given = arguments.words[0] if arguments.words else "nothing"
        raise ConfigError(
            f"config needs a command, got {given}{nearest(given, commands)}; write segtrain config "
            f"{'|'.join(commands)}"
        )
    arguments.command = _take_command(arguments.words)
    composer, typed, _ = composition(arguments.command, arguments.words, arguments.config_dir)
    with composer.ready():
        print(
            config_table(
                composer.keys, composer.compose(typed), composer.setters(typed), [one.key for one in typed]
            )
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
