#!/bin/bash
# A training on several machines of a Slurm cluster, one process for each GPU:
#
#     sbatch --nodes=2 --gpus-per-node=4 --time=04:00:00 scripts/slurm.sh experiment=camvid_lite0 data.root=CAMVID name=several
#
# What stands behind the script is typed as for `segtrain train`; the run needs a name. Two minutes before the time is
# over (SIGUSR1), and where the job is preempted (SIGTERM), all processes save at one step, the job goes back into the
# queue, and resumes when it starts again. `scancel --signal=INT JOB` saves and ends for good. Not tried on a cluster yet.
# To have torchrun start the processes again after a failure, add --max-restarts=3 (docs/processes.md, restarts).
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=USR1@120
set -eu
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"
exec srun --kill-on-bad-exit=1 \
    torchrun --nnodes="$SLURM_NNODES" --nproc-per-node="${SLURM_GPUS_ON_NODE:-1}" --rdzv-id="$SLURM_JOB_ID" \
    --rdzv-backend=c10d --rdzv-endpoint="$head:$((29400 + SLURM_JOB_ID % 1000))" \
    --signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 \
    -m segtrain train resume=auto trainer.requeue=slurm "$@"
