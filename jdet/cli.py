"""Start of the programs that take a config: what the user can mend ends in one line, not a stack trace."""

from __future__ import annotations

import difflib
import logging as python_logging
import re
import sys
from collections.abc import Callable
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from jdet.config import flatten, get_defaults
from jdet.types import ConfigError, DataError

MENDABLE = (ConfigError, DataError)


def start(main: Callable[[], int | None]) -> None:
    """Defines ``--config``, parses the command line, runs ``main`` and exits with its code.

    Args:
        main: reads ``flags.FLAGS``; further flags are defined before the call.
    """
    config_flags.DEFINE_config_file(
        "config", help_string="Experiment: file.py, or file.py:key=value,… with its arguments."
    )
    flags.mark_flag_as_required("config")
    app.run(lambda _: _run(main), flags_parser=_parse)


def _run(main: Callable[[], int | None]) -> int | None:
    logging.set_verbosity(logging.INFO)
    python_logging.getLogger("jax").setLevel(python_logging.WARNING)
    from jdet.train.checkpoints.checkpoint import CheckpointError  # after the flags: it imports JAX

    try:
        return main()
    except (*MENDABLE, CheckpointError) as error:
        _fail(error)


def _parse(arguments: list[str]) -> list[str]:
    try:
        rest = flags.FLAGS(arguments)
        flags.FLAGS.config.keys()  # the first touch reports a file that could not be loaded
    except (*MENDABLE, flags.Error, AttributeError, KeyError, TypeError, OSError) as error:
        _fail(_unknown_key(error, arguments) or _plain(error))
    if len(rest) > 1:
        _fail(f"{rest[1]!r} is not an option; options look like --key=value")
    return rest


def _unknown_key(error: BaseException, arguments: list[str]) -> str:
    """Says which key given on the command line the config lacks; "" where the error is another.

    ml_collections names the last part of the key alone, and one like it in the same group.
    """
    found = re.match(r"'(\w+)'(?:\nDid you mean \"(\w+)\")?", _root(error))
    if not found or not isinstance(error, AttributeError | KeyError):
        return ""
    name, close = found.groups()
    for argument in arguments:
        parts = argument.lstrip("-").removeprefix("no").split("=")[0].split(".")
        if argument.startswith("-") and parts[0] == "config" and name in parts[1:]:
            key = ".".join(parts[: parts.index(name, 1) + 1])
            all_keys = flatten(get_defaults().to_dict(), "config.")
            ends = {one.rpartition(".")[2]: one for one in all_keys}
            if close:
                ends = {close: f"{key.rpartition('.')[0]}.{close}"}
            near = difflib.get_close_matches(name, ends, 1)
            return f"{key} does not exist" + (f", did you mean {ends[near[0]]}?" if near else "")
    return ""


def _root(error: BaseException) -> str:
    """The text of an error that wraps others."""
    while error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    return str(error.args[0] if error.args else error)


def _plain(error: BaseException) -> str:
    """The message at the root of an error that ml_collections and absl have wrapped."""
    cause: BaseException | None = error
    while cause is not None:  # the deepest of ours
        error = cause if isinstance(cause, MENDABLE) else error
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, OSError):
        error = error.__cause__ or error
    text = _root(error).replace("\\n", "\n")
    lines = (line.strip() for line in text.splitlines() if line.strip())
    return ": ".join(re.sub(r"^'(.*)'$", r"\1", line).rstrip(":") for line in lines)


def _fail(error: object) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
