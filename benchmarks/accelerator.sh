#!/usr/bin/env bash
# Measures jdet on the accelerator of this machine, within ten minutes, and writes Markdown.
#
#   benchmarks/accelerator.sh [FOLDER]        # default runs/accelerator; FOLDER/RESULTS.md
#
# What an earlier call left in the folder is replaced; a folder with other files and none of this script is refused.
#
# Training step and inference of every model at its full size, with a roofline each, in bfloat16 and in float32
# (TF32 in convolutions and products); RetinaNet-R50 at 800×800 pixels beside the published rate of one chip;
# RoIAlign, NMS, the rate of the input pipeline, a profile; and, as far as time goes, PyTorch with torch.compile on
# the same images. Every part is a process with a time limit of its own: what fails, what is missing and what there
# is no time for is written down, and the rest goes on. First all programs are compiled, several at a time, into a
# cache that the measurements read.
#
# Environment:
#   BUDGET=570              seconds in all
#   PARALLEL=4              compilations at a time
#   PYTHON=.venv/bin/python with jax for the accelerator; python3 where there is none
#   JDET_PEER_PYTHON        with torch; default: PYTHON, if it has torch
#   MODELS, SIZE, BATCH     other models than all, other sizes and batches than the full ones
#   TINY=1                  one small model, one step: shows on any CPU that every part works
set -u
cd "$(dirname "$0")/.." || exit 1
out=${1:-runs/accelerator}
python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || python=python3
tiny=${TINY:-}
budget=${BUDGET:-$([ "$tiny" ] && echo 3600 || echo 570)}
parallel=${PARALLEL:-$([ "$tiny" ] && echo 1 || echo 4)}
steps=$([ "$tiny" ] && echo 1 || echo 8)
patience=$([ "$tiny" ] && echo 5 || echo 1) # times every limit: a shared CPU is slow

# Makes the folder, or removes from it what an earlier call wrote: its parts are named in parts.tsv.
begin_folder() {
  local parts=$out/parts.tsv name
  if [ -d "$out" ] && [ ! -f "$parts" ] && [ "$(ls -A "$out")" ]; then
    echo "$out holds files that are not of this script (no parts.tsv); name a new folder" >&2
    exit 2
  fi
  mkdir -p "$out" || exit 2
  if [ -f "$parts" ]; then
    while IFS=$'\t' read -r name _; do
      name=${name##*/}
      rm -f "$out/$name.jsonl" "$out/$name.log"
    done <"$parts"
    rm -f "$out"/compile_{train_step,inference}_*.log "$out"/{machine.txt,RESULTS.md,profile.json,profile.png}
  fi
  : >"$parts" || exit 2
}
begin_folder

export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$PWD/.cache/accelerator}
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0
export XLA_PYTHON_CLIENT_PREALLOCATE=false # the peer needs memory too
export JDET_ENVIRONMENT=off
[ "$tiny" ] && export XLA_FLAGS="--xla_backend_optimization_level=0 ${XLA_FLAGS:-}"

peer=${JDET_PEER_PYTHON:-}
[ -z "$peer" ] && "$python" -c "import torch" 2>/dev/null && peer=$python
unset JDET_PEER_PYTHON # only the parts beside the peer run it

# model, images of a training step, images of a detection, pixels
if [ "$tiny" ]; then
  models="root_resnet18 2 1 64" # PyTorch trains no batch norm of one value
else
  models="ssd300_vgg16 32 32 300
root_resnet34 32 32 300
retinanet_r50 16 16 800
fcos_r50 16 16 800
faster_rcnn_r50 16 16 800
mask_rcnn_r50 16 16 800
swin_t_faster_rcnn 8 8 800"
fi
if [ "${MODELS:-}" ]; then
  chosen=""
  for name in $MODELS; do
    line=$(grep "^$name " <<<"$models") || line="$name 8 8 ${SIZE:-300}"
    chosen+="$line"$'\n'
  done
  models=$chosen
fi
record="retinanet_r50 $([ "$tiny" ] && echo "1 1 64" || echo "64 64 800")"

say() { echo "[$SECONDS s] $*" >&2; }

