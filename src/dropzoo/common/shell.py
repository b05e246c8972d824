"""Commands that a user can paste into a shell."""

import shlex
import subprocess
import sys
from collections.abc import Sequence


def quote(word: str) -> str:
    """Returns a word as the shell of this system reads it: the backslashes of a path on Windows stay single.

    Example:
    >>> from dropzoo.common.shell import quote
    >>> quote("runs/cnn"), quote("dense*")
    ('runs/cnn', "'dense*'")
    """
    return join([word])


def join(words: Sequence[str]) -> str:
    """Returns a command whose words the shell of this system takes apart again."""
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)
