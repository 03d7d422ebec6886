#!/usr/bin/env python3
"""How a training step's cost grows: tokens/s, share of the product limit and memory over length, batch, rank, threads and width.

    bench/scaling.py --model MODEL [--nibble build/release/nibble] [--axes length batch rank threads width] [--out build/scaling]

Each point is `nibble bench` with one key changed; widths are LLaMA shapes of random weights, written to a temporary folder
(3.4 GB for the largest). Writes OUT.json and OUT.svg, and prints the table.
"""
import argparse
import array
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

BASE = {"max_seq_length": 512, "per_device_train_batch_size": 4, "lora_r": 16}
TOKENS = 2048  # a step of the length axis, at least
AXES = {
    "length": [{"max_seq_length": n, "per_device_train_batch_size": max(1, TOKENS // n)} for n in (128, 256, 512, 1024, 2048, 4096, 8192)],
    "batch": [{"max_seq_length": 128, "per_device_train_batch_size": n} for n in (1, 4, 16, 64)],
    "rank": [{"lora_r": r} for r in (4, 16, 64, 256)],
    "threads": [{"threads": n} for n in (1, 2)],
    "width": [{"width": w, "per_device_train_batch_size": 1} for w in (576, 960, 2048)],
}
SHAPES = {576: (30, 9, 3, 1536, 49152), 960: (32, 15, 5, 2560, 49152), 2048: (24, 32, 32, 8192, 49152)}  # SmolLM2's
PANELS = (("tokens_per_second", "tokens/s", 1), ("limit_share", "share of the product limit, %", 100),
          ("peak_rss_bytes", "peak resident, GB", 1e-9))


def random_llama(directory, width):
    """A checkpoint of that width in bf16: one block of normal values over and over."""
    layers, heads, kv_heads, hidden, vocab = SHAPES[width]
    kv = width // heads * kv_heads
    tensors = {"model.embed_tokens.weight": (vocab, width), "model.norm.weight": (width,)}
    for i in range(layers):
        p = f"model.layers.{i}."
        tensors |= {p + "input_layernorm.weight": (width,), p + "post_attention_layernorm.weight": (width,),
                    p + "self_attn.q_proj.weight": (width, width), p + "self_attn.k_proj.weight": (kv, width),
                    p + "self_attn.v_proj.weight": (kv, width), p + "self_attn.o_proj.weight": (width, width),
                    p + "mlp.gate_proj.weight": (hidden, width), p + "mlp.up_proj.weight": (hidden, width),
                    p + "mlp.down_proj.weight": (width, hidden)}
    rng = random.Random(1)
    floats = array.array("f", (rng.gauss(0, 0.02) for _ in range(1 << 16))).tobytes()
    block = b"".join(floats[i + 2:i + 4] for i in range(0, len(floats), 4))
    header, at = {}, 0
    for name, shape in tensors.items():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with open(directory / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for left in (h["data_offsets"][1] - h["data_offsets"][0] for h in header.values()):
            while left > 0:
                left -= file.write(block[:left])
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": width, "num_hidden_layers": layers,
              "num_attention_heads": heads, "num_key_value_heads": kv_heads, "intermediate_size": hidden, "vocab_size": vocab,
              "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 100000.0, "tie_word_embeddings": True,
              "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16"}
    (directory / "config.json").write_text(json.dumps(config))


def measure(args, model, setting):
    keys = {**BASE, **{k: v for k, v in setting.items() if k not in ("threads", "width")}}
    command = [args.nibble, "bench", "--json", "--rounds", str(args.rounds), "--model", model,
               "--threads", str(setting.get("threads", args.threads)), *(f"{k}={v}" for k, v in keys.items())]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def plot(results):
    """Small multiples: an axis a row, a figure a column."""
    width, height, left, top = 230, 120, 70, 34
    parts = []
    for row, (axis, points) in enumerate(results.items()):
        for column, (key, title, factor) in enumerate(PANELS):
            x0, y0 = left + column * (width + 70), top + row * (height + 64)
            values = [p[key] * factor for p in points]
            most = max(values) * 1.1
            xs = [x0 + 12 + i * (width - 24) / max(1, len(points) - 1) for i in range(len(points))]
            ys = [y0 + height * (1 - v / most) for v in values]
            parts.append(f'<text x="{x0}" y="{y0 - 8}" class="t">{title} by {axis}</text>'
                         f'<path d="M{x0} {y0}V{y0 + height}H{x0 + width}" class="axis"/>'
                         f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys))}" class="line"/>')
            for x, y, value, point in zip(xs, ys, values, points):
                parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
                             f'<text x="{x:.1f}" y="{y - 6:.1f}" class="v">{value:.3g}</text>'
                             f'<text x="{x:.1f}" y="{y0 + height + 14}" class="v">{point["at"]}</text>')
    total = (left + 3 * (width + 70), top + len(results) * (height + 64))
    style = ("text{font:11px sans-serif;fill:#333}.t{font-weight:bold}.v{font-size:9px;text-anchor:middle}"
             ".axis{stroke:#999;fill:none}.line{stroke:#2563eb;fill:none;stroke-width:1.5}circle{fill:#2563eb}")
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total[0]} {total[1]}" width="{total[0]}"><style>{style}</style>'
            f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--nibble", default="build/release/nibble")
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", default="build/scaling")
    args = parser.parse_args()
    results = {}
    print(f"{'':<16} {'tokens/s':>9} {'of the limit':>12} {'peak GB':>8}")
    for axis in args.axes:
        for setting in AXES[axis]:
            at = next(iter(setting.values())) if axis != "batch" else setting["per_device_train_batch_size"]
            if axis == "width":
                with tempfile.TemporaryDirectory() as directory:
                    random_llama(Path(directory), at)
                    found = measure(args, directory, setting)
            else:
                found = measure(args, args.model, setting)
            results.setdefault(axis, []).append({"at": at, "setting": setting, **{key: found[key] for key, _, _ in PANELS},
                                                 "operations": found["operations"], "product_limit_flops": found["product_limit_flops"]})
            point = results[axis][-1]
            print(f"{axis:<9} {at:<6} {point['tokens_per_second']:9.0f} {point['limit_share']:12.0%} {point['peak_rss_bytes'] / 1e9:8.2f}", flush=True)
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    out.with_suffix(".svg").write_text(plot(results))
    print(f"written to {out}.json and {out}.svg")


if __name__ == "__main__":
    main()