# Runs a part: its name, its limit in seconds, its command. Output goes to NAME.jsonl, the rest to NAME.log.
part() {
  local name=$1 limit=$(($2 * patience)) left=$((budget - SECONDS)) begin=$SECONDS status
  shift 2
  if [ $left -lt 10 ]; then
    printf '%s\t0\tno time left\n' "$name" >>"$out/parts.tsv"
    return
  fi
  say "$name"
  timeout -k 5 $((limit < left ? limit : left)) "$@" >"$out/$name.jsonl" 2>"$out/$name.log"
  status=$?
  [ $status -eq 124 ] && status="longer than its limit"
  printf '%s\t%s\t%s\n' "$name" $((SECONDS - begin)) "$status" >>"$out/parts.tsv"
}

# Command of a case: train_step or inference, its line of models, precision.
case_of() {
  local what=$1 model=$2 train=$3 detect=$4 size=$5 precision=$6
  [ "$what" = train_step ] && detect=$train
  echo -m "benchmarks.$what" --model "$model" --precision "$precision" --batch "${BATCH:-$detect}" \
    --size "${SIZE:-$size}" --steps "$steps"
}

# Compiles a case in the background, once there are fewer than PARALLEL, while there is a third of the time left.
compile_one() {
  local what=$1 line=$2 precision=$3
  while [ "$(jobs -rp | wc -l)" -ge "$parallel" ]; do wait -n; done
  [ $SECONDS -lt $((budget * 2 / 3)) ] || return
  # shellcheck disable=SC2046,SC2086
  timeout -k 5 $((budget - SECONDS)) "$python" $(case_of $what $line $precision) --compile-only \
    >/dev/null 2>"$out/compile_${what}_${line// /_}_$precision.log" &
}

compile_all() {
  local line what
  while read -r line; do
    [ "$line" ] || continue
    for what in train_step inference; do compile_one $what "$line" "$1"; done
  done <<<"$models"
  wait
}

# Times all cases of a precision; what follows is passed on.
measure_all() {
  local precision=$1 suffix=$2 limit=$3 line what
  shift 3
  while read -r line; do
    [ "$line" ] || continue
    for what in train_step inference; do
      # shellcheck disable=SC2046,SC2086
      part "${what}_${line%% *}_$precision$suffix" "$limit" "$python" $(case_of $what $line "$precision") "$@"
    done
  done <<<"$models"
}

{
  date -u +"%d %B %Y, %H:%M UTC"
  uname -srm
  grep -m1 "model name" /proc/cpuinfo 2>/dev/null
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null
  "$python" -c "import jax, jaxlib; print('jax', jax.__version__, 'jaxlib', jaxlib.__version__, jax.devices())" 2>/dev/null
  [ "$peer" ] && "$peer" -c "import torch; print('torch', torch.__version__)" 2>/dev/null
  [ "$peer" ] || echo "no torch: no peer"
} >"$out/machine.txt"

say "compiling"
compile_one train_step "$record" bfloat16
compile_all bfloat16
# shellcheck disable=SC2046,SC2086
part record 150 "$python" $(case_of train_step $record bfloat16) --roofline
measure_all bfloat16 "" 60 --roofline
part operations_roi_align 60 "$python" -m benchmarks.roi_align --peer-python "$peer" --rois $([ "$tiny" ] && echo 8 || echo 512)
part operations_nms 45 "$python" -m benchmarks.nms --peer-python "$peer"
part input 90 "$python" -m benchmarks.input_pipeline --peer-python "" --n $([ "$tiny" ] && echo 16 || echo 300) --rounds 1
if [ "$tiny" ]; then
  profiled="experiments/quickstart.py --config.input_size=64 --config.train.batch_size=1"
else
  profiled="experiments/retinanet_coco.py:norm=batch,warp --config.input_size=800 --config.train.batch_size=16"
fi
# shellcheck disable=SC2086
part profile 90 env JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=1 "$python" -m jdet.profile --config=$profiled \
  --config.precision=bfloat16 --steps=$steps --out="$out/profile.json"
[ "$peer" ] && measure_all bfloat16 _peer 75 --peer-python "$peer" --peer-compile --roofline
[ $SECONDS -lt $((budget / 2)) ] && compile_all float32
measure_all float32 "" 60 --roofline
[ "$peer" ] && measure_all float32 _peer 75 --peer-python "$peer" --peer-compile --roofline

"$python" -m benchmarks.accelerator_report "$out" >"$out/RESULTS.md" || exit 1
say "written: $out/RESULTS.md"
