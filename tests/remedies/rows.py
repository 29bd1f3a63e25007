"""A row of the table of remedies: how a message comes about, what it tells to type, and that this works."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

from jdet import cli
from jdet.train.checkpoints.checkpoint import CheckpointError
from jdet.types import ConfigError, DataError
from tests.train import fake


class Typed(NamedTuple):
    """A message that a call brings about with some arguments, and no longer with a remedy among them.

    Attributes:
        file: that has the message.
        fragment: part of its text; values in it are ``{}``.
        call: raises it, or returns a text with it; a parameter ``folder`` is a new folder at each call.
        wrong: arguments that bring it about.
        remedies: arguments that replace or join them, each remedy by itself.
    """

    file: str
    fragment: str
    call: Callable[..., Any]
    wrong: Mapping[str, Any]
    remedies: tuple[Mapping[str, Any], ...]

    def check(self, folder: Path) -> None:
        said = self._outcome(folder / "wrong", self.wrong)
        text = re.compile(".*".join(map(re.escape, self.fragment.split("{}"))), re.DOTALL)
        assert text.search(said), said
        assert self.remedies
        for number, remedy in enumerate(self.remedies):
            said = self._outcome(folder / str(number), {**self.wrong, **remedy}, may_raise=False)
            assert not text.search(said), said

    def _outcome(self, folder: Path, arguments: Mapping[str, Any], may_raise: bool = True) -> str:
        folder.mkdir(parents=True)
        if "folder" in inspect.signature(self.call).parameters:
            arguments = {"folder": folder, **arguments}
        try:
            said = self.call(**arguments)
        except (ConfigError, DataError, CheckpointError, ValueError) as error:
            if not may_raise:
                raise
            return str(error)
        return said if isinstance(said, str) else ""


class Elsewhere(NamedTuple):
    """A message whose remedy another test types.

    Attributes:
        file: that has the message.
        fragment: part of its text.
        test: file and name of the test, which has ``proof`` in it.
        proof: what the test says about it; "": the fragment.
    """

    file: str
    fragment: str
    test: str
    proof: str = ""


class Untyped(NamedTuple):
    """A message whose remedy cannot be typed in a test, and why."""

    file: str
    fragment: str
    why: str


Row = Typed | Elsewhere | Untyped


def row(
    file: str, fragment: str, call: Callable[..., Any], wrong: Any, *remedies: Mapping[str, Any]
) -> Typed:
    return Typed(file, fragment, call, wrong, remedies)


def of_config(
    file: str,
    fragment: str,
    check: Callable[[ConfigDict], Any],
    wrong: Mapping[str, Any],
    *remedies: Mapping[str, Any],
) -> Typed:
    """Of a check of a whole config; keys have ``__`` for dots."""
    return Typed(file, fragment, lambda **given: check(fake.config(**given)), wrong, remedies)


def type_in(config: ConfigDict, command: str) -> ConfigDict:
    """The config with ``--config.key=value …`` of a message, as a shell and the commands read it."""
    arguments = shlex.split(command)
    cli._rename_groups(config, cli._overrides(arguments))
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=["", *arguments])
    assert values(["", *arguments]) == [""]
    return config
