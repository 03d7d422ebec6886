"""Makes tests/goldens/tiny_llama/: a random two-layer LLaMA and what Transformers, PEFT, bitsandbytes make of it.

  python tests/goldens/make_tiny_llama.py        (torch 2.15, transformers 5.23, peft 0.21, bitsandbytes 0.50.2)

  config.json, model.safetensors   the dense checkpoint, BF16 (every value below is computed in f32 from these)
  nf4/                             the same as bnb-4bit (NF4, double quantization), written by Transformers
  adapter/                         LoRA r=4, alpha=8 on all linears, A and B random, written by PEFT
  cases.json                       two sequences with labels, what is stored where, losses
  dense.safetensors, nf4.safetensors   logits [tokens, vocab] of both sequences one after the other, without and with the
                                   adapter; gradients of the adapter under PEFT's names
  variants.json, variants.safetensors, biases.safetensors   changes of config.json and the logits they give

labels[i] is the id at i where it is trained and -100 elsewhere; position i - 1 predicts it. The loss is the mean over the
trained tokens of both sequences together. The ten losses are those before each AdamW step (lr 1e-3, weight decay 0,
betas 0.9 0.999, eps 1e-8, gradients clipped to norm 0.3) on the same batch, an eleventh follows the last step.
"""
import json
import os
import shutil

import bitsandbytes.functional as bnb
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tiny_llama")
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 96, "hidden_size": 64,
    "intermediate_size": 112, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 16, "hidden_act": "silu", "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "rope_scaling": None, "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None, "dtype": "bfloat16",
}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
torch.manual_seed(1234)
torch.set_num_threads(1)


def make_checkpoint():
    shutil.rmtree(HERE, ignore_errors=True)
    os.makedirs(HERE)
    json.dump(CONFIG, open(f"{HERE}/config.json", "w"), indent=2)
    d, f, v, kv = 64, 112, 96, 32
    t = {"model.embed_tokens.weight": torch.randn(v, d)}
    for i in range(CONFIG["num_hidden_layers"]):
        p = f"model.layers.{i}."
        for name, out, inp in (("self_attn.q_proj", d, d), ("self_attn.k_proj", kv, d), ("self_attn.v_proj", kv, d),
                               ("self_attn.o_proj", d, d), ("mlp.gate_proj", f, d), ("mlp.up_proj", f, d),
                               ("mlp.down_proj", d, f)):
            t[p + name + ".weight"] = torch.randn(out, inp) * 1.5 / inp ** 0.5
        t[p + "input_layernorm.weight"] = 1 + 0.2 * torch.randn(d)
        t[p + "post_attention_layernorm.weight"] = 1 + 0.2 * torch.randn(d)
    t["model.norm.weight"] = 1 + 0.2 * torch.randn(d)
    t["lm_head.weight"] = torch.randn(v, d) * 2 / d ** 0.5
    save_file({k: x.to(torch.bfloat16) for k, x in t.items()}, f"{HERE}/model.safetensors", {"format": "pt"})


def load_dense():
    return AutoModelForCausalLM.from_pretrained(HERE, dtype=torch.float32, attn_implementation="eager").eval()


def load_nf4():
    """The NF4 checkpoint's values in an f32 model, so that the products are f32's."""
    model = load_dense()
    quantized = AutoModelForCausalLM.from_pretrained(f"{HERE}/nf4", device_map="cpu")
    with torch.no_grad():
        for name, module in quantized.named_modules():
            if name.split(".")[-1] in TARGETS:
                weight = bnb.dequantize_4bit(module.weight.data, module.weight.quant_state)
                model.get_submodule(name).weight.copy_(weight.float())
    return model


def make_nf4():
    q = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                           bnb_4bit_compute_dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(HERE, quantization_config=q, dtype=torch.float32, device_map="cpu")
    # Transformers' name for what the values were: f32, so that decoding rounds nothing.
    model.save_pretrained(f"{HERE}/nf4")
    if os.path.exists(f"{HERE}/nf4/generation_config.json"):
        os.remove(f"{HERE}/nf4/generation_config.json")


