#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# A class's drivers graded by a Slurm array, each task one part of the submissions:
#
#   sbatch slurm.sh SUBMISSIONS GRADES
#
# Run it from this repository, on a file system that all nodes have; build the lab and fill its cache once before, by `cargo lab doctor` and
# `cargo lab grade examples/textbook`. The task that is last leaves the whole table in GRADES/table.csv and GRADES/table.html.
#SBATCH --job-name=grade
#SBATCH --array=1-4
#SBATCH --cpus-per-task=2
#SBATCH --mem=4G
#SBATCH --time=06:00:00

set -euo pipefail
submissions=${1:?usage: sbatch slurm.sh SUBMISSIONS GRADES}
grades=${2:?usage: sbatch slurm.sh SUBMISSIONS GRADES}

# Status 1: a submission has failed, which the table says.
cargo lab grade --batch "$submissions" --output "$grades" \
    --partition "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" || test -f "$grades/table.csv"
