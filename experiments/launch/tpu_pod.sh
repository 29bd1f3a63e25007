#!/usr/bin/env bash
# A TPU pod slice of spot VMs: created, set up, trained on with all its workers, and created again whenever it
# is preempted, until the run is complete.
#
#     export ZONE=us-west4-a TYPE=v5litepod-256 RUNTIME=v2-alpha-tpuv5-lite NFS=10.0.0.2:/share REPO=https://…/jdet.git
#     experiments/launch/tpu_pod.sh NAME --config=experiments/scratchdet_coco.py --workdir=/mnt/share/coco
#
# NFS is a Filestore share; it is mounted at /mnt/share on every worker and holds data and workdir. Try the
# configuration first: python -m jdet.preflight --config=… --topology=v5e:16x16
set -eu
name=$1
shift
: "${ZONE:?}" "${TYPE:?such as v5litepod-256}" "${RUNTIME:?such as v2-alpha-tpuv5-lite}" "${NFS:?}" "${REPO:?}"

tpu() { gcloud compute tpus "$@" --zone="$ZONE" --quiet; }

everywhere() { tpu tpu-vm ssh "$name" --worker=all --command="$1"; }

state() { tpu queued-resources describe "$name" --format='value(state.state)' 2>/dev/null || echo NONE; }

create() {
  tpu queued-resources delete "$name" --force || true
  tpu queued-resources create "$name" --node-id="$name" --accelerator-type="$TYPE" \
    --runtime-version="$RUNTIME" --spot
  until [[ $(state) == ACTIVE ]]; do
    case $(state) in FAILED | SUSPENDED | NONE) return 1 ;; esac
    sleep "${PAUSE:-30}"
  done
  everywhere "sudo apt-get -qq install -y nfs-common && sudo mkdir -p /mnt/share &&
    sudo mount -o nolock $NFS /mnt/share && git clone -q $REPO jdet && cd jdet && make setup &&
    .venv/bin/pip install -q 'jax[tpu]'"
}

for start in $(seq "${MAX_STARTS:-50}"); do
  if [[ $(state) != ACTIVE ]]; then
    create || { sleep "${PAUSE:-30}"; continue; }
  fi
  # gcloud mixes its own failures with those of the workers, so worker 0 keeps the code of the run.
  everywhere "cd jdet && rm -f /tmp/jdet.code; .venv/bin/python -m jdet.main --hosts=auto \
    --stopped_exit_code=75 $(printf '%q ' "$@"); echo \$? >/tmp/jdet.code" || true
  code=$(tpu tpu-vm ssh "$name" --worker=0 --command="cat /tmp/jdet.code" 2>/dev/null || echo lost)
  case $code in
    0)
      tpu queued-resources delete "$name" --force
      exit
      ;;
    1 | 2)
      echo "failed with code $code; the slice is left as it is" >&2
      exit "$code"
      ;;
  esac
  echo "start $start ended with code $code; again" >&2
done
exit 75
