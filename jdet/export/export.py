"""Exports a run: makes the file, holds it against the run, and only then gives it its name."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jdet.analyse import thresholds
from jdet.atomic_files import FULL, plain, what_is_full, write_bytes
from jdet.evaluation.predictor import Predictor
from jdet.export import accuracy, artifact, manifest, parity
from jdet.export.onnx import environment, model
from jdet.export.onnx.precision import SINGLE, Precision
from jdet.export.program import Program
from jdet.types import ConfigError, ImageDetections

Detect = Callable[[np.ndarray, str], ImageDetections]
"""An image [h, w, C] and its name to what was found in it."""


class Ready(NamedTuple):
    """A run that is about to be exported.

    Attributes:
        predictor: of the run, for one image at a time.
        program: what the file computes.
        thresholds: float64 [K], lowest score of each class.
        manifest: what the file says of itself.
        precision: of the network.
    """

    predictor: Predictor
    program: Program
    thresholds: np.ndarray
    manifest: dict[str, Any]
    precision: Precision = SINGLE


class Form(NamedTuple):
    """A kind of file.

    Attributes:
        suffix: of its name.
        make: of a run, a function from manifests to the bytes of the file.
        opened: of these bytes, what finds objects with them, as a context.
    """

    suffix: str
    make: Callable[[Ready], Callable[[dict[str, Any]], bytes]]
    opened: Callable[[bytes, str], contextlib.AbstractContextManager[Detect]]


def _stablehlo(ready: Ready) -> Callable[[dict[str, Any]], bytes]:
    variables = ready.predictor.variables
    program = artifact.make(ready.program, variables, len(ready.thresholds))
    return lambda told: artifact.pack(program, variables, told)


def _onnx(ready: Ready) -> Callable[[dict[str, Any]], bytes]:
    variables = ready.predictor.variables
    graph = model.make(ready.program, variables, ready.thresholds, ready.precision)
    return lambda told: model.pack(graph, told)


FORMS = {
    "stablehlo": Form(
        ".stablehlo", _stablehlo, lambda data, _: contextlib.nullcontext(artifact.Artifact(data))
    ),
    "onnx": Form(".onnx", _onnx, lambda data, python: environment.Runner(python, data)),
}

CHOICES = (*FORMS, "both")


def export(
    run: str | os.PathLike[str],
    out: Path,
    *,
    form: str = "stablehlo",
    step: int | str = "latest",
    phase: str = "",
    score: float | str = "auto",
    images: Sequence[str] = (),
    check: int = 16,
    force: bool = False,
    onnx_python: str = "",
    pixels: float = parity.PIXELS,
    precision: str = SINGLE.name,
    calibrate: int = 32,
    calibrate_on: Sequence[str] = (),
    ap_images: int = -1,
    notify: Callable[[str], None] = print,
) -> int:
    """Exports a run.

    Args:
        run: folder of it.
        out: file to write; its suffix may be left out.
        form: one of ``CHOICES``.
        step: of the checkpoint; a number, "latest" or "best".
        phase: of a run with phases, as in ``Predictor``.
        score: lowest score to report, as in ``jdet.predict``.
        images: files and folders to compare on; none: the run's evaluation split, or random images.
        check: how many to compare on.
        force: replace a file that is there.
        onnx_python: interpreter with onnxruntime; "": this one, or one that is made and kept.
        pixels: largest difference of a box's coordinate that is let through, pixels of the image.
        precision: of the network of an ONNX file, one of ``precision.CHOICES``. Of less than "float32" the
            differences are told, and let through.
        calibrate: images that say what the layers of "int8" are given.
        calibrate_on: files and folders of them; none: the run's training split.
        ap_images: of the evaluation split, on which the metrics of "float16" and "int8" are measured,
            before and after; below 0: all, 0: none.
        notify: is told what is done.

    Returns:
        0; 1 where a file and the run differ by more than the limits, in which case none is written.

    Raises:
        ConfigError: the run cannot be exported, finds nothing to compare, or a file cannot be written.
        CheckpointError: there is no such checkpoint.
        DataError: an image to compare on cannot be read, or is not like those of the training.
    """
    _check_precision(form, precision)
    forms = [each for name, each in FORMS.items() if form in (name, "both")]
    paths = {form: _path(out, form.suffix) for form in forms}
    for path in paths.values():
        _check_free(path, force)
    thresholds.check(score)
    python = environment.python(onnx_python, notify) if FORMS["onnx"] in forms else ""
    ready = _ready(run, step, phase, score)
    notify(ready.manifest["thresholds_from"])
    lowered = precision != SINGLE.name
    if lowered:
        ready = _lowered(ready, python, precision, calibrate, calibrate_on, ap_images, notify)
    done: dict[Path, bytes] = {}
    for each, path in paths.items():
        started = time.monotonic()
        pack = each.make(ready)
        notify(
            f"{path.name}: made in {time.monotonic() - started:.1f} s; running it beside the run"
        )
        with each.opened(pack(ready.manifest), python) as detect:
            found, which = _compared(ready, detect, images, check, notify, pixels)
        notify(f"{path.name}, {which}: {found}")
        _check_compared(path, found, which)
        if not lowered and not found.within(pixels):
            notify(
                f"{path} is not written: the limits are {pixels:g} px, {parity.SCORE:g} of a score "
                f"and {parity.MASK:g} of a mask's pixels. Boxes of large objects can differ by more than "
                "0.001 px by rounding alone; --pixels=0.01 lets that through"
            )
            return 1
        limit = None if lowered else pixels
        told = plain({"on": which, "limit": limit, **found._asdict()})
        done[path] = pack({**ready.manifest, "parity": told})
    for path, data in done.items():
        _write(path, data)
        notify(f"{path}: {len(data) / 1e6:.1f} MB")
    return 0


def _path(out: Path, suffix: str) -> Path:
    """Where a file goes; a suffix of another kind of file is replaced."""
    known = out.suffix in {form.suffix for form in FORMS.values()}
    return out.with_suffix(suffix) if known else out.with_name(out.name + suffix)


def _ready(run: str | os.PathLike[str], step: int | str, phase: str, score: float | str) -> Ready:
    predictor = Predictor(run, step=step, batch_size=1, phase=phase)
    lowest, said = thresholds.of_run(predictor.folder, predictor.class_names, score, predictor.step)
    described = manifest.describe(predictor, lowest, said, int(predictor.step))
    return Ready(predictor, Program.of(predictor), lowest, described)


def _check_precision(form: str, precision: str) -> None:
    if precision != SINGLE.name and form != "onnx":
        raise ConfigError(
            f"--precision={precision} is for ONNX files alone; ask for one with --format=onnx"
        )


def _lowered(
    ready: Ready,
    python: str,
    precision: str,
    calibrate: int,
    calibrate_on: Sequence[str],
    ap_images: int,
    notify: Callable[[str], None],
) -> Ready:
    """The same in a lower precision, whose metrics are measured beside those of single precision.

    Raises:
        ConfigError: there are no images to calibrate on or to measure on.
    """
    predictor, told = ready.predictor, {"numbers": precision}
    source = accuracy.check(predictor) if ap_images else None
    chosen = Precision(precision)
    if precision == "int8":
        images = accuracy.training_images(predictor, calibrate_on, calibrate)
        shown = [image for _, image in images]
        observe = functools.partial(environment.observe, python)
        ranges = model.ranges(ready.program, predictor.variables, shown, observe)
        notify(f"int8: {len(ranges)} layers measured on {len(shown)} images")
        chosen = Precision(precision, ranges=ranges)
        told |= {"calibrated_on": len(shown), "layers": len(ranges)}
    if source is not None:
        sides = {}
        for side, numbers in (("before", SINGLE), ("after", chosen)):
            every = np.zeros(len(ready.thresholds))
            open_all = ready._replace(thresholds=every, precision=numbers)
            data = _onnx(open_all)({**ready.manifest, "thresholds": list(every)})
            with FORMS["onnx"].opened(data, python) as detect:
                sides[side] = accuracy.metrics(predictor, detect, source, ap_images)
        notify(accuracy.said(sides["before"], sides["after"], precision))
        told |= sides
    return ready._replace(precision=chosen, manifest={**ready.manifest, "precision": plain(told)})


def _compared(
    ready: Ready,
    detect: Detect,
    paths: Sequence[str],
    count: int,
    notify: Callable[[str], None],
    pixels: float,
) -> tuple[parity.Difference, str]:
    images, which = parity.images_of(ready.predictor, paths, count)
    found = parity.compare(ready.predictor, ready.thresholds, detect, images, notify, pixels)
    return found, which


def _check_compared(path: Path, found: parity.Difference, which: str) -> None:
    """Refuses a comparison in which neither side found anything.

    Raises:
        ConfigError: names the images.
    """
    if not found.objects and not found.missing:
        raise ConfigError(
            f"{path} is not written, since nothing was compared: the run finds no object in {which}; "
            "name images that have some with --images=, or a lower threshold, such as --score=0.01"
        )


def _check_free(path: Path, force: bool) -> None:
    """Refuses a file that is there before any work is done.

    Raises:
        ConfigError: names it.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name a file with --out=")
    if path.exists() and not force:
        raise ConfigError(
            f"{path} exists; name another file with --out=, or replace it with --force"
        )


def _write(path: Path, data: bytes) -> None:
    """Writes a file as a whole or not at all.

    Raises:
        ConfigError: there is no room, or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data)
    except OSError as error:
        full = error.errno in FULL
        why = what_is_full(error, path.parent) if full else f"{error.strerror or error}"
        raise ConfigError(f"{path} cannot be written: {why}") from error
