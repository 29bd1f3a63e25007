#!/usr/bin/env bash
# One host, one or more GPUs: a single process uses all of them. It is started again after a stop by the
# machine (SIGTERM), a crash or a kill; a mistake in the command or the data ends it.
#
#     experiments/launch/one_host.sh --config=experiments/scratchdet_coco.py --workdir=runs/coco
#
# SIGTERM or Ctrl-C to this script saves the current step and ends for good; the same command goes on.
# MAX_STARTS (20) bounds how often it is tried.
set -u
cd "$(dirname "$0")/../.."
stop=0 program=0
trap 'stop=1; kill -TERM "$program" 2>/dev/null' TERM INT
for start in $(seq "${MAX_STARTS:-20}"); do
  "${PYTHON:-.venv/bin/python}" -m jdet.main "$@" --stopped_exit_code=75 &
  program=$!
  code=0
  wait "$program" || code=$?
  while kill -0 "$program" 2>/dev/null; do  # the trap has cut the wait short
    code=0
    wait "$program" || code=$?
  done
  case $code in 0 | 1 | 2 | 130) exit "$code" ;; esac  # done, diverged or failed, a mistake, Ctrl-C
  ((stop)) && exit "$code"
  echo "start $start ended with code $code; again in ${PAUSE:-10} s" >&2
  sleep "${PAUSE:-10}"
done
exit "$code"
