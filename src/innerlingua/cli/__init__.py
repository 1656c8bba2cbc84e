"""The command `innerlingua`: one thin file per verb, each parses and then imports what it needs.

Exit codes: 0 fine, 2 bad input or a refused request (one message, no traceback), 1 a fault of ours (with its
traceback), 130 interrupted. Nothing here imports torch before a verb runs, so `--help` is immediate.
"""

from innerlingua.cli.app import main

__all__ = ["main"]
