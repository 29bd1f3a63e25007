"""Start and end of the programs: a user's mistake or a signal ends in one line, not in a stack trace."""

from __future__ import annotations

import contextlib
import functools
import logging as python_logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from jdet.config import RENAMED, check_common, complete_phase, flatten, from_file
from jdet.train import program_cache
from jdet.train.output import lenient
from jdet.types import ConfigError, DataError, nearest

MISTAKE = 2
"""Exit code after a mistake in command, config or data."""

MENDABLE = (ConfigError, DataError)

_HELP = (
    "Experiment: file.py, or file.py:key=value,… with its arguments. --config.a.b=value sets a key of "
    "its config; a group's name=… first gives the group the keys of that class."
)


def start(
    main: Callable[[], int | None],
    sigterm_code: Callable[[], int] | None = None,
    *,
    operand: str = "",
) -> None:
    """Reads ``--config`` and the command line, runs ``main`` and exits with its code.

    Args:
        main: reads ``flags.FLAGS``, where ``config`` is the experiment's config with what the command
            line sets; further flags are defined before the call.
        sigterm_code: exit code where SIGTERM or SIGHUP ended the program, perhaps before flags were read;
            None: 128 more than the signal, as for SIGINT.
        operand: flag that an argument without dashes sets, for a command that does without ``--config``,
            which is None then; "": there is no such argument.
    """
    # Before streams are wrapped: libraries that log while they are imported leave a handler of standard
    # error, which absl takes away where it knows it, so that nothing is told twice.
    logging.use_absl_handler()
    program_cache.keep()
    with lenient(), stoppable():
        try:
            parse = functools.partial(_parse, operand=operand)
            app.run(lambda _: _run(main), flags_parser=parse)
        except KeyboardInterrupt as error:
            code = _stopped(error)
            asked = sigterm_code is not None and code != 128 + signal.SIGINT
            sys.exit(sigterm_code() if asked else code)


def run(work: Callable[[], Any], *also: type[Exception]) -> int:
    """Does the work of a command; a mistake of the user's or a signal ends in one line.

    Args:
        work: its result is the exit code where it is a number, else that is 0.
        *also: exceptions that are the user's to mend beside errors of config, data and checkpoints.

    Returns:
        The exit code.
    """
    program_cache.keep()
    with lenient(), stoppable():
        try:
            return _code_of(work, *also)
        except KeyboardInterrupt as error:
            return _stopped(error)


def _code_of(work: Callable[[], Any], *also: type[Exception]) -> int:
    try:
        code = work()
        return code if isinstance(code, int) else 0
    except Exception as error:
        from jdet.train.checkpoints.checkpoint import CheckpointError  # late: it imports JAX

        if not isinstance(error, (*MENDABLE, CheckpointError, *also)):
            raise
        print_error(error)
        return MISTAKE


def _stopped(error: KeyboardInterrupt) -> int:
    """Prints what stopped the program and returns its exit code."""
    number = error.number if isinstance(error, Stopped) else signal.SIGINT
    print_error(
        f"stopped by {signal.Signals(number).name}{''.join(getattr(error, '__notes__', ()))}"
    )
    return 128 + number


class Stopped(KeyboardInterrupt):
    """A signal asked the program to end where nothing waits for it to be asked.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM, SIGHUP and SIGINT raise ``Stopped`` inside; a later SIGINT ends the program at once.

    What is ignored stays so (``nohup``), and so does what the caller has set. Outside the main thread,
    where Python allows no handlers, signals do what they did before.
    """
    usual = {
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
        signal.SIGINT: signal.default_int_handler,
    }
    first: list[float] = []

    def handle(number: int, _: Any) -> None:
        if not first:
            first.append(time.monotonic())
            raise Stopped(number)
        if number == signal.SIGINT and time.monotonic() - first[0] > 1.0:  # not a key pressed twice
            os._exit(128 + number)

    mine = threading.current_thread() is threading.main_thread()
    set_here = [n for n, old in usual.items() if mine and signal.getsignal(n) == old]
    for number in set_here:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in set_here:
            signal.signal(number, usual[number])


def print_error(error: object) -> None:
    """Prints an error in one line, also with file names that are not valid text."""
    text = os.fsencode(f"error: {error}").decode("utf-8", "replace")
    with lenient():
        print(text, file=sys.stderr, flush=True)


def _run(main: Callable[[], int | None]) -> int:
    logging.set_verbosity(logging.INFO)
    python_logging.getLogger("jax").setLevel(python_logging.WARNING)
    return _code_of(main)


def _parse(arguments: list[str], operand: str = "") -> list[str]:
    values = flags.FLAGS
    try:
        program, *given = values.read_flags_from_files(arguments, force_gnu=False)
        experiment, given = _take_config(given)
        if experiment is None:
            flags.DEFINE_string("config", None, _HELP, values, required=not operand)
        else:
            config = from_file(experiment, functools.partial(_set_data, given))
            config.lock()
            overrides = _overrides(given)
            _rename_groups(config, overrides)
            for key, _ in overrides:
                complete_phase(config, key)
                _check_key(config, key)
            for key, _ in overrides:
                check_common(config, key)
            argv = [program, *given]
            config_flags.DEFINE_config_dict("config", config, _HELP, values, sys_argv=argv)
        values.register_key_flag_for_module(program, values["config"])  # for --help
        rest = _values(values, [program, *given])
    except (*MENDABLE, flags.Error, TypeError) as error:
        _fail(_readable(str(error)))
    if operand and len(rest) > 1 and not values[operand].value:
        values[operand].value = rest.pop(1)
    if len(rest) > 1:
        _fail(f"{rest[1]!r} is not an option; options look like --key=value")
    return rest


