#!/usr/bin/env bash
# The demo behind ./dev demo: trains on recipes/demo/train.jsonl, then scores base and adapter on recipes/demo/heldout.jsonl.
set -euo pipefail
model=$1
shift
nibble=build/release/nibble
run=build/demo
rm -rf "$run"

began=$(date +%s)
"$nibble" train recipes/demo/demo.yaml "model=$model" "out=$run" "$@"
"$nibble" eval match --model "$model" --adapter "$run" --data recipes/demo/heldout.jsonl --compare \
  --quantize nf4 --double-quant --max-new-tokens 48 --show 4
echo
echo "training and scoring took $(($(date +%s) - began)) s; the adapter is in $run"
echo "try it: $nibble chat --model $model --adapter $run --quantize nf4 --double-quant"
