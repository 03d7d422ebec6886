"""Makes tests/goldens/t5/: small random encoder–decoders, one folder per setting of their switches, and what Transformers and
PEFT make of them in f32.

  python tests/goldens/make_t5.py [CASE …]        (torch 2.15, transformers 5.23, peft 0.21, bitsandbytes 0.50.2)

  <case>/config.json, model.safetensors   the checkpoint as save_pretrained writes it, F16
  <case>/adapter/                         LoRA r=2, alpha=6 on PEFT's "all-linear", A and B random, written by PEFT
  <case>/golden.safetensors               logits.base and logits.adapter [target tokens, vocab] of the pairs one after the other;
                                          grad.<PEFT's name> of each LoRA matrix; for full fine-tuning of every parameter
                                          full.<name>.norm and .sample, every (numel / 64)th value
  <case>/bnb/                             v1_1 alone: the same as bnb-4bit (NF4, double quantization), written by Transformers
  cases.json                              sources, targets, losses; what greedy generation with the adapter writes; the bucket of
                                          every distance from -200 to 200 for several settings

The decoder reads the start token and all of a target but its last token; losses are means over the targets' tokens.
"""
import json
import os
import shutil
import sys

import bitsandbytes.functional as bnb
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import BitsAndBytesConfig, T5Config, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Attention

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "t5")
torch.set_num_threads(1)

BASE = dict(vocab_size=96, d_model=32, d_kv=6, d_ff=40, num_layers=2, num_heads=4, relative_attention_num_buckets=8,
            relative_attention_max_distance=12, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0)
CASES = {
    # As published: v1.0 says nothing of the head, v1.1 that it is untied, which also means that logits are not scaled.
    "v1_0": dict(),
    "v1_1": dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False, d_kv=10, num_decoder_layers=3),
    # As Transformers 5 writes one: tied and not scaled.
    "tied_unscaled": dict(feed_forward_proj="gated-silu", scale_decoder_outputs=False, num_decoder_layers=1, num_heads=2,
                          relative_attention_num_buckets=32, relative_attention_max_distance=128, decoder_start_token_id=3),
}
SETTINGS = [(True, 32, 128), (False, 32, 128), (True, 8, 12), (False, 8, 12), (False, 20, 50)]

generator = torch.Generator().manual_seed(78)


def ids(n):
    return torch.randint(3, 96, (n,), generator=generator).tolist()


SOURCES = [ids(23) + [1], ids(6) + [1], ids(1)]
TARGETS = [ids(5) + [1], ids(16) + [1], ids(7) + [1]]


def randomized(name):
    change = CASES[name]
    config = T5Config(**{**BASE, **change})
    config._attn_implementation = "eager"
    torch.manual_seed(sum(map(ord, name)))
    model = T5ForConditionalGeneration(config).float().eval()
    if change.get("tie_word_embeddings") is False:
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.shared.weight))
    with torch.no_grad():
        for path, p in model.named_parameters():
            if "layer_norm" in path:
                p.copy_(1 + 0.3 * torch.randn_like(p))
            elif "relative_attention_bias" in path:
                p.copy_(torch.randn_like(p))
            elif "shared" in path:
                p.copy_(torch.randn_like(p) * 0.7)
            elif "lm_head" in path:
                p.copy_(torch.randn_like(p) * 0.3)
            elif path.endswith(".q.weight"):
                p.copy_(torch.randn_like(p) * (p.shape[1] * config.d_kv) ** -0.5)
            else:
                p.copy_(torch.randn_like(p) * 1.2 / p.shape[1] ** 0.5)
            p.copy_(p.half().float())
    return model


def load(name):
    return T5ForConditionalGeneration.from_pretrained(f"{HERE}/{name}", dtype=torch.float32, attn_implementation="eager").eval()


def logits(model, source, target):
    start = [model.config.decoder_start_token_id]
    return model(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([start + target[:-1]]), use_cache=False).logits[0]


def all_logits(model):
    return torch.cat([logits(model, s, t) for s, t in zip(SOURCES, TARGETS)])


def loss_of(model):
    return torch.nn.functional.cross_entropy(all_logits(model), torch.tensor(sum(TARGETS, [])))


