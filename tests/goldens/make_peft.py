"""Makes tests/goldens/peft/ (torch 2.15, transformers 5.23, peft 0.20, bitsandbytes 0.50.2): adapters and logits over a
checkpoint that nibble quantized. Usage: make_peft.py build/release/nibble. Run make_tiny_llama.py first.

  checkpoint/      `nibble quantize` of tiny_llama, nf4 with double quantization, f32
  by_nibble/       an adapter that nibble trained on it, three steps
  by_peft/         one written by PEFT: fewer targets, rank-stabilized, a rank and an alpha of their own for some modules
  logits.safetensors  of Transformers, bitsandbytes and PEFT over checkpoint/ in f32: alone, with each adapter; and the ids
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile

import bitsandbytes as bnb
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

GOLDENS = os.path.dirname(os.path.abspath(__file__))
TINY, HERE = f"{GOLDENS}/tiny_llama", f"{GOLDENS}/peft"
NIBBLE = os.path.abspath(sys.argv[1])
torch.manual_seed(99)
torch.set_num_threads(1)
shutil.rmtree(HERE, ignore_errors=True)
os.makedirs(HERE)


def train(folder):
    """Three steps on strings of single characters, which is what a tokenizer of 94 pieces is enough for."""
    base = f"{folder}/base"
    shutil.copytree(f"{HERE}/checkpoint", base)
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    vocab = {chr(c): c - 33 for c in range(33, 127)}
    json.dump({"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": level, "post_processor": None,
               "decoder": level, "model": {"type": "BPE", "unk_token": None, "vocab": vocab, "merges": []}},
              open(f"{base}/tokenizer.json", "w"))
    json.dump({"eos_token": "~"}, open(f"{base}/special_tokens_map.json", "w"))
    with open(f"{folder}/data.jsonl", "w") as file:
        for i in range(12):
            file.write(json.dumps({"text": "".join(chr(97 + (i + j * (1 + i % 3)) % 26) for j in range(20))}) + "\n")
    subprocess.run([NIBBLE, "train", "--model", base, "--data", f"{folder}/data.jsonl", "--out", f"{folder}/run",
                    "quantize=stored", "dtype=f32", "max_steps=3", "lora_r=4", "lora_alpha=8", "learning_rate=0.02",
                    "eval_fraction=0", "lora_dropout=0", "per_device_train_batch_size=4"], check=True)
    os.makedirs(f"{HERE}/by_nibble")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(f"{folder}/run/{name}", f"{HERE}/by_nibble/{name}")
    path = f"{HERE}/by_nibble/adapter_config.json"
    config = json.load(open(path))
    config["base_model_name_or_path"] = "checkpoint"
    json.dump(config, open(path, "w"), indent=2)


def load():
    model = AutoModelForCausalLM.from_pretrained(f"{HERE}/checkpoint", device_map="cpu", dtype=torch.float32,
                                                 attn_implementation="eager").eval()
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.compute_dtype, module.compute_type_is_set = torch.float32, True
            module.support_avx512bf16_for_cpu = False  # its kernel for that computes in bf16, whatever it is given
    return model


def write_by_peft():
    config = LoraConfig(r=4, lora_alpha=6, use_rslora=True, lora_dropout=0.0, task_type="CAUSAL_LM",
                        target_modules=["q_proj", "v_proj", "down_proj"], rank_pattern={"layers.1.self_attn.q_proj": 2},
                        alpha_pattern={"down_proj": 3})
    model = get_peft_model(load(), config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.copy_(torch.randn_like(p) * (0.15 if "lora_A" in name else 0.1))
    model.peft_config["default"].base_model_name_or_path = "checkpoint"
    model.save_pretrained(f"{HERE}/by_peft")
    os.remove(f"{HERE}/by_peft/README.md")


IDS = torch.randint(3, 96, (1, 32))


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits[0].float().contiguous()


subprocess.run([NIBBLE, "quantize", "--model", TINY, "--out", f"{HERE}/checkpoint", "--quantize", "nf4", "--double-quant",
                "--dtype", "f32"], check=True)
with tempfile.TemporaryDirectory() as temporary:
    train(temporary)
write_by_peft()
out = {"ids": IDS[0].int(), "base": logits(load())}
for adapter in ("by_nibble", "by_peft"):
    out[adapter] = logits(PeftModel.from_pretrained(load(), f"{HERE}/{adapter}").eval())
    print(adapter, "moves logits by up to", (out[adapter] - out["base"]).abs().max().item())
save_file(out, f"{HERE}/logits.safetensors")
