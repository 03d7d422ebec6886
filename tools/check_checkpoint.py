"""Loads what `nibble quantize` wrote, and an adapter over it, as their users would.

  python tools/check_checkpoint.py CHECKPOINT [--source DIR] [--report quantize.json] [--adapter DIR]
                                   [--nibble build/release/nibble [--text FILE] [--original MODEL]]

Needs torch, transformers, bitsandbytes and (for an adapter) peft. Checks that every linear layer came out as a bitsandbytes
one, everything else dense; with --source (the unquantized Hugging Face directory) and --report (nibble's --json) that the
decoded values have the error nibble measured; with --adapter, written by nibble or by PEFT, that PEFT finds every key. With
--nibble that AutoTokenizer gives nibble's ids for a text, and that Transformers (and PEFT) and nibble give each of its tokens
the same log-probability in f32; with --original (what the checkpoint was quantized from, --dtype f32) that nibble gives them
over that model too, quantizing it on loading, and that its tokenizer gives the same ids.
"""
import argparse
import json
import os
import subprocess
import tempfile
import warnings

import bitsandbytes as bnb
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TOLERANCE = 1e-4
parser = argparse.ArgumentParser()
parser.add_argument("checkpoint")
parser.add_argument("--source")
parser.add_argument("--report")
parser.add_argument("--adapter")
parser.add_argument("--nibble")
parser.add_argument("--text", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "README.md"))
parser.add_argument("--original")
parser.add_argument("--tokens", type=int, default=512, help="how many tokens of the text are scored")
args = parser.parse_args()

model, info = AutoModelForCausalLM.from_pretrained(args.checkpoint, device_map="cpu", dtype=torch.float32,
                                                   output_loading_info=True)
assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
linear, dense = {}, []
for name, module in model.named_modules():
    if isinstance(module, bnb.nn.Linear4bit):
        module.compute_dtype, module.compute_type_is_set = torch.float32, True
        module.support_avx512bf16_for_cpu = False  # its kernel for that computes in bf16, whatever it is given
        linear[name] = bnb.functional.dequantize_4bit(module.weight.data, module.weight.quant_state).float()
    elif isinstance(module, bnb.nn.Linear8bitLt):
        linear[name] = module.weight.data.float() * module.weight.SCB.float()[:, None] / 127
    elif isinstance(module, torch.nn.Linear):
        dense.append(name)
print(f"{len(linear)} quantized layers, dense: {dense}, dtype in config.json {model.config.dtype}")
assert linear and dense in ([], ["lm_head"]), dense

if args.source:
    source = AutoModelForCausalLM.from_pretrained(args.source, dtype=torch.float32).state_dict()
    error = sum(((v - source[n + ".weight"]).double() ** 2).sum().item() for n, v in linear.items())
    power = sum((source[n + ".weight"].double() ** 2).sum().item() for n in linear)
    relative = (error / power) ** 0.5
    print(f"error of the decoded values: {relative:.9f} of their norm")
    if args.report:
        measured = json.load(open(args.report))["error"]["relative"]
        print(f"measured by nibble:          {measured:.9f}")
        assert abs(relative - measured) < 1e-6 * measured, "the values are not those nibble wrote"

if args.adapter:
    from peft import PeftModel
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(model, args.adapter)
    missing = [str(w.message) for w in seen if "missing" in str(w.message)]
    assert not missing, missing
    print(f"adapter: {sum('lora_A' in n for n, _ in model.named_parameters())} modules")
model.eval()

with torch.no_grad():
    logits = model(input_ids=torch.tensor([[1, 5, 9, 3]])).logits
assert torch.isfinite(logits).all()


def nibble(*arguments):
    done = subprocess.run([args.nibble, *arguments, "--json"], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def nibble_scores(path, quantize, text):
    with tempfile.TemporaryDirectory() as folder:
        adapter = ["--adapter", args.adapter] if args.adapter else []
        nibble("eval", "ppl", "--model", path, *adapter, "--quantize", *quantize, "--dtype", "f32", "--text", text,
               "--context", str(2 * args.tokens), "--per-token", f"{folder}/tokens.jsonl")
        lines = [json.loads(line) for line in open(f"{folder}/tokens.jsonl")]
    return [line["id"] for line in lines], torch.tensor([line["logprob"] for line in lines])


if args.nibble:
    tokenizer = AutoTokenizer.from_pretrained(args.checkpoint)
    whole = open(args.text, newline="").read()
    ids = tokenizer(whole)["input_ids"]
    assert ids == nibble("tokenize", "--model", args.checkpoint, "--file", args.text)["ids"], "AutoTokenizer's ids differ"
    if args.original:
        assert ids == nibble("tokenize", "--model", args.original, "--file", args.text)["ids"], "the original's ids differ"
    print(f"tokenizer: {len(ids)} ids of {len(whole.encode())} bytes are the same"
          + (", it has a chat template" if tokenizer.chat_template else ""))
    with tempfile.NamedTemporaryFile("w", newline="") as file:
        file.write(whole[:args.tokens])  # a character is at least a token's worth of text
        file.flush()
        ids = tokenizer(whole[:args.tokens])["input_ids"]
        with torch.no_grad():
            scores = model(input_ids=torch.tensor([ids])).logits[0, :-1].double().log_softmax(-1)
        expected = scores.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        runs = [("the checkpoint", args.checkpoint, ["stored"])]
        if args.original:
            state = next(m for m in model.modules() if isinstance(m, bnb.nn.Linear4bit)).weight.quant_state
            double = "--double-quant" if state.nested else "--no-double-quant"
            runs.append(("the original", args.original, [state.quant_type, double, "--block-size", str(state.blocksize)]))
        for name, path, quantize in runs:
            theirs, found = nibble_scores(path, quantize, file.name)
            assert theirs == ids[1:], "other tokens were scored"
            worst = (found - expected).abs().max().item()
            print(f"log-probabilities of {len(found)} tokens, nibble over {name}: at most {worst:.2e} apart")
            assert worst < TOLERANCE, "the logits differ"
print("ok")
