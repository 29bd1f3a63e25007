"""Which process this is, from whatever says so."""

import socket

import pytest

from jdet.parallel import cluster
from jdet.parallel.cluster import ProcessSpec
from jdet.types import ConfigError

SLURM = {
    "SLURM_JOB_ID": "4097",
    "SLURM_STEP_NODELIST": "node[003-005,009]",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_NUM_NODES": "4",
}


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    for name in (
        *SLURM,
        "CUDA_VISIBLE_DEVICES",
        "KUBERNETES_SERVICE_HOST",
        "OMPI_MCA_orte_hnp_uri",
    ):
        monkeypatch.delenv(name, raising=False)


def test_flags():
    assert cluster.find() is None
    assert cluster.find(coordinator="a:1", num_processes=1, process_id=0) is None
    assert cluster.find("", "a:1234", 3, 2) == ProcessSpec("a:1234", 3, 2)
    assert cluster.find("", "a", 2, 0).coordinator == f"a:{cluster.PORT}"
    assert cluster.find("", "[fe80::1]:99", 2, 0).coordinator == "[fe80::1]:99"
    assert cluster.split_address("[fe80::1]:99") == ("fe80::1", 99)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("", "a:1", None, 1), "--num_processes must be given"),
        (("", "", 2, None), "--coordinator and --process_id must be given"),
        (("", "a:1", 2, 2), "--process_id=2; of 2 processes"),
        (("", "a:port", 2, 1), "'a:port' is no address"),
        (("a.invalid,b.invalid", "", None, None), "is not among them"),
        (("127.0.0.1,127.0.0.1", "", None, None), "is listed 2 times; say which"),
        (("a,b", "", 3, 0), "--num_processes=3, but --hosts lists 2"),
        ((" , ", "", None, None), "names no host"),
        (("@nowhere.txt", "", None, None), "nowhere.txt"),
        (("auto", "", None, None), "finds no TPU pod, SLURM step"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        cluster.find(*arguments)


def test_a_host_finds_itself_in_a_list(tmp_path):
    here = socket.gethostname()
    assert cluster.find(f"a.invalid,{here}") == ProcessSpec(f"a.invalid:{cluster.PORT}", 2, 1)
    assert cluster.find("127.0.0.1:77,a.invalid") == ProcessSpec("127.0.0.1:77", 2, 0)
    assert cluster.find("127.0.0.1,127.0.0.1", process_id=1).index == 1
    file = tmp_path / "hosts"
    file.write_text(f"# ours\na.invalid\n\nb.invalid  # spare\n{here}\n")
    assert cluster.find(f"@{file}", "b.invalid:5") == ProcessSpec("b.invalid:5", 3, 2)
    assert cluster.find(here) is None


def test_a_step_of_slurm(monkeypatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    found = cluster.find("auto")
    assert found is not None and found[1:] == (4, 2, None)  # alone on its host: all accelerators
    host, port = cluster.split_address(found.coordinator)
    assert host == "node003" and 61440 <= port < 65536

    monkeypatch.setenv("SLURM_NTASKS", "8")  # two processes a host share its accelerators
    monkeypatch.setenv("SLURM_LOCALID", "1")
    assert cluster.find("auto").local_device_ids == (1,)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")  # unless each has been given its own
    assert cluster.find("auto").local_device_ids is None
    assert cluster.find("auto", "other:9").coordinator == "other:9"
