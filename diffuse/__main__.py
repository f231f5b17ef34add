"""The console script, and `python -m diffuse` for when it is not on the path."""

import signal
import sys


def main() -> int:
    """One command line, its imports included.

    Until a command minds signals itself there is nothing to tidy up: Ctrl-C ends it without a word.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # nohup: ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from diffuse import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
