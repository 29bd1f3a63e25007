"""Experiment trackers that a run reports to besides its workdir: Weights & Biases, MLflow, Trackio.

``config.train.loggers`` names them. Each is a library of its own, imported only where it is named; where it
sends things and as whom is said by its own environment (``WANDB_API_KEY``, ``MLFLOW_TRACKING_URI``, …). The
id under which a tracker knows the run is kept in ``loggers.json`` of the workdir, so that a run that goes
on goes on there too. A tracker that fails is warned about and left; the run goes on.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from jdet.atomic_files import plain, write_json
from jdet.config import flatten
from jdet.parallel import broadcast
from jdet.train.folders import LOGGERS, PHASES
from jdet.train.writers import Writer
from jdet.types import ConfigError, nearest


class Wandb:
    """Weights & Biases. Numbers carry their step with them, so that steps done again are welcome."""

    def __init__(self, library: Any, run: _Described, known: str):
        """Begins a run, or goes on with the one of the id ``known``."""
        self._library = library
        self._run = library.init(
            project=run.project or os.environ.get("WANDB_PROJECT") or "jdet",
            name=run.name,
            id=known or None,
            resume="allow",
            config=run.config,
            dir=str(run.folder),
        )
        self.id = str(self._run.id)
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Logs numbers."""
        self._run.log({"step": step, **values})

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Logs images."""
        made = {name: self._library.Image(image) for name, image in images.items()}
        self._run.log({"step": step, **made})

    def close(self, failed: bool) -> None:
        """Ends the run."""
        self._run.finish(exit_code=int(failed))


class MLflow:
    """MLflow, through its client: whatever run is active in this process is left alone."""

    # Entries of a request, characters of a parameter that all servers take.
    _BATCH, _LONGEST = 100, 500

    # A server that does not answer holds the run up: with MLflow's own values for more than four minutes.
    _PATIENCE: ClassVar[dict[str, str]] = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # seconds
    }

    def __init__(self, library: Any, run: _Described, known: str):
        """Begins a run, or goes on with the one of the id ``known``."""
        for name, value in self._PATIENCE.items():
            os.environ.setdefault(name, value)
        self._library, self._client = library, library.MlflowClient()
        self.id = self._resumed(known) if known else ""
        if not self.id:
            name = run.project or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "jdet"
            held = self._client.get_experiment_by_name(name)
            experiment = held.experiment_id if held else self._client.create_experiment(name)
            self.id = str(self._client.create_run(experiment, run_name=run.name).info.run_id)
            params = [
                library.entities.Param(_name(key), str(value)[: self._LONGEST])
                for key, value in flatten(run.config).items()
            ]
            for some in _parts(params, self._BATCH):
                self._client.log_batch(self.id, params=some)
            self._client.log_dict(self.id, run.config, "config.json")

    def _resumed(self, known: str) -> str:
        try:
            self._client.get_run(known)
        except self._library.exceptions.MlflowException:  # it was deleted there
            return ""
        self._client.update_run(known, status="RUNNING")
        return known

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Logs numbers."""
        now = int(time.time() * 1000)
        metric = self._library.entities.Metric
        found = [metric(name, value, now, step) for name, value in values.items()]
        for some in _parts(found, self._BATCH):
            self._client.log_batch(self.id, metrics=some)

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Logs images."""
        for name, image in images.items():
            self._client.log_image(self.id, image, key=name, step=step)

    def close(self, failed: bool) -> None:
        """Ends the run."""
        self._client.set_terminated(self.id, "FAILED" if failed else "FINISHED")


class Trackio:
    """Trackio, which knows runs by their names; the name has a random end, for it to be this run's own."""

    def __init__(self, library: Any, run: _Described, known: str):
        """Begins a run, or goes on with the one of the name ``known``."""
        self._library = library
        self.id = known or f"{run.name}-{secrets.token_hex(3)}"
        self._run = library.init(
            project=run.project or os.environ.get("TRACKIO_PROJECT") or "jdet",
            name=self.id,
            config=run.config,
            resume="allow",
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Logs numbers."""
        self._run.log(dict(values), step=step)

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Logs images."""
        self._run.log({k: self._library.Image(v) for k, v in images.items()}, step=step)

    def close(self, failed: bool) -> None:
        """Ends the run; Trackio has no word for one that failed."""
        self._run.finish()


KNOWN: dict[str, type[Wandb] | type[MLflow] | type[Trackio]] = {
    "wandb": Wandb,
    "mlflow": MLflow,
    "trackio": Trackio,
}
"""By the name of the library, which is the name in ``config.train.loggers`` and of the extra."""


class _Described:
    """What a tracker is told of a run.

    Attributes:
        folder: of the run.
        name: of the folder, after that of all phases where it is one of several.
        project: of the config; "": the tracker's own environment says, else "jdet".
        config: plain values in nested groups.
    """

    def __init__(self, folder: Path, config: ConfigDict):
        self.folder, self.project = folder, config.train.project
        phase = (folder.parent / PHASES).exists()
        self.name = f"{folder.parent.name}-{folder.name}" if phase else folder.name
        self.config = plain(json.loads(config.to_json()))


class Guarded(Writer):
    """A tracker as a writer that never fails: its first error is warned about, and ends it."""

    def __init__(self, name: str, tracker: Any):
        self._name, self._tracker = name, tracker
        self.failed = False

    def _try(self, method: str, *args: Any) -> None:
        if self._tracker is None:
            return
        try:
            getattr(self._tracker, method)(*args)
        except Exception as error:  # of any kind: networks, disks, servers, libraries
            _warn(self._name, error)
            self._tracker = None

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Passes on what is a finite number."""
        numbers = {
            _name(name): float(value)
            for name, value in values.items()
            if isinstance(value, int | float | np.number) and math.isfinite(value)
        }
        if numbers:
            self._try("scalars", step, numbers)

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Passes on images."""
        if images:
            self._try("images", step, {_name(name): image for name, image in images.items()})

    def close(self) -> None:
        """Ends the run there, as a failed one after ``failed`` is set."""
        self._try("close", self.failed)
        self._tracker = None


def libraries(names: Sequence[str]) -> dict[str, Any]:
    """Imports what ``config.train.loggers`` names.

    Raises:
        ConfigError: a name that is none, or a library that is not installed; says how to install it.
    """
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"config.train.loggers={names!r}; it must be names, such as ('wandb',)")
    found = {}
    for name in names:
        if name not in KNOWN:
            raise ConfigError(
                f"config.train.loggers={tuple(names)!r}: there is no {name!r}{nearest(name, KNOWN)}; "
                f"there are {', '.join(KNOWN)}"
            )
        try:
            found[name] = importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(
                f"config.train.loggers={tuple(names)!r}: {name} cannot be imported ({error}); pip install "
                f"{name}, or pip install --editable '.[{name}]' in the clone"
            ) from error
    return found


