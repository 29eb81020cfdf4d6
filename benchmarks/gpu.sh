#!/usr/bin/env bash
# What is to be measured on a GPU, in at most 12 minutes: benchmarks/gpu.sh FOLDER
#
# FOLDER gets a JSON file and a log of each part. Nothing is downloaded: the networks of
# full size get random weights, which take the same time as trained ones. The package must
# be installed with its extras cuda and torch (PyTorch for CUDA), in the Python of $PYTHON.
# Each part has a limit of its own, so that one that fails or takes too long costs no other;
# what it measured until then is in its file. Set PARTS to run only some. It has not been run
# on a GPU yet.
set -u
out=${1:?usage: benchmarks/gpu.sh FOLDER}
parts=${PARTS:-"weights pipeline solvers bf16 batches"}
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
device=${DEVICE:-gpu}
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$here/.."
# PyTorch and JAX share the GPU, so JAX must not take its memory beforehand.
export XLA_PYTHON_CLIENT_PREALLOCATE=false DSLO_CACHE="$out/cache"
model="$out/full"
status=0

part() {  # part NAME SECONDS COMMAND...
  local name=$1 limit=$2
  shift 2
  case " $parts " in *" $name "*) ;; *) return ;; esac
  echo "== $name: at most $limit s"
  SECONDS=0
  if timeout --signal=INT --kill-after=10 "$limit" "$@" >"$out/$name.log" 2>&1; then
    echo "   done in $SECONDS s"
  else
    echo "   failed or out of time after $SECONDS s; see $name.log"
    status=1
  fi
}

part weights 90 "$python" benchmarks/make_checkpoint.py "$model"
# Photos in a second from pixels to labels at 512 px in bfloat16, beside PyTorch.
part pipeline 330 "$python" -m dslo_jax bench pipeline --model "$model" \
  --device "$device" --precisions bfloat16 --modes velocity --classes 21 \
  --batches 1 8 --against torch --torch-compile --no-starts --seconds 5 --budget 10 \
  --save "$out/pipeline.json"
# Solvers and upsampling in batches, against the roofline of this GPU.
part solvers 100 "$python" -m dslo_jax bench solvers --device "$device" \
  --solvers path velocity upsampling --patches 4096 --classes 21 --images 16 \
  --seconds 5 --save "$out/solvers.json"
# Labels in bfloat16 against float32 on the bundled scenes.
part bf16 80 "$python" benchmarks/precision.py --device "$device" \
  --save "$out/precision.json"
# Both modes without PyTorch, until memory ends or the time is over.
part batches 120 "$python" -m dslo_jax bench pipeline --model "$model" \
  --device "$device" --precisions bfloat16 --modes path velocity --classes 21 \
  --no-starts --seconds 2 --budget 6 --save "$out/batches.json"
rm -rf "$model"
exit $status
