"""A classifier trained by nibble and by Transformers + PEFT, alike in every setting, and each one's adapter loaded by the other.

  python tools/check_glue.py MODEL GLUE --nibble build/release/nibble [--tasks mrpc rte] [--seeds 1 2 3 4 5]
                             [--take 1000] [--epochs 2] [--rate 5e-4]

Needs torch, transformers, peft, scipy. MODEL is a directory of an encoder, GLUE holds MRPC, RTE and STS-B as they are published.
Both sides see the same first examples, in the same order, from the same starting head and adapters (those of a run of nibble
that learned at a rate of 1e-30: PEFT loads its adapter and trains on), with AdamW, the same rates step by step, the same limit
on the gradient's norm and no dropout, in f32. The order is nibble's: Philox4x32-10 is written out here once more.

Printed: both scores for each seed, their means with 95 % intervals (Student's t), the paired difference with its own, and
the largest difference between the logits of the two programs over the held-out texts, for the adapter that nibble wrote and
for the one that PEFT wrote. Fails where a paired difference is significant or logits are more than 1e-3 apart.
"""
import argparse
import json
import math
import shutil
import statistics
import subprocess
import tempfile

import torch
from peft import PeftModel
from scipy.stats import pearsonr, spearmanr, t
from transformers import AutoModelForSequenceClassification, AutoTokenizer, logging

logging.set_verbosity_error()
logging.disable_progress_bar()
TOLERANCE = 1e-3
BATCH, WARMUP, NORM, LENGTH = 16, 0.06, 1.0, 128
parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("glue")
parser.add_argument("--nibble", required=True)
parser.add_argument("--tasks", nargs="+", default=["mrpc", "rte"], choices=["mrpc", "rte", "stsb"])
parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
parser.add_argument("--take", type=int, default=1000)
parser.add_argument("--held-out", type=int, default=0, help="most held-out texts; 0: all")
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--rate", type=float, default=5e-4)
args = parser.parse_args()

FILES = {"mrpc": ("MRPC/msr_paraphrase_train.txt", "MRPC/msr_paraphrase_test.txt"), "rte": ("RTE/train.tsv", "RTE/dev.tsv"),
         "stsb": ("STS-B/sts-train.tsv", "STS-B/sts-dev.tsv")}


def read(task, path, most):
    lines = open(path, encoding="utf-8-sig", newline="").read().replace("\r\n", "\n").strip("\n").split("\n")
    rows = []
    for line in lines if task == "stsb" else lines[1:]:
        f = line.split("\t")
        rows.append((f[3], f[4], int(f[0])) if task == "mrpc" else (f[5], f[6], float(f[4])) if task == "stsb"
                    else (f[1], f[2], ["entailment", "not_entailment"].index(f[3])))
    return rows[:most] if most > 0 else rows


# --- nibble's order of examples ------------------------------------------------------------------
def philox(counter, key):
    c, k, low = list(counter), list(key), 0xFFFFFFFF
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & low, (p0 >> 32) ^ c[3] ^ k[1], p0 & low]
        k = [(k[0] + 0x9E3779B9) & low, (k[1] + 0xBB67AE85) & low]
    return c


def permutation(n, seed, stream):
    low, order = 0xFFFFFFFF, list(range(n))
    for i in range(n - 1, 0, -1):
        w = philox((i & low, i >> 32, stream & low, stream >> 32), (seed & low, seed >> 32))
        j = (((w[1] << 32) | w[0]) * (i + 1)) >> 64
        order[i], order[j] = order[j], order[i]
    return order


