"""Kills a small real run at random moments, and requires the bits of one that was left alone.

python -m tests.soak.kills --count=1000 [--seed=0] [--kinds=kill,term,…] [--only=SEED]

A trial is a run that is disturbed one to three times, then left to its end. All of it follows from a seed:
what is done, at which step and how long after it. ``--only=SEED`` does one trial again; how processes are
scheduled is not in the seed, so a failure may take a few tries.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.soak import tiny
from tests.soak.programs import Fork, Pair, difference, outcome, steps_logged, wait

KINDS = ("kill", "term", "stop", "full_disk", "file_limit", "torn", "process")
PATIENCE = 300.0


class Room:
    """A folder with little room, on a file system of its own where this user may mount one."""

    def __init__(self, folder, size):
        folder.mkdir()
        self._folder = folder
        self.mounted = _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))

    def grow(self):
        if self.mounted:
            assert _mount("-o", "remount,size=64m", str(self._folder))

    def close(self):
        if self.mounted:
            subprocess.run(["umount", "-l", str(self._folder)], check=True)


def _mount(*arguments):
    try:
        return subprocess.run(["mount", *arguments], capture_output=True).returncode == 0
    except OSError:
        return False


def disturb(kind, rng, workdir, log, told):
    """Begins the run, or goes on with it, and disturbs it.

    Returns:
        The kind of what happened to it; None where it had ended before, or noticed nothing of a limit.
    """
    step, delay = rng.randrange(tiny.STEPS), rng.random() ** 2 * 0.5
    early = rng.random() < 0.25  # while it starts or resumes
    limit = rng.choice((2, 8, 20, 50)) * 1024 if kind == "file_limit" else 0
    made = Pair(workdir, log, rng.randrange(2)) if kind == "process" else Fork(workdir, log, limit)
    begun, seconds = time.monotonic(), rng.random() * 3
    while not made.ended():
        waited = time.monotonic() - begun
        if waited > seconds if early else steps_logged(workdir) > step:
            break
        if waited > PATIENCE:
            made.signal(signal.SIGKILL)
            raise TimeoutError(f"step {step} is not reached")
        time.sleep(0.002)
    time.sleep(delay)
    when = f"{seconds:.1f} s after its start" if early else f"{delay:.2f} s after step {step}"
    told.append(f"{kind} {when}" + (f", files up to {limit} bytes" if limit else ""))
    met = True
    if kind in ("kill", "torn", "process"):
        met = made.signal(signal.SIGKILL)
    elif kind == "term":
        met = made.signal(signal.SIGTERM)
    elif kind == "stop":
        met = made.signal(signal.SIGSTOP)
        time.sleep(rng.random())
        made.signal(signal.SIGCONT if rng.random() < 0.5 else signal.SIGKILL)
    code = wait(made, PATIENCE)
    told[-1] += f", exit code {code}" + ("" if met else ", ended before")
    # One that is asked to stop, or goes on after a stop, ends with 0; one that was killed does not.
    met = met and (kind in ("term", "stop") or code != 0)
    if kind == "torn":
        torn, text = _tear(rng, workdir)
        told.append(text)
        return "torn" if torn else "kill" if met else None
    return kind if met else None


def _tear(rng, workdir):
    """Shortens or changes a file of the newest checkpoint, where an older one is left.

    Returns:
        Whether it did, and what in words.
    """
    folder = workdir / "checkpoints"
    steps = sorted((x for x in folder.glob("*") if x.name.isdecimal()), key=lambda x: int(x.name))
    if len(steps) < 2:
        return False, "nothing torn: there is one checkpoint at most"
    path = rng.choice([x for x in sorted(steps[-1].rglob("*")) if x.is_file()])
    data = bytearray(path.read_bytes())
    place = rng.randrange(len(data) or 1)
    if rng.random() < 0.5 or not data:
        path.write_bytes(data[:place])
        return True, f"{path.relative_to(folder)} cut to {place} bytes"
    data[place] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return True, f"{path.relative_to(folder)} changed at byte {place}"


def trial(seed, kinds, folder, expected):
    """One run, disturbed and left to its end.

    Returns:
        Kinds of what happened; what is wrong at the end, "" where nothing is; and the story.
    """
    rng = random.Random(seed)
    kind = rng.choice(kinds)
    tried, done, told = [], [], []
    workdir, log = folder / f"{seed}" / "run", folder / f"{seed}.log"
    room = Room(
        workdir.parent, f"{rng.choice((60, 120, 200, 400))}k" if kind == "full_disk" else "64m"
    )
    try:
        for _ in range(rng.choice((1, 1, 2, 3))):
            if kind == "full_disk" and not room.mounted:
                kind = "file_limit"
            tried.append(kind)
            done += filter(None, [disturb(kind, rng, workdir, log, told)])
            if kind != "process":
                kind = rng.choice([x for x in kinds if x not in ("process", "full_disk")] or [kind])
        room.grow()
        several = "process" in tried
        code = wait(Pair(workdir, log) if several else Fork(workdir, log), PATIENCE)
        wrong = f"it ends with {code}" if code else ""
        if not wrong:
            outcome(workdir, folder / "found.npz")
            wrong = difference(folder / "found.npz", expected[several])
    except (TimeoutError, AssertionError) as error:
        wrong = str(error)
    finally:
        room.close()
    if wrong:
        last = log.read_text(errors="replace").splitlines()[-3:] if log.exists() else []
        wrong = f"{wrong}; it said: {' | '.join(last)}"
    shutil.rmtree(workdir.parent, ignore_errors=True)
    return done, wrong, "; ".join(told)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--count", type=int, default=1000, help="disturbances, at least")
    parser.add_argument("--seed", type=int, default=0, help="of the first trial; the others follow")
    parser.add_argument("--only", type=int, default=None, help="one trial")
    parser.add_argument("--kinds", default=",".join(KINDS), help="of disturbances")
    args = parser.parse_args()
    kinds, counts, lost, begun = args.kinds.split(","), Counter(), {}, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="jdet-soak-") as name:
        folder, expected = Path(name), {}
        for several in {kind == "process" for kind in kinds}:
            workdir, log = folder / f"whole{several}", folder / "whole.log"
            code = wait((Pair if several else Fork)(workdir, log), PATIENCE)
            assert code == 0, log.read_text()
            expected[several] = folder / f"expected{several}.npz"
            outcome(workdir, expected[several])
        seed = args.seed if args.only is None else args.only
        while sum(counts.values()) < args.count:
            done, wrong, story = trial(seed, kinds, folder, expected)
            counts.update(done)
            print(f"{'FAIL' if wrong else 'ok  '} seed {seed}: {story} {wrong}", flush=True)
            if wrong:
                lost[seed] = wrong
            if args.only is not None:
                break
            seed += 1
    hours = (time.monotonic() - begun) / 3600
    listed = ", ".join(f"{kind} {number}" for kind, number in counts.most_common())
    print(f"{sum(counts.values())} disturbances ({listed}) in {hours:.2f} h; {len(lost)} runs lost")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
