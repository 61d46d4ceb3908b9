"""The program: `segtrain …` and `python -m segtrain …`."""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Runs the command line of this process and returns its exit code."""
    # A Ctrl-C during the imports below would otherwise end in a traceback of Python. Nothing is lost before
    # the handlers of a run replace this.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from segtrain.cli.main import main as run
    from segtrain.run.stop import keep_exit_code

    code = run()
    keep_exit_code()
    return code


if __name__ == "__main__":
    sys.exit(main())
