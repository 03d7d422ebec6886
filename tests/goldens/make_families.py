"""Makes tests/goldens/families/: small random checkpoints of every decoder-only family, one folder per setting of its
switches, and what Transformers and PEFT make of them in f32.

  python tests/goldens/make_families.py [CASE …]        (torch 2.15, transformers 5.23, peft 0.21, bitsandbytes 0.50.2)

  <case>/config.json, model.safetensors   the checkpoint as save_pretrained writes it, F16
  <case>/adapter/                         LoRA r=2, alpha=6 on PEFT's "all-linear", A and B random, written by PEFT
  <case>/golden.safetensors               logits.base and logits.adapter [tokens, vocab] of the sequences one after the other;
                                          grad.<PEFT's name> of each LoRA matrix; for full fine-tuning of every parameter
                                          full.<name>.norm and .sample, every (numel / 64)th value in [out, in] order
  <case>/bnb/                             gpt2 alone: the same as bnb-4bit (NF4, double quantization), written by Transformers
  cases.json                              sequences, labels, losses

labels[i] is the id at i where it is trained and -100 elsewhere; position i - 1 predicts it; losses are means over them.
"""
import json
import os
import shutil
import sys

import bitsandbytes.functional as bnb
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "families")
torch.set_num_threads(1)

NEOX = dict(vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
            max_position_embeddings=64, bos_token_id=0, eos_token_id=0)
OPT = dict(vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=48, max_position_embeddings=40,
           word_embed_proj_dim=32, dropout=0.0)
BLOOM = dict(vocab_size=96, hidden_size=32, n_layer=2, n_head=4)
GPT2 = dict(vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=40, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
            bos_token_id=0, eos_token_id=0)
LLAMA = dict(vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             intermediate_size=48, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0)
LONG = dict(rope_type="longrope", rope_theta=10000.0, short_factor=[1.0, 1.3, 1.9], long_factor=[1.5, 4.0, 9.0],
            original_max_position_embeddings=8)
CASES = {
    "gpt_neox": ("GPTNeoX", NEOX, dict(rotary_pct=0.25, use_parallel_residual=True)),
    "gpt_neox_sequential": ("GPTNeoX", NEOX, dict(rotary_pct=1.0, rotary_emb_base=500.0, use_parallel_residual=False,
                                                  attention_bias=False, hidden_act="gelu_new")),
    "opt": ("OPT", OPT, {}),
    "opt_350m": ("OPT", OPT, dict(do_layer_norm_before=False, word_embed_proj_dim=16)),
    "opt_plain": ("OPT", OPT, dict(enable_bias=False, layer_norm_elementwise_affine=False, activation_function="gelu",
                                   tie_word_embeddings=False)),
    "bloom": ("Bloom", BLOOM, {}),
    "bloom_six_heads": ("Bloom", BLOOM, dict(hidden_size=24, n_head=6, apply_residual_connection_post_layernorm=True)),
    "gpt2": ("GPT2", GPT2, {}),
    "gpt2_scales": ("GPT2", GPT2, dict(scale_attn_by_inverse_layer_idx=True, n_inner=40, activation_function="relu")),
    "gpt2_plain": ("GPT2", GPT2, dict(scale_attn_weights=False, n_inner=64, activation_function="gelu",
                                     tie_word_embeddings=False)),
    "qwen3": ("Qwen3", LLAMA, dict(head_dim=16)),
    "phi3": ("Phi3", LLAMA, dict(sliding_window=5)),
    "phi3_longrope": ("Phi3", LLAMA, dict(rope_parameters={**LONG, "partial_rotary_factor": 0.75},
                                          original_max_position_embeddings=8)),
    "gemma": ("Gemma", LLAMA, dict(head_dim=16)),
    "gemma2": ("Gemma2", LLAMA, dict(head_dim=16, sliding_window=4, query_pre_attn_scalar=24, attn_logit_softcapping=2.0,
                                     final_logit_softcapping=3.0)),
    "gemma3": ("Gemma3", LLAMA, dict(head_dim=16, sliding_window=4, query_pre_attn_scalar=24,
                                     layer_types=["sliding_attention", "full_attention"],
                                     rope_parameters={"sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
                                                      "full_attention": {"rope_type": "linear", "factor": 4.0,
                                                                         "rope_theta": 3000.0}})),
}

generator = torch.Generator().manual_seed(77)
SEQUENCES = [torch.randint(3, 96, (17,), generator=generator).tolist(), torch.randint(3, 96, (9,), generator=generator).tolist()]
LABELS = [[-100] * 4 + SEQUENCES[0][4:], [-100] * 2 + SEQUENCES[1][2:8] + [-100]]


def randomized(name):
    family, base, change = CASES[name]
    config_class = "Gemma3TextConfig" if family == "Gemma3" else family + "Config"
    config = getattr(transformers, config_class)(**{**base, **change})
    config._attn_implementation = "eager"
    cls = getattr(transformers, "GPT2LMHeadModel" if family == "GPT2" else family + "ForCausalLM")
    torch.manual_seed(sum(map(ord, name)))
    model = cls(config).float().eval()
    gemma = family.startswith("Gemma")
    with torch.no_grad():
        for path, p in model.named_parameters():
            norm = "norm" in path or ".ln_" in path
            if path.endswith("bias"):
                p.copy_(0.3 * torch.randn_like(p))
            elif norm:
                p.copy_((0.0 if gemma else 1.0) + 0.3 * torch.randn_like(p))
            elif "embed" in path or "wte" in path or "wpe" in path or "lm_head" in path:
                p.copy_(torch.randn_like(p) * (0.3 if gemma or "lm_head" in path else 0.7))
            else:
                conv = isinstance(model.get_submodule(path.rpartition(".")[0]), Conv1D)
                p.copy_(torch.randn_like(p) * 1.5 / p.shape[0 if conv else 1] ** 0.5)
            p.copy_(p.half().float())
    return model


