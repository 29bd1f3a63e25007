#!/usr/bin/env bash
# SLURM: one process a host, with all its GPUs. Before the time limit and when the job is preempted, all
# processes save the current step; the job then queues again and goes on, also on other nodes.
#
#     sbatch --nodes=4 experiments/launch/slurm.sh --config=experiments/scratchdet_coco.py --workdir=/scratch/coco
#
# The workdir must be on a file system that all nodes share; a token in it, or the variable JDET_TOKEN, tells the
# processes who belongs to the run (docs/pods.md). Fewer nodes next time are fine, as long as they
# divide train.batch_size.
#SBATCH --job-name=jdet
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=jdet-%j.log
set -u
cd "${SLURM_SUBMIT_DIR:-.}"
code=0
# A process that is lost ends the others by itself, with a word about it; srun need not kill them.
srun --kill-on-bad-exit=0 "${PYTHON:-.venv/bin/python}" -m jdet.main "$@" --hosts=auto --stopped_exit_code=75 ||
  code=$?
case $code in
  0 | 1 | 2) exit "$code" ;;  # done, diverged or failed, a mistake
esac
echo "ended with code $code; queueing again"
scontrol requeue "$SLURM_JOB_ID"
