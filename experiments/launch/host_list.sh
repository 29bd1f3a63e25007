#!/usr/bin/env bash
# A list of hosts reached by ssh, one process each, the first of them process 0. When a host is lost or
# preempted, the run goes on from its last checkpoint on those that answer.
#
#     experiments/launch/host_list.sh hosts.txt --config=experiments/scratchdet_coco.py --workdir=/nfs/coco
#
# hosts.txt holds a name or address a line. This checkout (with .venv) lies at the same path on every host,
# and --workdir in a folder that all of them share. train.batch_size divides by the number of hosts; of those
# that answer, as many are taken as divide that number. SIGTERM or Ctrl-C to this script saves the current
# step and ends.
set -u
list=$(realpath "$1")
shift
cd "$(dirname "$0")/../.."
connect=(-o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=15)
mark=/tmp/jdet-$$  # process ids, on each host
stop=0
hosts=()

ask_to_stop() {
  stop=1
  for i in "${!hosts[@]}"; do  # one is enough: they agree on the step
    ssh -n "${connect[@]}" "${hosts[i]}" "kill -TERM \$(cat $mark.$i)" 2>/dev/null && return
  done
}
trap ask_to_stop TERM INT

for start in $(seq "${MAX_STARTS:-20}"); do
  hosts=() listed=0
  while read -r host _; do
    [[ $host && $host != \#* ]] || continue
    ((++listed))
    ssh -n "${connect[@]}" "$host" true && hosts+=("$host")
  done <"$list"
  ((${#hosts[@]})) || { echo "no host of $list answers" >&2; exit 75; }
  while ((listed % ${#hosts[@]})); do unset "hosts[-1]"; done
  all=$(IFS=,; echo "${hosts[*]}")
  echo "start $start on ${#hosts[@]} hosts: $all" >&2
  processes=()
  for i in "${!hosts[@]}"; do
    command="cd $(printf %q "$PWD") && echo \$\$ >$mark.$i && exec"
    command+=" ${PYTHON:-.venv/bin/python} -m jdet.main --hosts=$all --process_id=$i --stopped_exit_code=75"
    ssh -n "${connect[@]}" "${hosts[i]}" "$command $(printf '%q ' "$@")" &
    processes+=($!)
  done
  worst=0
  for process in "${processes[@]}"; do
    code=0
    wait "$process" || code=$?
    while kill -0 "$process" 2>/dev/null; do
      code=0
      wait "$process" || code=$?
    done
    case $code in
      0) ;;
      1 | 2) worst=$code ;;  # failed, or a mistake: not to be tried again
      *) ((worst == 1 || worst == 2)) || worst=$code ;;
    esac
  done
  case $worst in 0 | 1 | 2) exit "$worst" ;; esac
  ((stop)) && exit "$worst"
  sleep "${PAUSE:-10}"
done
exit "$worst"
