#!/usr/bin/env bash
# Everything that issue 7 wants measured on a GPU, into a folder of Markdown tables:
#     bash benchmarks/gpu/run.sh WIDER OUT [RESNET18_BUNDLE]
#     bash benchmarks/gpu/run.sh --dry-run WIDER OUT
# WIDER holds WIDER FACE's pictures and ground truth, as `edgeface eval` takes them; models.py makes
# the ResNet-18 bundle. Install first, in a fresh environment:
#     pip install '.[tensorrt]' nvidia-cuda-nvrtc      (or '.[tensorrt-rtx]'; both may be installed)
set -euo pipefail

dry=()
if [[ ${1:-} == --dry-run ]]; then
    dry=(--dry-run)
    shift
fi
data=${1:?the folder with WIDER FACE}
out=${2:?the folder for the tables}
models=(retinaface_mobilenet025 ${3:+"$3"})
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"

edgeface doctor | tee "$out/doctor.txt"
nvidia-smi >"$out/nvidia-smi.txt" 2>&1 || echo "no nvidia-smi" >"$out/nvidia-smi.txt"
python "$here/speed.py" --models "${models[@]}" "${dry[@]}" | tee "$out/speed.md"
python "$here/accuracy.py" --data "$data" ${dry:+--limit 4} "${dry[@]}" | tee "$out/accuracy.md"