def check(names: Sequence[str]) -> None:
    """Refuses on all processes what process 0, which alone reports, cannot import.

    Raises:
        ConfigError: as ``libraries``.
    """

    def imported() -> None:
        libraries(names)

    broadcast.from_main(imported)


@contextlib.contextmanager
def loggers_in(folder: Path, config: ConfigDict) -> Iterator[list[Writer]]:
    """The writers that ``config.train.loggers`` names, ended at the end; none but on process 0.

    Args:
        folder: of the run.
        config: complete.

    Raises:
        ConfigError: as ``libraries``, on every process.
    """
    check(config.train.loggers)
    made: list[Guarded] = []
    found = libraries(config.train.loggers) if jax.process_index() == 0 else {}
    for name, library in found.items():
        ids = _ids(folder)
        try:
            tracker = KNOWN[name](library, _Described(folder, config), ids.get(name, ""))
        except Exception as error:  # not logged in, no network, no server
            _warn(name, error)
            continue
        write_json(folder / LOGGERS, {**ids, name: tracker.id})
        made.append(Guarded(name, tracker))
    try:
        yield list(made)
    except BaseException:
        for each in made:
            each.failed = True
        raise
    finally:
        for each in made:
            each.close()


def _ids(folder: Path) -> dict[str, str]:
    try:
        return json.loads((folder / LOGGERS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _warn(name: str, error: Exception) -> None:
    line = next(iter(str(error).splitlines()), "")
    logging.warning(
        "%s failed (%s: %s); the run goes on without it, metrics.jsonl and TensorBoard have everything",
        *(name, type(error).__name__, line),
    )


def _name(name: str) -> str:
    """A name as all trackers accept it: letters of any script, digits and a few signs."""
    return re.sub(r"[^-/\w. ]", "_", name)


def _parts(entries: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for first in range(0, len(entries), size):
        yield entries[first : first + size]
