#!/usr/bin/env python3
"""Paired comparisons of nibble with itself and with its peers: the table behind docs/performance.md.

Both sides of a comparison run in turn, never at once, and the ratio is that of their medians. Figures of one machine say
little about another; ratios and ceilings do.
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STEP = ["per_device_train_batch_size=4", "max_seq_length=512"]


def last_json(text):
    return json.loads(text[text.index("{"):])


def run(command):
    result = subprocess.run([str(c) for c in command], cwd=ROOT, capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{result.stderr[-2000:]}")
    return last_json(result.stdout)


class Peer:
    """A program that stays, and measures once for every line it is sent: what it does at its launch is done once."""

    def __init__(self, command):
        self.command = list(map(str, command))
        self.process = None
        self.messages = tempfile.TemporaryFile("w+")  # a pipe that nobody reads would stop it

    def measure(self):
        if self.process is None:
            self.process = subprocess.Popen(self.command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=self.messages, text=True)
            self.process.stdout.readline()
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            self.process.wait()
            self.messages.seek(0)
            raise SystemExit(f"{' '.join(self.command)} failed:\n{self.messages.read()[-2000:]}") from None

    def close(self):
        if self.process:
            self.process.communicate()


class Timed:
    """A command whose own time, launch included, is what counts."""

    def __init__(self, command):
        self.command = list(map(str, command))

    def measure(self):
        began = time.perf_counter()
        document = run(self.command)
        return {**document, "wall_seconds": time.perf_counter() - began}


class Bench:
    def __init__(self, args):
        self.args = args
        self.rows, self.raw, self.versions = [], [], {}

    def nibble(self, *words):
        return [self.args.nibble, "bench", "--model", self.args.model, "--rounds", "1", "--json",
                "--threads", self.args.threads, *words]

    def step(self, *words):
        return self.nibble(*STEP, *words)

    def peer(self, script, *words):
        return [self.args.python, ROOT / "bench" / "peers" / script, "--threads", self.args.threads, *words]

    def turns(self, sides, rounds):
        """Runs every side (a command, Timed or Peer) in turn, `rounds` times: one list of documents each."""
        documents = [[] for _ in sides]
        try:
            for _ in range(rounds):
                for side, list_ in zip(sides, documents):
                    document = run(side) if isinstance(side, list) else side.measure()
                    self.versions.update(document.get("versions", {}))
                    command = side if isinstance(side, list) else side.command
                    self.raw.append({"command": " ".join(map(str, command)), "result": document})
                    list_.append(document)
        finally:
            for side in sides:
                if isinstance(side, Peer):
                    side.close()
        return documents

    def row(self, what, ours, theirs, at_least=None, ceiling=None, unit="tokens/s", ratio=None):
        """theirs None: `ours` is a share or an amount by itself."""
        self.rows.append({"what": what, "ours": ours, "theirs": theirs, "unit": unit, "at_least": at_least,
                          "ratio": ratio or (ours / theirs if theirs else None), "ceiling": ceiling})
        print(self.line(self.rows[-1]), flush=True)

    def pair(self, what, ours, theirs, key, at_least, ceiling=None, unit="tokens/s", their_key=None, factor=1):
        """Both sides' documents of the same rounds: medians, and the median of the rounds' ratios (times `factor`), since the
        machine's speed changes from one minute to the next."""
        their_key = their_key or key
        self.row(what, median(ours, key) * factor, median(theirs, their_key), at_least, ceiling, unit,
                 statistics.median(o[key] / t[their_key] for o, t in zip(ours, theirs)) * factor)

    @staticmethod
    def line(row):
        number = lambda v: "" if v is None else f"{v:,.3g}" if v < 1000 else f"{v:,.0f}"
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        return (f"{row['what']:<58} {number(row['ours']):>9} {number(row['theirs']):>9} {row['unit']:<10} {ratio:>6} "
                f"{number(row['ceiling']):>8} {number(row['at_least']):>8}")


def median(documents, key):
    return statistics.median(d[key] for d in documents)