def make_bnb(name, out):
    path = f"{HERE}/{name}/bnb"
    q = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                           bnb_4bit_compute_dtype=torch.float32)
    model = T5ForConditionalGeneration.from_pretrained(f"{HERE}/{name}", quantization_config=q, dtype=torch.float32, device_map="cpu")
    model.save_pretrained(path)
    if os.path.exists(f"{path}/generation_config.json"):
        os.remove(f"{path}/generation_config.json")
    dense = load(name)
    quantized = T5ForConditionalGeneration.from_pretrained(path, device_map="cpu")
    dense_left = []
    with torch.no_grad():
        for module_path, module in quantized.named_modules():
            if hasattr(getattr(module, "weight", None), "quant_state"):
                weight = bnb.dequantize_4bit(module.weight.data, module.weight.quant_state).float()
                dense.get_submodule(module_path).weight.copy_(weight)
            elif isinstance(module, torch.nn.Linear):
                dense_left.append(module_path)
        out["logits.bnb"] = all_logits(dense)
    return dense_left


def make(name):
    folder = f"{HERE}/{name}"
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    randomized(name).half().save_pretrained(folder)
    if os.path.exists(f"{folder}/generation_config.json"):
        os.remove(f"{folder}/generation_config.json")
    if name != "tied_unscaled":  # as published, not as Transformers 5 writes it
        config = json.load(open(f"{folder}/config.json"))
        config.pop("scale_decoder_outputs", None)
        config["tie_word_embeddings"] = CASES[name].get("tie_word_embeddings", True)
        json.dump(config, open(f"{folder}/config.json", "w"), indent=2)
    with safe_open(f"{folder}/model.safetensors", "pt") as f:
        names = set(f.keys())
    out, report = {}, {}
    base = load(name)
    with torch.no_grad():
        out["logits.base"] = all_logits(base)
    loss = loss_of(base)
    loss.backward()
    report["base_loss"] = loss.item()
    for path, p in base.named_parameters():
        assert path in names, (path, sorted(names))
        g = p.grad.contiguous().flatten()
        out[f"full.{path}.norm"] = g.norm().reshape(1)
        out[f"full.{path}.sample"] = g[:: max(1, g.numel() // 64)].clone()
    torch.manual_seed(sum(map(ord, name)) + 1)
    model = get_peft_model(load(name), LoraConfig(r=2, lora_alpha=6, lora_dropout=0.0, target_modules="all-linear",
                                                  task_type="SEQ_2_SEQ_LM"))
    with torch.no_grad():
        for path, p in model.named_parameters():
            if "lora_" in path:
                p.copy_(torch.randn_like(p) * (0.2 if "lora_A" in path else 0.15))
    model.peft_config["default"].base_model_name_or_path = name
    model.save_pretrained(f"{folder}/adapter")
    os.remove(f"{folder}/adapter/README.md")
    model = PeftModel.from_pretrained(load(name), f"{folder}/adapter", is_trainable=True)
    with torch.no_grad():
        out["logits.adapter"] = all_logits(model)
        report["generated"] = [
            # Without its cache, which counts the encoder's layers.
            model.generate(input_ids=torch.tensor([s]), max_new_tokens=12, num_beams=1, do_sample=False, use_cache=False)[0].tolist()
            for s in SOURCES]
    loss = loss_of(model)
    loss.backward()
    report["loss"] = loss.item()
    for path, p in model.named_parameters():
        if p.requires_grad:
            out["grad." + path.replace(".default", "")] = p.grad.clone()
    if name == "v1_1":
        report["dense_beside_4bit"] = make_bnb(name, out)
    save_file({k: v.detach().contiguous() for k, v in out.items()}, f"{folder}/golden.safetensors")
    return report


if __name__ == "__main__":
    path = f"{HERE}/cases.json"
    os.makedirs(HERE, exist_ok=True)
    report = json.load(open(path)) if os.path.exists(path) else {"cases": {}}
    report["sources"], report["targets"] = SOURCES, TARGETS
    report["buckets"] = [{"both_ways": both, "buckets": n, "furthest": d,
                          "of": T5Attention._relative_position_bucket(torch.arange(-200, 201), both, n, d).tolist()}
                         for both, n, d in SETTINGS]
    for case in sys.argv[1:] or CASES:
        report["cases"][case] = make(case)
    json.dump(report, open(path, "w"))
    for case in sys.argv[1:] or CASES:
        sizes = {f: os.path.getsize(os.path.join(r, f)) for r, _, fs in os.walk(f"{HERE}/{case}") for f in fs}
        print(case, sum(sizes.values()), report["cases"][case])
