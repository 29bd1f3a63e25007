"""The model card of a certificate, in Markdown (Mitchell et al., FAT* 2019): what people ask of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MANY = 40
"""Classes, metrics and folders that are listed."""


def render(certificate: Mapping[str, Any], name: str) -> str:
    """The card.

    Args:
        certificate: of a run.
        name: of the certificate's file, for the command that verifies it.
    """
    config, run, data = certificate["config"], certificate["run"], certificate["data"]
    train, model = config["train"], config["model"]
    steps = f"{run.get('step', '?')} of {run.get('steps', '?')}"
    parts = [
        f"# {model['name']} of {len(certificate['classes'])} classes",
        "An object detector trained by jdet. It finds: " + _listed(certificate["classes"]) + ".",
        "## What it was trained on",
        _table(
            ("", "images", "objects", "Merkle root"),
            [
                (role, each["images"], each["objects"], f"`{each['root']}`")
                for role, each in data.items()
            ],
        ),
        "## Licences of the images",
        _licences(certificate["licences"]),
        "## How it was trained",
        _table(
            ("", ""),
            [
                ("weights at the start", _start(certificate["began_with"])),
                ("input", f"{config['input_size']} pixels, {config['resize']['name']}"),
                ("steps", f"{steps}, {train['batch_size']} images each ({run.get('status', '?')})"),
                ("optimiser", f"{config['optimizer']['name']}, rate {config['optimizer']['lr']:g}"),
                ("seed", config["seed"]),
                ("made with", _made_with(certificate)),
            ],
        ),
        "## How good it is",
        _metrics(certificate["metrics"]),
        "These are numbers of the evaluation images above and say little about images of another kind: "
        "other cameras, places, sizes of objects or classes. Objects of other classes are not found, or "
        "are taken for one of these.",
        "## How to check this",
        f"```\npython -m jdet.verify {name} --segments=3\n```",
        f"The certificate `{certificate['id']}` names every image, label, setting and file of code by its "
        "digest; the command takes them again and trains parts of the run again.",
    ]
    return "\n\n".join(parts) + "\n"


def _licences(found: list[dict[str, Any]]) -> str:
    if not found:
        return "The images are made by the data source; there are no files."
    rows = [
        (f"`{each['folder']}`", each["licence"] or "**not stated**", each["source"] or "")
        for each in found[:_MANY]
    ]
    return _table(("folder", "licence", "according to"), rows)


def _start(began_with: list[dict[str, Any]]) -> str:
    runs = [f"{each['run']}, step {each['step']}" for each in began_with if "run" in each]
    return "of " + ", ".join(runs) if runs else "random: no weights of another model"


def _made_with(certificate: Mapping[str, Any]) -> str:
    if not certificate["stretches"]:
        return "an earlier version of jdet, which did not say"
    parts = []
    for each in certificate["stretches"]:
        versions, machine = each["versions"], each["machine"]
        parts.append(
            f"from step {each['first']}: jax {versions.get('jax', '?')}, {machine['devices']} × "
            f"{machine['device_kind']}, jdet {versions.get('commit', each['code'][:12])}"
        )
    return "; ".join(parts)


def _metrics(metrics: Mapping[str, float]) -> str:
    if not metrics:
        return "It was not evaluated."
    rows = [(name, "–" if value is None else f"{value:.4g}") for name, value in metrics.items()]
    more = f"\n\nand {len(rows) - _MANY} more in the certificate" if len(rows) > _MANY else ""
    return _table(("metric", "value"), rows[:_MANY]) + more


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MANY} more" if len(names) > _MANY else ""
    return ", ".join(map(_cell, names[:_MANY])) + more


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(value: Any) -> str:
    """Text of a cell, in which a bar or a line break would end it."""
    return " ".join(str(value).replace("|", "\\|").split())
