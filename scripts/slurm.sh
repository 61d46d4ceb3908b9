#!/bin/bash
# A training on several machines of a Slurm cluster, one process for each GPU:
#
#     sbatch --nodes=2 --gpus-per-node=4 scripts/slurm.sh experiment=camvid_lite0 data.root=CAMVID name=several
#
# What stands behind the script is typed as for `segtrain train`. Two minutes before the time is over, Slurm sends
# SIGUSR1: all processes save at one step and end. The same command again resumes the run, which needs a name.
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=04:00:00
#SBATCH --signal=USR1@120
set -eu
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
gpus=${SLURM_GPUS_ON_NODE:-1}
# torchrun passes SIGTERM and SIGINT on to its processes, SIGUSR1 it does not know.
exec srun --kill-on-bad-exit=1 bash -c '
    torchrun --nnodes="$SLURM_NNODES" --nproc-per-node='"$gpus"' --rdzv-id="$SLURM_JOB_ID" --rdzv-backend=c10d \
        --rdzv-endpoint='"$head"':29400 -m segtrain train resume=auto "$@" &
    trap "kill -TERM $!" USR1 TERM
    wait $! || wait $!
' segtrain "$@"
