"""The folder of a run: whose it is, who may write to it, what became of the run, and how to read it."""

from __future__ import annotations

import datetime
import functools
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
from ml_collections import ConfigDict

from jdet import config as config_lib
from jdet.atomic_files import write_json, write_text
from jdet.config import FREE, complete, flatten
from jdet.parallel import broadcast, run_token
from jdet.train.checkpoints import select
from jdet.train.claim import LOCK, Claim, check_name
from jdet.train.folders import CONFIG, PHASES, RUN, discard, read_json, record_of, run_folder
from jdet.types import ConfigError

if TYPE_CHECKING:
    from jdet.train.checkpoints.checkpoint import Weights

MEETING = ".meeting"


class Run(NamedTuple):
    """A run, finished or still training, opened for reading.

    Attributes:
        path: of its folder, absolute.
        config: complete config, in the words of this version.
        record: what ``run.json`` says of it (``status``, ``num_examples``, ``devices``, …); empty where
            the run has not begun to train.
    """

    path: Path
    config: ConfigDict
    record: dict[str, Any]

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / select.FOLDER

    def weights(
        self,
        step: int | str | None = None,
        *,
        best_metric: str | None = None,
        notify: Callable[[str], None] = print,
    ) -> Weights:
        """The weights of a checkpoint.

        Args:
            step: a number, "best", "latest" or None (the newest that can be read).
            best_metric: that makes a checkpoint the best (``train.best_mode``); None: the run's own.
            notify: told when a damaged checkpoint is passed over.

        Raises:
            ConfigError: no checkpoint can be meant by ``step``.
            CheckpointError: there is no such checkpoint, or it cannot be read.
        """
        from jdet.train.checkpoints import checkpoint  # orbax takes seconds to import

        if best_metric is None:
            best_metric = self.config.train.best_metric
        lowest = self.config.train.best_mode == "min"
        return checkpoint.load_for_inference(self.path, step, best_metric, notify, lowest=lowest)


def open_run(path: str | os.PathLike[str], phase: str = "") -> Run:
    """Opens the folder of a run to read it, also of an older version of jdet or while it trains.

    Args:
        path: of the folder.
        phase: of a run with phases; "": the last that is finished, or, where none is, that has begun.

    Raises:
        ConfigError: there is no run in the folder, no such phase, or its files cannot be read.
    """
    path = run_folder(path, phase)
    return Run(path, config_lib.load(path / CONFIG), record_of(path))


