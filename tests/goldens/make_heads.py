"""Makes tests/goldens/heads/: one-layer LLaMAs of odd shapes, their logits and every gradient, by Transformers.

  python tests/goldens/make_heads.py     (torch 2.15, transformers 5.23)

  <name>/config.json, model.safetensors   the model, BF16 (every value below is computed in f32 from these)
  <name>/golden.safetensors               logits [tokens, vocab] of the sequences one after the other; of each weight the
                                          norm of its gradient and every k-th value, k = max(1, n // 96)
  cases.json                              the sequences; every token but a sequence's first is trained; the losses

Shapes: query heads : key/value heads, and a head width that no vector width divides.
"""
import json
import os

import torch
import transformers
from safetensors.torch import load_file, save_file

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "heads")
# name: query heads, key/value heads, head width, model width, MLP width
SHAPES = {"9to3": (9, 3, 10, 27, 23), "4to1": (4, 1, 6, 20, 17), "5to5": (5, 5, 14, 25, 29), "8to2": (8, 2, 34, 24, 19)}
SEQUENCES = [[3, 17, 4, 29, 8, 8, 11, 2, 30, 5, 19, 23, 7], [6], [12, 1, 26, 9, 14, 0, 21]]

torch.set_num_threads(1)
torch.manual_seed(77)
losses = {}
for name, (heads, kv, width, hidden, mlp) in SHAPES.items():
    out = f"{HERE}/{name}"
    os.makedirs(out, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 31, "hidden_size": hidden,
        "intermediate_size": mlp, "num_hidden_layers": 1, "num_attention_heads": heads, "num_key_value_heads": kv,
        "head_dim": width, "hidden_act": "silu", "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "rope_scaling": None, "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False, "bos_token_id": 1,
        "eos_token_id": 2, "pad_token_id": None, "dtype": "bfloat16",
    }
    json.dump(config, open(f"{out}/config.json", "w"), indent=1)
    made = transformers.LlamaConfig(**{k: v for k, v in config.items() if k not in ("architectures", "model_type", "dtype")})
    made._attn_implementation = "eager"
    model = transformers.LlamaForCausalLM(made).float()
    state = {}
    for key, p in model.named_parameters():
        value = 1 + 0.2 * torch.randn_like(p) if p.dim() == 1 else torch.randn_like(p) * 1.5 / p.shape[1] ** 0.5
        state[key] = value.to(torch.bfloat16).contiguous()
    save_file(state, f"{out}/model.safetensors", {"format": "pt"})
    model.load_state_dict({k: v.float() for k, v in state.items()})
    total, count, logits = 0.0, 0, []
    for ids in SEQUENCES:
        logits.append(model(input_ids=torch.tensor([ids])).logits[0])
        if len(ids) > 1:
            total = total + torch.nn.functional.cross_entropy(logits[-1][:-1], torch.tensor(ids[1:]), reduction="sum")
            count += len(ids) - 1
    loss = total / count
    loss.backward()
    losses[name] = loss.item()
    golden = {"logits": torch.cat(logits).detach()}
    for key, p in model.named_parameters():
        flat = p.grad.flatten()
        golden[key + ".norm"] = flat.double().norm().float().reshape(1)
        golden[key + ".sample"] = flat[:: max(1, flat.numel() // 96)].contiguous()
    save_file(golden, f"{out}/golden.safetensors")
    for file in ("model", "golden"):
        os.chmod(f"{out}/{file}.safetensors", 0o644)
json.dump({"sequences": SEQUENCES, "losses": losses}, open(f"{HERE}/cases.json", "w"), indent=1)