def make_adapter():
    model = get_peft_model(load_dense(), LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=TARGETS,
                                                    task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.copy_(torch.randn_like(p) * (0.15 if "lora_A" in name else 0.1))
    model.peft_config["default"].base_model_name_or_path = "tiny_llama"
    model.save_pretrained(f"{HERE}/adapter")
    os.remove(f"{HERE}/adapter/README.md")


SEQUENCES = [torch.randint(3, 96, (24,)).tolist(), torch.randint(3, 96, (13,)).tolist()]
LABELS = [[-100] * 6 + SEQUENCES[0][6:], [-100] * 3 + SEQUENCES[1][3:11] + [-100] * 2]


def logits(model, ids):
    return model(input_ids=torch.tensor([ids])).logits[0]


def loss_of(model):
    total, count = 0.0, 0
    for ids, labels in zip(SEQUENCES, LABELS):
        target = torch.tensor(labels[1:])
        total = total + torch.nn.functional.cross_entropy(logits(model, ids)[:-1], target, ignore_index=-100,
                                                          reduction="sum")
        count += int((target != -100).sum())
    return total / count, count


def measure(base, path):
    out = {}
    with torch.no_grad():
        out["logits.base"] = torch.cat([logits(base, s) for s in SEQUENCES])
        base_loss, trained = loss_of(base)
    model = PeftModel.from_pretrained(base, f"{HERE}/adapter", is_trainable=True)
    parameters = [p for p in model.parameters() if p.requires_grad]
    with torch.no_grad():
        out["logits.adapter"] = torch.cat([logits(model, s) for s in SEQUENCES])
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)
    losses, norms = [], []
    for step in range(11):
        optimizer.zero_grad()
        loss, _ = loss_of(model)
        losses.append(loss.item())
        if step == 10:
            break
        loss.backward()
        if step == 0:
            for name, p in model.named_parameters():
                if p.requires_grad:
                    out["grad." + name.replace(".default", "")] = p.grad.clone()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters, 0.3).item())
        optimizer.step()
    save_file({k: x.contiguous() for k, x in out.items()}, path)
    return {"base_loss": base_loss.item(), "trained_tokens": trained, "losses": losses, "grad_norms": norms}


def make_variants():
    ids = torch.randint(3, 96, (48,)).tolist()
    biases = {}
    for i in range(2):
        for name, n in (("self_attn.q_proj", 64), ("self_attn.k_proj", 32), ("self_attn.v_proj", 32),
                        ("self_attn.o_proj", 64), ("mlp.gate_proj", 112), ("mlp.up_proj", 112), ("mlp.down_proj", 64)):
            biases[f"model.layers.{i}.{name}.bias"] = 0.5 * torch.randn(n)
    save_file(biases, f"{HERE}/biases.safetensors")
    qwen = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
    cases = {
        "plain": ({}, False),
        "tied": ({"tie_word_embeddings": True}, False),
        "linear": ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, False),
        "dynamic": ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, "max_position_embeddings": 32}, False),
        "llama3": ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                     "original_max_position_embeddings": 64}}, False),
        "yarn": ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}}, False),
        "yarn_attention_factor": ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "attention_factor": 0.9,
                                                    "beta_fast": 16.0, "beta_slow": 2.0,
                                                    "original_max_position_embeddings": 32}}, False),
        "theta": ({"rope_theta": 500000.0}, False),
        "biases": ({"attention_bias": True, "mlp_bias": True}, True),
        "qwen2": (qwen, True),
        "mistral": ({"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 8}, False),
    }
    out, index = {}, {}
    for name, (change, with_biases) in cases.items():
        config = {**CONFIG, **change}
        state = {k: v.float() for k, v in load_file(f"{HERE}/model.safetensors").items()}
        if with_biases:
            kept = ("q_proj", "k_proj", "v_proj") if name == "qwen2" else TARGETS
            state.update({k: v for k, v in biases.items() if k.split(".")[-2] in kept})
        if config["tie_word_embeddings"]:
            del state["lm_head.weight"]
        cls = getattr(transformers, config["architectures"][0])
        made = cls.config_class(**{k: v for k, v in config.items() if k not in ("architectures", "model_type", "dtype")})
        made._attn_implementation = "eager"
        model = cls(made).float().eval()
        missing, unexpected = model.load_state_dict(state, strict=False)
        assert not unexpected and all(config["tie_word_embeddings"] and m == "lm_head.weight" for m in missing), (name, missing, unexpected)
        model.tie_weights()
        with torch.no_grad():
            out[name] = logits(model, ids)[-4:].contiguous()
        index[name] = {"config": change, "biases": with_biases}
    save_file(out, f"{HERE}/variants.safetensors")
    json.dump({"ids": ids, "logits": "of the last 4 positions", "variants": index}, open(f"{HERE}/variants.json", "w"),
              indent=1)


make_checkpoint()
make_nf4()
make_adapter()
report = {"sequences": SEQUENCES, "labels": LABELS, "dense": measure(load_dense(), f"{HERE}/dense.safetensors"),
          "nf4": measure(load_nf4(), f"{HERE}/nf4.safetensors")}
json.dump(report, open(f"{HERE}/cases.json", "w"), indent=1)
make_variants()
for root, _, files in os.walk(HERE):
    for f in files:
        print(os.path.getsize(os.path.join(root, f)), os.path.join(root, f))
