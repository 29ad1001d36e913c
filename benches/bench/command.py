"""What was typed: the name of a bench and its options. Owns the words of a wrong command and the exit code.

A bench is a module with a docstring, OPTIONS, {name: (default, what it is)}, and `run(options)`, which gives its exit code. The
type of an option is that of its default; a bench with MORE, a word for it, takes further words, as `options.more`.
"""

import argparse
import importlib
import shlex
import signal
import sys

from . import Failed

BENCHES = ("stages", "beside", "scale", "worker", "history", "api", "viewers", "strangers", "upload", "merge", "loadtest", "soak", "frames", "fleet")


def usage():
    print("usage: benches/run NAME [options]; `benches/run NAME --help` says more\n")
    for name in BENCHES:
        print(f"  {name:10} {importlib.import_module(f'bench.{name}').__doc__.splitlines()[0]}")


def parse(name, bench, words):
    parser = argparse.ArgumentParser(prog=f"benches/run {name}", description=bench.__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, (default, what) in bench.OPTIONS.items():
        if default is False:
            parser.add_argument(f"--{option}", action="store_true", help=what)
        else:
            parser.add_argument(f"--{option}", type=type(default), default=default,
                                help=f"{what} (default: {'none' if default == '' else default})".replace("%", "%%"))
    if hasattr(bench, "MORE"):
        options, options.more = parser.parse_known_args(words)
    else:
        options = parser.parse_args(words)
    options.command = shlex.join(["benches/run", name, *words])
    return options


def main():
    if len(sys.argv) < 2 or sys.argv[1] not in BENCHES:
        usage()
        sys.exit(0 if sys.argv[1:] in ([], ["--help"]) else f"error: there is no bench {sys.argv[1]}")
    bench = importlib.import_module(f"bench.{sys.argv[1]}")
    options = parse(sys.argv[1], bench, sys.argv[2:])
    # Ends what it has started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(bench.run(options))
    except Failed as failure:
        sys.exit(f"error: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
