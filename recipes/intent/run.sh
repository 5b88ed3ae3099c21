#!/usr/bin/env bash
# The whole recipe, from questions to evidence: recipes/intent/run.sh [DATA [WORK]], in the project's root.
set -euo pipefail
data=${1:-../shared/data/intent}
work=${2:-out/intent}
python=${PYTHON:-.venv/bin/python}
here=$(dirname "$0")
luthier() { "$python" -m luthier "$@"; }

# Questions of the test set that are also in the training set would make the figure look better than it is.
mkdir -p "$work/data"
luthier data clean "$data/train.json" --steps leakage,deduplication --not-in "$data/test.json" \
    --out "$work/data/train.json" --ledger none --overwrite
cp "$data/test.json" "$work/data/test.json"
printf '{"train": {"file_name": "train.json"}, "test": {"file_name": "test.json"}}\n' > "$work/data/dataset_info.json"

luthier train "$here/sft.yaml" dataset_dir="$work/data" output_dir="$work/run"
luthier eval "$work/run" --dataset test dataset_dir="$work/data"
