"""Launch files with a cluster that is pretended, and a fake model: killed, stopped, started again."""

import json
import os
import random
import re
import signal
import subprocess
import sys

import pytest
import yaml

from jdet.train import loop
from jdet.train.checkpoints import checkpoint
from tests.harness import ROOT, child_environment
from tests.parallel.test_supervisor import free_port
from tests.train import fake

LAUNCH = ROOT / "experiments" / "launch"

PYTHON = f"""#!/bin/sh
exec {sys.executable} {ROOT}/tests/parallel/fake_program.py "$@"
"""

SRUN = """#!/bin/bash
[[ $1 == --kill-on-bad-exit=0 ]] && shift
export SLURM_STEP_NODELIST=localhost SLURM_NTASKS=2 SLURM_STEP_NUM_NODES=2 SLURM_LOCALID=0
SLURM_PROCID=0 "$@" & first=$!
SLURM_PROCID=1 "$@" & second=$!
wait $first; a=$?; wait $second; b=$?
exit $((a > b ? a : b))
"""

SSH = """#!/bin/bash
while [[ $1 == -* ]]; do [[ $1 == -o ]] && shift; shift; done
shift
exec bash -c "$*"
"""


@pytest.fixture
def pretend(tmp_path):
    """A folder of commands in front of PATH, and the environment with it."""
    commands = tmp_path / "bin"
    commands.mkdir()
    scripts = {"python": PYTHON, "srun": SRUN, "ssh": SSH, "scontrol": 'echo "scontrol $*"\n'}
    for name, text in scripts.items():
        (commands / name).write_text(text if text.startswith("#!") else f"#!/bin/bash\n{text}")
        (commands / name).chmod(0o755)
    extra = {
        "PATH": f"{commands}:{os.environ['PATH']}",
        "PYTHON": str(commands / "python"),
        "PAUSE": "0",
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "1",
        "JDET_ENVIRONMENT": "off",
    }
    return child_environment(**extra)