def _values(values: flags.FlagValues, argv: list[str]) -> list[str]:
    """Parses the flags; what is left. Exits with 0 after ``--help``, where absl says 1."""
    try:
        return values(argv)
    except SystemExit:  # nothing but the help ends here
        sys.exit(0)


def _readable(message: str) -> str:
    """The message of an invalid flag without absl's preamble; of a required one, how to give it."""
    message = re.sub(r"^flag --(\w+=None: )?", "", message)
    number = re.fullmatch(
        r"([\w.]+=.*): (invalid literal for int\(\)|could not convert string to float).*", message
    )
    if number is not None:
        return f"{number[1]}: it must be a {'whole ' if 'int' in number[2] else ''}number"
    missing = re.fullmatch(r"Flag --(\w+) must have a value other than None\.", message)
    if missing is None:
        return message
    experiment = missing[1] == "config"
    hint = "; for images of your own experiments/scratchdet_custom.py:root=PATH" * experiment
    return f"--{missing[1]}={'experiments/' if experiment else ''}… is missing{hint}"


def _take_config(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The last value of ``--config``, and the other arguments."""
    experiment, others = None, []
    waiting = iter(arguments)
    for argument in waiting:
        name, equals, value = argument.partition("=")
        if name in ("--config", "-config"):
            experiment = value if equals else next(waiting, "")
        else:
            others.append(argument)
    return experiment, others


def _overrides(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """Key and value of every ``--config.key=value``, without an index such as ``[0]``."""
    found = []
    for argument, following in zip(arguments, [*arguments[1:], ""]):
        match = re.fullmatch(r"--?(no)?config\.([^=\[]+)[^=]*(=?)(.*)", argument, re.DOTALL)
        if match:
            _, key, equals, value = match.groups()
            found.append((key, value if equals else following))
    return found


def _rename_groups(config: ConfigDict, overrides: Sequence[tuple[str, str]]) -> None:
    """Gives groups whose class is named on the command line the keys of that class."""
    names = {key.removesuffix(".name"): value for key, value in overrides if key.endswith(".name")}
    if not names:
        return
    from jdet import build  # late: it imports JAX, and few command lines need it

    for key, kind, group in build.class_groups(config):
        if key in names and names[key] != group.name:
            holder, *parts = config, *key.split(".")
            for part in parts[:-1]:
                holder = holder[part]
            with config.unlocked():
                holder[parts[-1]] = build.renamed(kind, group, names[key])


def _set_data(arguments: Sequence[str], config: ConfigDict) -> None:
    """Sets those keys of ``config.data`` that the command line names and the config has already.

    Raises:
        ConfigError: a value of another type.
    """
    wanted = [
        (key, value)
        for key, value in _overrides(arguments)
        if key.startswith("data.") and _has(config, key)
    ]
    _rename_groups(config, wanted)
    names = {key for key, _ in wanted if _has(config, key)}
    chosen: list[str] = []
    for argument, following in zip(arguments, [*arguments[1:], ""]):
        if names.intersection(key for key, _ in _overrides([argument])):
            separate = "=" not in argument and not following.startswith("-")
            chosen += [argument, following] if separate else [argument]
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=["", *chosen])
    try:
        values(["", *chosen])
    except (flags.Error, TypeError) as error:
        raise ConfigError(_readable(str(error))) from error
    config.unlock()


def _has(config: ConfigDict, key: str) -> bool:
    here: Any = config
    for part in key.split("."):
        if not isinstance(here, ConfigDict) or part not in here:
            return False
        here = here.get(part)
    return True


def _check_key(config: ConfigDict, key: str) -> None:
    """Refuses a key that the config lacks.

    Raises:
        ConfigError: says what it is called now, or the nearest key: of its group, else of all.
    """
    here, parts = config, key.split(".")
    for i, part in enumerate(parts):
        if isinstance(here, ConfigDict) and part in here:
            here = here.get(part)
            continue
        wrong = ".".join(parts[: i + 1])
        if wrong in RENAMED:
            raise ConfigError(f"config.{wrong} is called config.{RENAMED[wrong]} now")
        ends = {
            one.rpartition(".")[2]: one for one in reversed(flatten(config.to_dict(), "config."))
        }
        siblings = [*here] if isinstance(here, ConfigDict) else []
        group = "".join(f"{parent}." for parent in ("config", *parts[:i]))
        close = nearest(part, siblings)
        if close and part not in ends:  # a key of that very name in another group is what was meant
            known = {one: f"{group}{one}" for one in siblings}
        else:
            known, close = ends, nearest(part, ends)
        found = re.search("'(.*)'", close)
        hint = f", did you mean {known[found[1]]}?" if found else ""
        raise ConfigError(f"config.{wrong} does not exist{hint}")


def _fail(error: object) -> NoReturn:
    print_error(error)
    sys.exit(MISTAKE)