def steps(b):
    """Steps of nibble beside the product limit and beside each other. Shares of the limit are compared where the limit was
    measured in each: they follow a machine whose speed changes from one minute to the next."""
    none, selective, block, dense, int8 = b.turns(
        [b.step(), b.step("gradient_checkpointing=selective"), b.step("gradient_checkpointing=block"),
         b.step("quantize=none", "double_quant=false"), b.step("quantize=int8", "double_quant=false")], b.args.rounds)
    share, rate, peak = "limit_share", "tokens_per_second", "peak_rss_bytes"
    # Where the processor has no bf16 product, quantized bases multiply as integers and the limit as floats.
    most = 1 if fast_bf16() else None
    b.row("step, share of the product limit", median(none, share), None, 0.8, most, "")
    b.pair("NF4 + DQ against bf16 base (share of the limit)", none, dense, share, 0.99, most, "")
    b.pair("NF4 + DQ against bf16 base", none, dense, rate, 0.99, most)
    b.pair("int8 base and products against bf16 (share of the limit)", int8, dense, share, 1.2, None, "")
    b.pair("int8 base and products against bf16", int8, dense, rate, 1.2)
    # `block` counts what it computes twice; the step's own work is that of `none`.
    work = median(none, "flops_per_step") / median(block, "flops_per_step")
    b.pair("block checkpointing against none (share of the limit)", block, none, share, 0.73, 0.75, "", factor=work)
    b.pair("block checkpointing against none", block, none, rate, 0.73, 0.75)
    for name, runs in (("none", none), ("selective", selective), ("block", block)):
        b.row(f"peak resident, {name}", median(runs, peak) / 1e9, None, None, None, "GB")


def packing(b):
    """Packed sequences of real lengths against full ones, as shares of the same limit: FLOPs differ with the labels."""
    if not b.args.data:
        return
    full, real = b.turns([b.step(), b.step("--data", b.args.data, "overlong=drop", "eval_fraction=0")], b.args.rounds)
    b.pair("packed real lengths against full (share of the limit)", real, full, "limit_share", 0.9, 1, "")


def generation(b):
    ours, = b.turns([b.nibble("--generation")], b.args.rounds)
    b.row("writing, share of the read bandwidth", median(ours, "bandwidth_share"), None, 0.5, 1, "")
    b.pair("writing 16 at once against one", ours, ours, "batch_tokens_per_second", 5, 16, their_key="tokens_per_second")


def quantizing(b):
    """Not through `nibble`: the micro-benchmark of the kernels."""
    command = [b.args.quant, "--benchmark_format=json", "--benchmark_filter=BM_(encode|decode)/nf4_dq_(from|to)_bf16"]
    figures = {}
    for _ in range(b.args.rounds):
        for item in run(command)["benchmarks"]:
            figures.setdefault(item["name"].split("/")[0], []).append(item["items_per_second"])
    return {name: statistics.median(values) for name, values in figures.items()}


def against_steps(b, what, ours, theirs, at_least):
    """A step beside a peer's; the ceiling is the ratio at which nibble would reach the product limit (of floats, unless the
    processor has bf16 products)."""
    rate = "tokens_per_second"
    mine, peer = b.turns([b.step(*ours), Peer(b.peer("step.py", *theirs))], b.args.rounds)
    limit = statistics.median(d[rate] / d["limit_share"] for d in mine)
    b.pair(what, mine, peer, rate, at_least, limit / median(peer, rate))
    b.row("  peak resident", median(mine, "peak_rss_bytes") / 1e9, median(peer, "peak_rss_bytes") / 1e9, None, None, "GB")
    b.row("  launch to the end of the first step", median(mine, "seconds_to_first_step"), median(peer, "seconds_to_first_step"),
          None, None, "s")


def fast_bf16():
    """Whether PyTorch multiplies bf16 with instructions for it; without them a step takes minutes."""
    return machine()["avx512bf16"]


def peer_step(b):
    compute = "bf16" if fast_bf16() else "f32"
    against_steps(b, f"step against Transformers + PEFT + bitsandbytes NF4 ({compute})", (), ("--compute", compute), 2.7)


def peer_f32(b):
    against_steps(b, "f32 step against Transformers + PEFT f32", ("dtype=f32", "quantize=none", "double_quant=false"),
                  ("--base", "f32"), 1.6)