def stream_id(name):
    h = 0xCBF29CE484222325
    for c in name.encode():
        h = ((h ^ c) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


# --- the two programs ----------------------------------------------------------------------------
def run(*words):
    done = subprocess.run([args.nibble, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def train_nibble(model, task, path, seed, out, rate, steps):
    run("train", f"model={model}", f"data=[{{path: {path}, format: glue:{task}, take: {args.take}}}]", "quantize=none", "dtype=f32",
        "lora_r=16", "lora_alpha=32", "target_modules=all-linear", f"learning_rate={rate}", "lr_scheduler_type=linear",
        f"warmup_ratio={WARMUP}", f"max_grad_norm={NORM}", "optim=adamw", f"per_device_train_batch_size={BATCH}",
        f"max_steps={steps}", f"max_seq_length={LENGTH}", "overlong=truncate", "eval_fraction=0", f"seed={seed}", f"out={out}")


def score_nibble(model, task, path, adapter, folder):
    file = f"{folder}/predictions.jsonl"
    report = json.loads(run("eval", "glue", "--model", model, "--adapter", adapter, "--quantize", "none", "--dtype", "f32", "--task", task,
                            "--data", path, "--limit", args.held_out, "--predictions", file, "--json"))
    return 100 * report["score"], torch.tensor([json.loads(line)["logits"] for line in open(file)])


def encode(tokenizer, rows, length=LENGTH):
    return tokenizer([r[0] for r in rows], [r[1] for r in rows], truncation="longest_first", max_length=length, padding=True,
                     return_tensors="pt")


def load_peft(model, task, adapter, trainable):
    base = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1 if task == "stsb" else 2, dtype=torch.float32)
    return PeftModel.from_pretrained(base, adapter, is_trainable=trainable)


def train_peft(model, task, rows, tokenizer, start, seed, steps):
    peft = load_peft(model, task, start, True)
    peft.train()
    weights = [p for p in peft.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=args.rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0)
    warm = math.ceil(WARMUP * steps - 1e-9)
    batches, epoch = [], 0
    while len(batches) < steps:
        order = permutation(len(rows), seed, (stream_id("data.order") + epoch) & 0xFFFFFFFFFFFFFFFF)
        batches += [order[i:i + BATCH] for i in range(0, len(order), BATCH)]
        epoch += 1
    losses = []
    for step, batch in enumerate(batches[:steps], 1):
        rate = args.rate * (step / warm if step <= warm else 1 - (step - 1 - warm) / max(steps - warm, 1))
        for group in optimizer.param_groups:
            group["lr"] = rate
        chosen = [rows[i] for i in batch]
        labels = torch.tensor([r[2] for r in chosen], dtype=torch.float32 if task == "stsb" else torch.int64)
        loss = peft(**encode(tokenizer, chosen), labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, NORM)
        optimizer.step()
        losses.append(loss.item())
    return peft, losses


def logits_of(peft, tokenizer, rows):
    peft.eval()
    with torch.no_grad():
        return torch.cat([peft(**encode(tokenizer, rows[i:i + 64], 512)).logits for i in range(0, len(rows), 64)])


def score(task, logits, rows):
    labels = [r[2] for r in rows]
    if task == "stsb":
        values = logits[:, 0].tolist()
        return 50 * (pearsonr(values, labels)[0] + spearmanr(values, labels)[0])
    found = logits.argmax(1).tolist()
    accuracy = sum(a == b for a, b in zip(found, labels)) / len(labels)
    both = sum(a == b == 1 for a, b in zip(found, labels))
    return 100 * accuracy if task == "rte" else 50 * (accuracy + 2 * both / max(sum(found) + sum(labels), 1))


def interval(values):
    half = math.inf
    if len(values) > 1:
        half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.mean(values), half


with tempfile.TemporaryDirectory() as folder:
    model = f"{folder}/model"
    shutil.copytree(args.model, model)
    config = json.load(open(f"{model}/config.json"))
    config.update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    json.dump(config, open(f"{model}/config.json", "w"))
    tokenizer = AutoTokenizer.from_pretrained(model)
    failed = False
    for task in args.tasks:
        train_file, dev_file = (f"{args.glue}/{name}" for name in FILES[task])
        train, dev = read(task, train_file, args.take), read(task, dev_file, args.held_out)
        steps = args.epochs * math.ceil(len(train) / BATCH)
        print(f"{task}: {len(train)} training texts, {len(dev)} held out, {steps} steps of {BATCH} texts", flush=True)
        ours, theirs, worst = [], [], {"nibble": 0.0, "PEFT": 0.0}
        for seed in args.seeds:
            start, out, saved = (f"{folder}/{task}-{seed}-{what}" for what in ("start", "nibble", "peft"))
            train_nibble(model, task, train_file, seed, start, 1e-30, 1)
            train_nibble(model, task, train_file, seed, out, args.rate, steps)
            value, logits = score_nibble(model, task, dev_file, out, folder)
            same = logits_of(load_peft(model, task, out, False), tokenizer, dev)
            worst["nibble"] = max(worst["nibble"], (same - logits).abs().max().item())
            peft, losses = train_peft(model, task, train, tokenizer, start, seed, steps)
            peft.save_pretrained(saved)
            their_logits = logits_of(peft, tokenizer, dev)
            their_value, same = score_nibble(model, task, dev_file, saved, folder)
            worst["PEFT"] = max(worst["PEFT"], (same - their_logits).abs().max().item())
            assert abs(their_value - score(task, their_logits, dev)) < 0.5, "the scorers differ"
            ours.append(value)
            theirs.append(score(task, their_logits, dev))
            mine = [json.loads(line) for line in open(f"{out}/metrics.jsonl")]
            apart = [abs(a["loss"] - b) for a, b in zip((m for m in mine if "loss" in m), losses)]
            print(f"  seed {seed}: nibble {ours[-1]:.2f}, Transformers + PEFT {theirs[-1]:.2f}; losses of the first ten steps at most "
                  f"{max(apart[:10]):.1e} apart, of all {max(apart):.1e}", flush=True)
        difference = interval([a - b for a, b in zip(ours, theirs)])
        for name, (mean, half) in (("nibble", interval(ours)), ("Transformers + PEFT", interval(theirs)), ("difference", difference)):
            print(f"  {name}: {mean:.2f} ± {half:.2f}")
        print(f"  logits, nibble's adapter in PEFT: at most {worst['nibble']:.1e} apart; PEFT's adapter in nibble: {worst['PEFT']:.1e}")
        failed |= abs(difference[0]) > difference[1] or max(worst.values()) > TOLERANCE
    assert not failed, "a difference is significant, or logits are too far apart"
print("ok")
