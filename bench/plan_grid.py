#!/usr/bin/env python3
"""Planned against measured memory of real runs: nibble plan's total beside nibble train's peak resident memory.

    bench/plan_grid.py MODEL DATA [--nibble build/release/nibble] [--json FILE]

Trains one step of each setting (format x rank x batch x length x checkpointing x optimizer), so it takes minutes and
some GB. The data must have examples long enough to fill the batches.
"""
import argparse
import json
import shutil
import subprocess
import sys
import tempfile

BASE = {"quantize": "nf4", "lora_r": "16", "per_device_train_batch_size": "2", "max_seq_length": "256",
        "gradient_checkpointing": "none", "optim": "paged_adamw"}
CHANGES = [{}]
CHANGES += [{"quantize": q} for q in ("none", "int8", "stored")]
CHANGES += [{"quantize": q, "gradient_checkpointing": "block"} for q in ("nf4", "none", "int8", "stored")]
CHANGES += [{"lora_r": r} for r in ("4", "64")] + [{"lora_r": "64", "optim": "adamw"}]
CHANGES += [{"per_device_train_batch_size": b} for b in ("1", "4")]
CHANGES += [{"per_device_train_batch_size": b, "gradient_checkpointing": "block"} for b in ("1", "4", "8")]
CHANGES += [{"max_seq_length": n} for n in ("128", "512")]
CHANGES += [{"max_seq_length": n, "gradient_checkpointing": "block"} for n in ("128", "512", "1024")]
CHANGES += [{"gradient_checkpointing": "selective"}, {"gradient_checkpointing": "selective", "max_seq_length": "512"}]
CHANGES += [{"optim": o} for o in ("adamw", "adamw_8bit", "sgd")]


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--nibble", default="build/release/nibble")
    parser.add_argument("--json")
    options = parser.parse_args()
    out = tempfile.mkdtemp(prefix="nibble-plan-")
    rows = []
    print(f"{'planned MB':>10} {'peak MB':>8} {'ratio':>6}  setting")
    try:
        for change in CHANGES:
            setting = [f"{key}={value}" for key, value in {**BASE, **change}.items()]
            common = [f"model={options.model}", f"data={options.data}", "overlong=drop", "eval_fraction=0", "max_steps=1",
                      f"out={out}", *setting]
            plan = run([options.nibble, "plan", "--json", *common])
            planned = next(p["total_bytes"] for p in plan["plans"] if p["checkpointing"] == plan["chosen"])
            trained = run([options.nibble, "train", "--json", "--quiet", "--overwrite", *common])
            peak = trained["peak_rss_bytes"]
            rows.append({"setting": change, "planned": planned, "peak": peak})
            print(f"{planned / 1e6:10.0f} {peak / 1e6:8.0f} {planned / peak:6.3f}  {' '.join(f'{k}={v}' for k, v in change.items()) or 'the base setting'}",
                  flush=True)
    finally:
        shutil.rmtree(out, ignore_errors=True)
    worst = max(abs(r["planned"] / r["peak"] - 1) for r in rows)
    print(f"{len(rows)} settings, the worst {worst:.1%} off")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