def peer_compiled(b):
    base = "bf16" if fast_bf16() else "f32"
    against_steps(b, f"step against {base} LoRA under torch.compile", (), ("--base", base, "--compile"), 1.6)


def peer_epoch(b):
    """An epoch over real examples: nibble's packed sequences of its whole process beside padded batches of 8 of a process
    that has been launched and warmed."""
    if not (b.args.data and b.args.tokenizer):
        return
    compute = "bf16" if fast_bf16() else "f32"
    with tempfile.TemporaryDirectory() as out:
        ours = [b.args.nibble, "train", "--json", "--quiet", "--overwrite", f"model={b.args.model}", f"out={out}",
                f"data=[{{path: {b.args.data}, take: {b.args.examples}}}]", "eval_fraction=0", "max_seq_length=512", "overlong=truncate",
                "per_device_train_batch_size=2", f"threads={b.args.threads}"]
        theirs = b.peer("step.py", "--compute", compute, "--batch", "8", "--data", b.args.data, "--tokenizer", b.args.tokenizer,
                        "--examples", b.args.examples)
        mine, peer = b.turns([Timed(ours), Peer(theirs)], b.args.rounds)
    b.row(f"epoch over {b.args.examples} examples against padded batches ({compute})", b.args.examples / median(mine, "wall_seconds"),
          b.args.examples / median(peer, "seconds"), 5, None, "examples/s")
    print(f"  real tokens: {peer[0]['tokens']:,} of {peer[0]['padded_tokens']:,} in padded batches")


def peer_quantizing(b):
    peer, = b.turns([b.peer("quantize.py")], b.args.rounds)
    ours = quantizing(b)
    for what, name, key, at_least in (("encode NF4 + DQ", "BM_encode", "encode_weights_per_second", 60),
                                      ("decode NF4 + DQ to bf16", "BM_decode", "decode_weights_per_second", 15)):
        b.row(what + " against bitsandbytes", ours[name] / 1e6, median(peer, key) / 1e6, at_least, None, "M/s")


def peer_generation(b):
    ours, peer = b.turns([b.nibble("--generation"), b.peer("generate.py", "--model", b.args.model)], b.args.rounds)
    b.pair("writing one answer against llama.cpp", ours, peer, "tokens_per_second", 2.5,
           median(ours, "tokens_per_second") / median(ours, "bandwidth_share") / median(peer, "tokens_per_second"))
    b.pair("reading 512 tokens against llama.cpp", ours, peer, "prefill_tokens_per_second", 4)


OWN = [steps, packing, generation]
PEERS = [peer_step, peer_f32, peer_compiled, peer_epoch, peer_quantizing, peer_generation]


def machine():
    cpu = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    flags = next((line for line in open("/proc/cpuinfo") if line.startswith("flags")), "").split()
    return {"cpu": cpu, "cores": os.cpu_count(), "avx2": "avx2" in flags, "avx512bf16": "avx512_bf16" in flags,
            "system": platform.platform()}


def main():
    names = [f.__name__ for f in OWN + PEERS]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nibble", default=ROOT / "build/release/nibble")
    parser.add_argument("--quant", default=ROOT / "build/release/bench/bench_quant")
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", help="Alpaca's JSON, for packed lengths and the epoch")
    parser.add_argument("--tokenizer", help="the model's tokenizer.json, for the peer's epoch")
    parser.add_argument("--examples", type=int, default=1000, help="examples of the epoch")
    parser.add_argument("--python", help="interpreter of the peers' virtual environment; without it nibble runs alone")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", nargs="*", choices=names, metavar="NAME", help="of " + ", ".join(names))
    parser.add_argument("--out", default="build/bench.json")
    args = parser.parse_args()

    b = Bench(args)
    print(f"{'':<58} {'nibble':>9} {'other':>9} {'':<10} {'ratio':>6} {'ceiling':>8} {'at least':>8}")
    for compare in OWN + (PEERS if args.python else []):
        if not args.only or compare.__name__ in args.only:
            compare(b)
    document = {"machine": machine(), "command": " ".join(sys.argv), "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "commit": subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip(),
                "versions": b.versions, "rows": b.rows, "runs": b.raw}
    out = ROOT / args.out
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=1) + "\n")
    print(f"written to {out}")


if __name__ == "__main__":
    main()