class Workdir:
    """The folder of one run, held for this process until ``close``.

    Attributes:
        path: absolute.
        resumes: a run of this config was begun here before.
        record: what ``run.json`` says of it.
    """

    def __init__(
        self,
        path: str | Path,
        config: ConfigDict,
        num_examples: int,
        *,
        overwrite: bool = False,
        notify: Callable[[str], None] = print,
        class_defaults: Mapping[str, Any] | None = None,
    ):
        """Takes the folder, or refuses it.

        Args:
            path: made if it is not there.
            config: complete config of the run.
            num_examples: images of an epoch.
            overwrite: discard the run that the folder holds.
            notify: told what was discarded and which free keys changed.
            class_defaults: values, by dotted key, that keys of the config's classes have where a
                config lacks them, such as one that is older than they.

        Raises:
            ConfigError: another process trains there, the folder holds something else than a run, or
                the run of another config or training set, or checkpoints cannot be kept under its name.
        """
        check_name(path)
        self.path = Path(path).expanduser().absolute()
        self._main = jax.process_index() == 0
        self._claim: Claim | None = None
        try:
            if self._main:
                if self.path.exists() and not self.path.is_dir():
                    raise ConfigError(f"workdir {self.path} is a file; name a folder")
                self.path.mkdir(parents=True, exist_ok=True)
                self._claim = Claim(self.path, notify)
            self._open(config, num_examples, overwrite, notify, class_defaults or {})
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise ConfigError(f"workdir {self.path} cannot be used: {error}") from error
            raise

    def _open(self, config, num_examples, overwrite, notify, class_defaults) -> None:
        mere_traces = (LOCK, MEETING, run_token.FILE, f"{CONFIG}.tmp")  # of one killed as it began
        held = [p for p in self.path.iterdir() if not p.name.startswith(mere_traces)]
        stored_file = self.path / CONFIG
        if (self.path / PHASES).exists() and not overwrite:
            raise ConfigError(
                f"workdir {self.path} holds a run with phases, and this config has none; give the config "
                "the run was begun with, take another workdir, or discard it with --overwrite"
            )
        if held and not (stored_file.exists() or (self.path / PHASES).exists()):
            names = ", ".join(sorted(p.name for p in held)[:5])
            raise ConfigError(
                f"workdir {self.path} holds something else than a run ({names}); name an empty or new "
                "folder"
            )
        if overwrite and self._main and held:
            notify(f"discarding the run in {self.path}")
            discard(self.path)
        self.resumes = stored_file.exists()
        current = json.loads(config.to_json())
        run_file = self.path / RUN
        remedy = "put back a copy, or discard the run with --overwrite"
        self.record = read_json(run_file, remedy) if run_file.exists() else {}
        if self.resumes:
            defaults = json.loads(json.dumps(dict(class_defaults)))
            stored = {**defaults, **flatten(complete(read_json(stored_file, remedy)))}
            self._compare(stored, {**defaults, **flatten(current)}, num_examples, notify)
        if self._main:
            write_text(stored_file, json.dumps(current, indent=2) + "\n")
        if not self.record:
            self.update(num_examples=num_examples, started=_now())

    def _compare(self, old: dict, new: dict, num_examples: int, notify) -> None:
        forbidden, free = differences(old, new)
        examples = self.record.get("num_examples", num_examples)
        if examples != num_examples:
            forbidden.append(f"images of an epoch: {examples} → {num_examples}")
        if forbidden:
            raise ConfigError(
                f"workdir {self.path} holds a run that differs in\n  "
                + "\n  ".join(forbidden)
                + "\nSet this back to go on with it, take another workdir, or discard it with "
                "--overwrite."
            )
        if free:
            notify("going on with other settings:\n  " + "\n  ".join(free))

    def check_split(self, config: ConfigDict, devices: int, micro_batch: int) -> str:
        """Refuses to resume with another number of images per device if the training depends on it.

        BatchNorm "batch" takes its statistics from what one device sees at a time, and the losses of
        ``loss_norm="per_device"`` are divided by its objects. All else is the same on any devices.

        Args:
            config: complete config of the run.
            devices: of all processes.
            micro_batch: images that a device processes at a time.

        Returns:
            What will not be the same to the last digits, as a sentence; mostly "".

        Raises:
            ConfigError: ``micro_batch`` is not what the run had so far, and it matters.
        """
        before = self.record.get("micro_batch", micro_batch)
        model = config.model
        matters = [
            f"model.{key}='batch'" for key in ("norm", "head_norm") if model.get(key) == "batch"
        ]
        if config.train.loss_norm == "per_device":
            matters.append("train.loss_norm='per_device'")
        if before != micro_batch and matters:
            raise ConfigError(
                f"workdir {self.path} holds a run on {self.record['devices']} device(s) with "
                f"{before} images at a time each; on {devices} it would be {micro_batch}, and with "
                f"{' and '.join(matters)} that is another training. Go on with "
                f"{self._as_many_devices(config)}, or begin a run in another workdir that does not "
                "depend on it (norms 'sync_batch' or 'group', loss_norm 'global')"
            )
        group = config.parallel.bn_group_size
        synced = any(model.get(key) == "sync_batch" for key in ("norm", "head_norm"))
        over_devices = group == 0 or group > min(before, micro_batch)
        if before != micro_batch and config.train.accumulation > 1 and synced and over_devices:
            return (
                f"with train.accumulation={config.train.accumulation}, BatchNorm groups over devices "
                f"are made of other images of the batch from here on: those that devices see at a "
                f"time, {before} each before and {micro_batch} now"
            )
        return ""

    def _as_many_devices(self, config: ConfigDict) -> str:
        """How the run gets as many devices as it had, here if that can be."""
        wanted, here = self.record["devices"], jax.device_count()
        if wanted <= here:
            return f"--config.parallel.devices={wanted}"
        if jax.default_backend() == "cpu" and wanted % jax.process_count() == 0:
            every = f"--config.parallel.cpu_devices={wanted // jax.process_count()}"
            return f"{every} --config.parallel.devices=0" if config.parallel.devices else every
        return f"{wanted} devices, of which there are {here} here (more hosts, or those it had)"

    def update(self, **facts: Any) -> None:
        """Adds to ``run.json``, which is replaced as a whole."""
        if "status" in facts:
            self.record.pop("error", None)  # of an earlier end
        self.record = {**self.record, **facts}
        if self._main:
            write_json(self.path / RUN, self.record)

    def finish(self, status: str, **facts: Any) -> None:
        """Records how the run ended: "completed", "interrupted", "diverged" or "failed"."""
        self.update(status=status, ended=_now(), **facts)

    def close(self) -> None:
        """Releases the folder for other processes."""
        if self._claim is not None:
            self._claim.release()
            self._claim = None


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """How two configs, flat, differ: in keys that decide about the weights, and in ``FREE`` ones."""
    forbidden, free = [], []
    for key in sorted({*old, *new}):
        before, after = old.get(key, "absent"), new.get(key, "absent")
        if before != after:
            allowed = any(re.fullmatch(pattern, key) for pattern in FREE)
            (free if allowed else forbidden).append(f"{key}: {before!r} → {after!r}")
    return forbidden, free


