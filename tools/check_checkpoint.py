"""Loads what `nibble quantize` wrote, and an adapter that nibble trained, as their users would.

  python tools/check_checkpoint.py CHECKPOINT [--source DIR] [--report quantize.json] [--adapter DIR]

Needs torch, transformers, bitsandbytes and (for an adapter) peft. Checks that every linear layer came out as a bitsandbytes
one, everything else dense; with --source (the unquantized Hugging Face directory) and --report (nibble's --json) that the
decoded values have the error nibble measured; with --adapter that PEFT finds every key.
"""
import argparse
import json
import warnings

import bitsandbytes as bnb
import torch
from transformers import AutoModelForCausalLM

parser = argparse.ArgumentParser()
parser.add_argument("checkpoint")
parser.add_argument("--source")
parser.add_argument("--report")
parser.add_argument("--adapter")
args = parser.parse_args()

model, info = AutoModelForCausalLM.from_pretrained(args.checkpoint, device_map="cpu", output_loading_info=True)
assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
linear, dense = {}, []
for name, module in model.named_modules():
    if isinstance(module, bnb.nn.Linear4bit):
        linear[name] = bnb.functional.dequantize_4bit(module.weight.data, module.weight.quant_state).float()
    elif isinstance(module, bnb.nn.Linear8bitLt):
        linear[name] = module.weight.data.float() * module.weight.SCB.float()[:, None] / 127
    elif isinstance(module, torch.nn.Linear):
        dense.append(name)
print(f"{len(linear)} quantized layers, dense: {dense}, dtype {model.dtype}")
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

with torch.no_grad():
    logits = model(input_ids=torch.tensor([[1, 5, 9, 3]])).logits
assert torch.isfinite(logits).all()
print("ok")
