"""A certificate in which a key is missing or of another kind is refused by that key's name."""

import copy
import json

import pytest

from jdet.certify import certificate
from jdet.types import ConfigError


def certificate_made():
    """A small one with all that verifying reads, of no run."""
    data = {"images": 1, "objects": 1, "root": "0" * 64}
    stretch = {"first": 0, "code": "0" * 64, "versions": {}, "machine": {"devices": 1}}
    body = {
        **{"format": 1, "run": {"path": "x"}, "classes": ["cat"], "config": {"seed": 0}},
        **{"data": {"train": data, "eval": {**data}}, "code": {"a.py": "0" * 64}, "modules": {}},
        **{"stretches": [stretch], "metrics": {"a": None}},
        "licences": [{"folder": "x", "licence": "MIT", "source": "LICENSE", "sha256": "0" * 64}],
        "began_with": [{"name": "init_from", "run": "y", "step": 2}, {"name": "other"}],
        "checkpoints": {"2": {"files": {"about.json": "0" * 64}, "metrics": {}}},
    }
    return {"id": certificate.digest(body), **body}


def read(folder, content):
    (folder / "certificate.json").write_text(content)
    return certificate.read(folder / "certificate.json")


def test_what_certify_writes_is_read(tmp_path):
    made = certificate_made()
    assert read(tmp_path, json.dumps(made)) == made


KEYS = (
    *("id", "run", "classes", "data", "licences", "config", "code", "modules", "stretches"),
    *("began_with", "checkpoints", "metrics", "run.path", "classes.0", "data.train", "data.eval"),
    *("data.eval.root", "code.a.py", "licences.0", "licences.0.source", "licences.0.sha256"),
    *("stretches.0", "stretches.0.first", "stretches.0.code", "stretches.0.versions"),
    *("stretches.0.machine", "began_with.0", "began_with.0.run", "began_with.0.step"),
    *("checkpoints.2", "checkpoints.2.files", "checkpoints.2.files.about.json"),
)


@pytest.mark.parametrize("key", KEYS)
def test_a_value_of_another_kind_is_named(tmp_path, key):
    made = certificate_made()
    *groups, last = key.replace(".py", "/py").replace(".json", "/json").split(".")
    place = made
    for group in groups:
        place = place[int(group) if isinstance(place, list) else group]
    last = int(last) if isinstance(place, list) else last.replace("/", ".")
    assert last in range(len(place)) if isinstance(place, list) else last in place
    place[last] = True
    with pytest.raises(ConfigError, match=f"has no usable '{key}'; name one"):
        read(tmp_path, json.dumps(made))
    optional = key.startswith(("code.", "checkpoints.2.files.")) or key in (
        *("licences.0.sha256", "began_with.0.run"),
    )
    if isinstance(place, dict) and not optional:
        del place[last]
        with pytest.raises(ConfigError, match="has no usable"):
            read(tmp_path, json.dumps(made))


def nested(levels):
    made = group = certificate_made()["config"]
    for _ in range(levels):
        group["a"] = group = {}
    return made


@pytest.mark.parametrize(
    "key, value, said",
    [
        ("checkpoints", {}, "has no usable 'checkpoints.STEP'"),
        ("checkpoints", {"../2": {"files": {}}}, "has no usable 'checkpoints.../2'"),
        ("checkpoints", {"02": {"files": {}}}, "has no usable 'checkpoints.02'"),
        ("checkpoints", {"9" * 5000: {"files": {}}}, "has no usable 'checkpoints.9"),
        ("config", nested(200), "has no usable 'config'"),
        ("metrics", {"a": float("inf")}, "cannot be read"),
        ("metrics", {"\ud800": 1}, "cannot be read"),
    ],
)
def test_what_could_not_be_verified_is_refused(tmp_path, key, value, said):
    made = copy.deepcopy(certificate_made())
    made[key] = value
    with pytest.raises(ConfigError, match=said):
        read(tmp_path, json.dumps(made))


def test_leaves_of_another_kind_are_none(tmp_path):
    path = tmp_path / "certificate.json"
    certificate.leaves_file(path).write_text('["train", ["a"], "00", "11"]\n')
    assert certificate.read_leaves(path) is None