def open_together(
    path: str | Path,
    config: ConfigDict,
    num_examples: int,
    overwrite: bool,
    notify: Callable[[str], None],
    class_defaults: Mapping[str, Any] | None = None,
) -> Workdir:
    """The folder of a run on all its processes; arguments and errors are those of ``Workdir``.

    Process 0 goes first, for it may have to clear the folder that the others then look into. All must
    see the same folder, as each writes its part of a checkpoint.

    Raises:
        ConfigError: on all processes, also where one of them sees another folder; it is named.
    """
    opened: list[Workdir] = []
    path = Path(path).expanduser().absolute()
    several = jax.process_count() > 1
    open_here = functools.partial(
        Workdir, path, config, num_examples, notify=notify, class_defaults=class_defaults
    )

    def take() -> str:
        opened.append(open_here(overwrite=overwrite))
        token = secrets.token_hex(8)
        if several:
            write_text(path / MEETING, token)
        return token

    token = broadcast.from_main(take)
    try:
        if several:
            _meet(path, token)
    except BaseException:
        for folder in opened:
            folder.close()
        raise
    return opened[0] if opened else open_here()


def _meet(path: Path, token: str, patience: float = 10.0) -> None:
    """Checks that all processes see what process 0 has written into the folder.

    Args:
        path: of the folder.
        token: what it has written.
        patience: seconds after which a network file system must show it.
    """
    meeting, deadline = path / MEETING, time.monotonic() + patience
    while not (seen := meeting.exists() and meeting.read_text() == token):
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    all_seen, names = broadcast.gather(seen), broadcast.host_names()
    if jax.process_index() == 0:
        meeting.unlink(missing_ok=True)
    blind = [name for name, sees in zip(names, all_seen, strict=True) if not sees]
    if blind:
        raise ConfigError(
            f"workdir {path} is not the same folder everywhere: {', '.join(blind)} cannot see what "
            f"{names[0]} writes there; name a folder that all hosts share (NFS, Lustre, a mounted "
            "bucket)"
        )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
