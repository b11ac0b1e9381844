#!/usr/bin/env bash
# Makes a folder that `--features libtorch` builds against and runs with, on x86-64 Linux with glibc, GPU or not:
#
#     scripts/libtorch.sh FOLDER          # downloads 0.9 GB, unpacks 1.8 GB
#
# libtorch is taken from PyTorch's wheel. That of PyPI is built for CUDA, so that even the part for CPUs asks for two small
# libraries of CUDA, which have wheels of their own; the parts that need a driver are left out. Needs python3 with venv, and cc.
set -euo pipefail
mkdir -p "$1"
folder=$(cd "$1" && pwd)

python3 -m venv "$folder/python"
"$folder/python/bin/pip" install --quiet --no-deps \
    torch==2.9.0 nvidia-cuda-runtime-cu12==12.8.90 nvidia-cuda-cupti-cu12==12.8.90
wheels=$(echo "$folder"/python/lib/python3*/site-packages)

mkdir -p "$folder/lib"
ln -sfn "$wheels/torch/include" "$folder/include"
ln -sf "$wheels"/torch/lib/{libtorch_cpu.so,libc10.so,libshm.so,libgomp.so.1} \
    "$wheels/nvidia/cuda_runtime/lib/libcudart.so.12" "$wheels/nvidia/cuda_cupti/lib/libcupti.so.12" "$folder/lib/"
# The wheel's libtorch.so does nothing but load the CUDA part too.
cc -shared -x c /dev/null -o "$folder/lib/libtorch.so"
echo 2.9.0 > "$folder/build-version"

cat <<EOF
build and run with

    export LIBTORCH=$folder LD_LIBRARY_PATH=$folder/lib
EOF