def launch(file, *arguments, environment):
    done = subprocess.run(
        ["bash", str(LAUNCH / file), *map(str, arguments)],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    return done.returncode, done.stdout


def losses(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], pytest.approx(line["loss"], rel=1e-4)) for line in lines]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Steps and losses of the fake run on one device, without a break."""
    folder = tmp_path_factory.mktemp("whole")
    steps = dict(train__steps=16, train__log_every=1)
    loop.train(
        fake.config(**steps),
        folder,
        detector=fake.FakeDetector("sync"),
        train_stream=fake.stream,
        num_examples=20,
    )
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines]


CONFIG = "--config=experiments/quickstart.py"


def test_slurm_stops_queues_again_and_ends(pretend, tmp_path, whole):
    workdir = tmp_path / "run"
    job = {"SLURM_JOB_ID": str(random.randrange(10**6)), "SLURM_SUBMIT_DIR": str(ROOT)}
    first = pretend | job | {"STOP_AT": "1:4"}
    code, text = launch("slurm.sh", CONFIG, f"--workdir={workdir}", environment=first)
    assert f"scontrol requeue {job['SLURM_JOB_ID']}" in text and code == 0, text
    stopped = json.loads((workdir / "run.json").read_text())
    assert stopped["status"] == "interrupted" and "ended with code 75" in text
    assert max(checkpoint.steps_in(workdir / "checkpoints")) == stopped["step"] < 16

    code, text = launch("slurm.sh", CONFIG, f"--workdir={workdir}", environment=pretend | job)
    assert code == 0 and "scontrol" not in text, text
    assert f"resuming from step {stopped['step']}" in text
    assert losses(workdir) == whole


def test_hosts_of_a_list_go_on_when_one_is_lost_and_so_does_one_alone(pretend, tmp_path, whole):
    hosts, workdir = tmp_path / "hosts.txt", tmp_path / "run"
    hosts.write_text(f"# two of this machine\nlocalhost:{free_port()}\nlocalhost\n")
    lost = pretend | {"KILL_AT": "1:8", "MAX_STARTS": "1"}
    code, text = launch("host_list.sh", hosts, CONFIG, f"--workdir={workdir}", environment=lost)
    assert code in (75, 128 + signal.SIGKILL), text
    assert re.search(
        r"error: process 1 of 2 \(host .*, pid \d+\) was ended by SIGKILL; this pro", text
    )
    saved = max(checkpoint.steps_in(workdir / "checkpoints"))
    assert saved >= 4

    one = tmp_path / "hosts1.txt"
    one.write_text("localhost\n")
    code, text = launch("host_list.sh", one, CONFIG, f"--workdir={workdir}", environment=pretend)
    assert code == 0 and f"resuming from step {saved}" in text, text
    assert losses(workdir) == whole


def test_one_host_is_started_again_until_it_is_done(tmp_path):
    program = tmp_path / "python"
    program.write_text(
        "#!/bin/bash\n"
        f"echo start >> {tmp_path}/log\n"
        f"case $(wc -l < {tmp_path}/log) in 1) kill -9 $$ ;; 2) exit 75 ;; 3) exit ${{LAST:-0}} ;; esac\n"
    )
    program.chmod(0o755)
    quick = {**os.environ, "PYTHON": str(program), "PAUSE": "0"}
    for last, starts in (("0", 3), ("2", 3), ("75", 4)):
        (tmp_path / "log").unlink(missing_ok=True)
        code, _ = launch("one_host.sh", "--workdir=x", environment=quick | {"LAST": last})
        assert code == (int(last) if starts == 3 else 0)
        assert len((tmp_path / "log").read_text().splitlines()) == starts


def test_one_host_stops_for_good_when_asked(tmp_path):
    program = tmp_path / "python"
    program.write_text("#!/bin/bash\ntrap 'exit 75' TERM\necho up\nwhile :; do sleep 0.1; done\n")
    program.chmod(0o755)
    script = subprocess.Popen(
        ["bash", str(LAUNCH / "one_host.sh"), "--workdir=x"],
        env={**os.environ, "PYTHON": str(program), "PAUSE": "0"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert script.stdout is not None and script.stdout.readline() == "up\n"
    script.send_signal(signal.SIGTERM)
    rest, _ = script.communicate(timeout=60)
    assert script.returncode == 75 and not rest


PARSE = """
import sys
from jdet import cli, main
from jdet.parallel import cluster

main.define_flags()
flags = main.FLAGS
def say():
    hosts = flags.hosts
    here = "auto" if hosts == "auto" else cluster.find(
        hosts, flags.coordinator, flags.num_processes, flags.process_id
    )
    print(flags.workdir, flags.stopped_exit_code, here, flags.config.train.batch_size)
cli.start(say)
"""


@pytest.mark.parametrize("name", ["jobset_gpu.yaml", "jobset_tpu.yaml"])
def test_jobsets_start_as_many_processes_as_they_say(name):
    (whole,) = yaml.safe_load_all((LAUNCH / name).read_text())
    assert (whole["apiVersion"], whole["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (group,) = whole["spec"]["replicatedJobs"]
    job = group["template"]["spec"]
    assert job["completionMode"] == "Indexed" and job["backoffLimit"] == 0
    (rule,) = job["podFailurePolicy"]["rules"]
    (container,) = job["template"]["spec"]["containers"]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    python, m, module, *flags = container["command"]
    assert (python, m, module) == ("python", "-m", "jdet.main")
    flags = [flag.replace("$(JOB_COMPLETION_INDEX)", "3") for flag in flags]
    flags = [flag.replace("scratchdet_coco.py:root=/share/data", "quickstart.py") for flag in flags]
    done = subprocess.run(
        [sys.executable, "-c", PARSE, *flags], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    processes = job["parallelism"]
    assert processes == job["completions"]
    if "gpu" in name:
        service = whole["metadata"]["name"]
        address = f"{service}-{group['name']}-0-0.{service}:8476"
        assert f"coordinator='{address}', count={processes}, index=3" in done.stdout
    else:
        rows, columns = map(
            int,
            job["template"]["spec"]["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"),
        )
        chips = container["resources"]["limits"]["google.com/tpu"]
        assert processes * chips == rows * columns and " auto " in done.stdout
    assert done.stdout.startswith("/share/runs/coco 75 ")