def load(name):
    return AutoModelForCausalLM.from_pretrained(f"{HERE}/{name}", dtype=torch.float32, attn_implementation="eager").eval()


def logits(model, ids):
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


def loss_of(model):
    total, count = 0.0, 0
    for ids, labels in zip(SEQUENCES, LABELS):
        target = torch.tensor(labels[1:])
        total = total + torch.nn.functional.cross_entropy(logits(model, ids)[:-1], target, ignore_index=-100, reduction="sum")
        count += int((target != -100).sum())
    return total / count


def full_gradients(model, names, out):
    """names: what the checkpoint file holds; Transformers 5 calls some modules otherwise."""
    loss_of(model).backward()
    for path, p in model.named_parameters():
        name = path if path in names else path.replace("lm_head", "embed_out")
        assert name in names, (path, sorted(names))
        g = p.grad
        if path.endswith("weight") and isinstance(model.get_submodule(path.rpartition(".")[0]), Conv1D):
            g = g.T
        g = g.contiguous().flatten()
        out[f"full.{name}.norm"] = g.norm().reshape(1)
        out[f"full.{name}.sample"] = g[:: max(1, g.numel() // 64)].clone()


def make_adapter(name):
    model = get_peft_model(load(name), LoraConfig(r=2, lora_alpha=6, lora_dropout=0.0, target_modules="all-linear",
                                                  task_type="CAUSAL_LM"))
    with torch.no_grad():
        for path, p in model.named_parameters():
            if "lora_" in path:
                p.copy_(torch.randn_like(p) * (0.2 if "lora_A" in path else 0.15))
    model.peft_config["default"].base_model_name_or_path = name
    model.save_pretrained(f"{HERE}/{name}/adapter")
    os.remove(f"{HERE}/{name}/adapter/README.md")


def make_bnb(name, out):
    path = f"{HERE}/{name}/bnb"
    q = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                           bnb_4bit_compute_dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(f"{HERE}/{name}", quantization_config=q, dtype=torch.float32, device_map="cpu")
    model.save_pretrained(path)
    for extra in ("generation_config.json",):
        if os.path.exists(f"{path}/{extra}"):
            os.remove(f"{path}/{extra}")
    dense = load(name)
    quantized = AutoModelForCausalLM.from_pretrained(path, device_map="cpu")
    with torch.no_grad():
        for path, module in quantized.named_modules():
            if hasattr(getattr(module, "weight", None), "quant_state"):
                weight = bnb.dequantize_4bit(module.weight.data, module.weight.quant_state).float()
                target = dense.get_submodule(path)
                target.weight.copy_(weight.T if isinstance(target, Conv1D) else weight)
        out["logits.bnb"] = torch.cat([logits(dense, s) for s in SEQUENCES])


def make(name):
    folder = f"{HERE}/{name}"
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    randomized(name).half().save_pretrained(folder)
    if os.path.exists(f"{folder}/generation_config.json"):
        os.remove(f"{folder}/generation_config.json")
    with safe_open(f"{folder}/model.safetensors", "pt") as f:
        names = set(f.keys())
    out = {}
    base = load(name)
    with torch.no_grad():
        out["logits.base"] = torch.cat([logits(base, s) for s in SEQUENCES])
        base_loss = loss_of(base).item()
    full_gradients(base, names, out)
    torch.manual_seed(sum(map(ord, name)) + 1)
    make_adapter(name)
    model = PeftModel.from_pretrained(load(name), f"{folder}/adapter", is_trainable=True)
    with torch.no_grad():
        out["logits.adapter"] = torch.cat([logits(model, s) for s in SEQUENCES])
    loss = loss_of(model)
    loss.backward()
    for path, p in model.named_parameters():
        if p.requires_grad:
            out["grad." + path.replace(".default", "")] = p.grad.clone()
    if name == "gpt2":
        make_bnb(name, out)
    save_file({k: v.detach().contiguous() for k, v in out.items()}, f"{folder}/golden.safetensors")
    return {"base_loss": base_loss, "loss": loss.item()}


if __name__ == "__main__":
    path = f"{HERE}/cases.json"
    os.makedirs(HERE, exist_ok=True)
    report = json.load(open(path)) if os.path.exists(path) else {"losses": {}}
    report["sequences"], report["labels"] = SEQUENCES, LABELS
    for case in sys.argv[1:] or CASES:
        report["losses"][case] = make(case)
    json.dump(report, open(path, "w"), indent=1)
    for case in sys.argv[1:] or CASES:
        sizes = {f: os.path.getsize(os.path.join(r, f)) for r, _, fs in os.walk(f"{HERE}/{case}") for f in fs}
        print(case, sum(sizes.values()), report["losses"][case])
