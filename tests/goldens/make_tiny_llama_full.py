"""Makes tests/goldens/tiny_llama_full/: gradients of every weight of the tiny LLaMA under full fine-tuning.

  python tests/goldens/make_tiny_llama_full.py     (torch 2.15, transformers 5.23; reads tests/goldens/tiny_llama)

  <variant>.safetensors   of each weight, under its checkpoint name: norm f32 [1] ("<name>.norm") and every k-th value of
                          the flattened gradient, k = max(1, n // 64) ("<name>.sample")
  losses.json             the loss of each variant: mean over the trained tokens of both sequences of cases.json
"""
import json
import os

import torch
import transformers
from safetensors.torch import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
TINY, OUT = f"{HERE}/tiny_llama", f"{HERE}/tiny_llama_full"
CONFIG = json.load(open(f"{TINY}/config.json"))
CASES = json.load(open(f"{TINY}/cases.json"))
VARIANTS = {"untied": {}, "tied": {"tie_word_embeddings": True}, "biases": {"attention_bias": True, "mlp_bias": True}}

torch.set_num_threads(1)
os.makedirs(OUT, exist_ok=True)
losses = {}
for variant, change in VARIANTS.items():
    config = {**CONFIG, **change}
    state = {k: v.float() for k, v in load_file(f"{TINY}/model.safetensors").items()}
    if variant == "biases":
        state.update(load_file(f"{TINY}/biases.safetensors"))
    if variant == "tied":
        del state["lm_head.weight"]
    made = transformers.LlamaConfig(**{k: v for k, v in config.items() if k not in ("architectures", "model_type", "dtype")})
    made._attn_implementation = "eager"
    model = transformers.LlamaForCausalLM(made).float()
    model.load_state_dict(state, strict=False)
    model.tie_weights()
    total, count = 0.0, 0
    for ids, labels in zip(CASES["sequences"], CASES["labels"]):
        target = torch.tensor(labels[1:])
        logits = model(input_ids=torch.tensor([ids])).logits[0][:-1]
        total = total + torch.nn.functional.cross_entropy(logits, target, ignore_index=-100, reduction="sum")
        count += int((target != -100).sum())
    loss = total / count
    loss.backward()
    losses[variant] = loss.item()
    out = {}
    for name, p in model.named_parameters():
        flat = p.grad.flatten()
        out[name + ".norm"] = flat.double().norm().float().reshape(1)
        out[name + ".sample"] = flat[:: max(1, flat.numel() // 64)].contiguous()
    save_file(out, f"{OUT}/{variant}.safetensors")
json.dump(losses, open(f"{OUT}/losses.json", "w"), indent=1)
