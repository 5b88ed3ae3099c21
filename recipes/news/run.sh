#!/usr/bin/env bash
# The whole recipe, from headlines to accuracy: recipes/news/run.sh [DATA [WORK]], in the project's root.
set -euo pipefail
data=${1:-../shared/data/news}
work=${2:-out/news}
python=${PYTHON:-.venv/bin/python}
here=$(dirname "$0")

"$python" "$here/make_base.py" "$data" "$work"
"$python" -m luthier train "$here/pt.yaml" model_name_or_path="$work/start" dataset_dir="$work/data" output_dir="$work/pt"
"$python" -m luthier train "$here/sft.yaml" model_name_or_path="$work/pt" dataset_dir="$data" output_dir="$work/run"
"$python" -m luthier eval "$work/run" --dataset eval dataset_dir="$data"
