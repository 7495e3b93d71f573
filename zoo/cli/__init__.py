"""The command line `zoo VERB …`: it parses, calls the front door, and prints. `python -m zoo` is the same.

parser.py     arguments, their help, and what a typing error is told
text.py       tables, sizes and JSON
attention.py  --attention of any verb
catalogue.py  list, info, cite
doctor.py     doctor
music.py      generate, interpolate, encode, decode, reconstruct, render
sequences.py  continue, score
listening.py  transcribe, chords, structure, beats, analyze
melody.py     melody
tags.py       tag
pitch.py      pitch
voices.py     harmonize, accompany, infill, genie
learning.py   train, finetune, evaluate, bench, convert

Exit codes: 0 done, 1 an error the user can mend (one line on stderr), 2 a command that can't be understood,
130 stopped by Ctrl-C. `ZOO_DEBUG=1` or `--debug` shows the traceback of any error.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Sequence

from zoo.cli.parser import parse
from zoo.errors import ZooError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code. A command that can't be understood raises SystemExit(2)."""
    _prepare_output()
    args = parse(sys.argv[1:] if argv is None else argv)
    debug = args.debug or os.environ.get("ZOO_DEBUG", "") not in ("", "0")
    try:
        args.run(args)
        sys.stdout.flush()
        return 0
    except KeyboardInterrupt:
        print(f"\nzoo: stopped{args.when_stopped}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of `zoo list | head -3` has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the flush at exit would complain
        return 141  # as a program that SIGPIPE ends
    except ZooError as error:
        if debug:
            raise
        print(f"zoo: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except Exception as error:
        if debug:
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"zoo: error: unexpected {reason[:300]}", file=sys.stderr)
        print(
            "This is a bug in the zoo: please report it with what the same command says with --debug.", file=sys.stderr
        )
        return 1


def _prepare_output() -> None:
    """Shows the zoo's own warnings as lines, and never fails on a character that the terminal can't show."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    log = logging.getLogger("zoo")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("zoo: warning: %(message)s"))
        log.addHandler(handler)
