#!/bin/bash
# A training on several machines of a Slurm cluster, one process for each GPU:
#
#     sbatch --nodes=2 --gpus-per-node=4 --time=04:00:00 scripts/slurm.sh experiment=camvid_lite0 data.root=CAMVID name=several
#
# What stands behind the script is typed as for `segtrain train`. Two minutes before the time is over, all processes save at
# one step and end. The same command again resumes the run, which needs a name. Not tried on a cluster yet.
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
set -eu
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
end=$(date +%s -d "$(scontrol show job "$SLURM_JOB_ID" | grep -o 'EndTime=[^ ]*' | cut -d= -f2)")
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"
# A signal of Slurm reaches the loader's workers too; that of timeout reaches torchrun alone, which passes it on.
exec srun --kill-on-bad-exit=1 timeout --foreground --signal=TERM "$((end - $(date +%s) - 120))" \
    torchrun --nnodes="$SLURM_NNODES" --nproc-per-node="${SLURM_GPUS_ON_NODE:-1}" --rdzv-id="$SLURM_JOB_ID" \
    --rdzv-backend=c10d --rdzv-endpoint="$head:$((29400 + SLURM_JOB_ID % 1000))" \
    -m segtrain train resume=auto "$@"
