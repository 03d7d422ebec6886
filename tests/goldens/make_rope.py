"""Makes tests/goldens/rope/: what Transformers' rotary embeddings are for configurations as published models have them.

  python tests/goldens/make_rope.py       (torch 2.15, transformers 5.23)

  rope.json          positions, and of each case the keys of its config.json
  rope.safetensors   "<case>": f32 [positions, head_dim], half cosines, half sines
"""
import json
import os

import torch
import transformers
from safetensors.torch import save_file
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "rope")
os.makedirs(OUT, exist_ok=True)
POSITIONS = [0, 1, 2, 17, 100, 1023, 4099, 8000]
CASES = {
    "default": {"head_dim": 64, "rope_theta": 10000.0, "max_position_embeddings": 2048},
    "smollm2": {"head_dim": 64, "rope_theta": 100000.0, "max_position_embeddings": 8192},
    "linear": {"head_dim": 16, "rope_theta": 10000.0, "max_position_embeddings": 8192,
               "rope_scaling": {"type": "linear", "factor": 4.0}},
    "dynamic": {"head_dim": 32, "rope_theta": 10000.0, "max_position_embeddings": 2048,
                "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
    "llama31": {"head_dim": 128, "rope_theta": 500000.0, "max_position_embeddings": 131072,
                "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                 "original_max_position_embeddings": 8192}},
    "llama32": {"head_dim": 64, "rope_theta": 500000.0, "max_position_embeddings": 131072,
                "rope_scaling": {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                 "original_max_position_embeddings": 8192}},
    "yarn_qwen": {"head_dim": 128, "rope_theta": 1000000.0, "max_position_embeddings": 32768,
                  "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}},
    "yarn_mscale": {"head_dim": 64, "rope_theta": 10000.0, "max_position_embeddings": 163840,
                    "rope_scaling": {"rope_type": "yarn", "factor": 40.0, "beta_fast": 32, "beta_slow": 1, "mscale": 0.8,
                                     "mscale_all_dim": 0.5, "original_max_position_embeddings": 4096}},
    "yarn_fine": {"head_dim": 64, "rope_theta": 150000.0, "max_position_embeddings": 131072,
                  "rope_scaling": {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0,
                                   "truncate": False, "original_max_position_embeddings": 4096}},
    "rope_parameters": {"head_dim": 16, "max_position_embeddings": 4096,
                        "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 20000.0}},
}
out = {}
for name, change in CASES.items():
    config = transformers.LlamaConfig(hidden_size=256, num_attention_heads=4, **change)
    rope = LlamaRotaryEmbedding(config)
    # All at once, so that dynamic scaling is that of the longest position.
    cos, sin = rope(torch.zeros(1), torch.tensor([POSITIONS]))
    half = change["head_dim"] // 2
    out[name] = torch.cat([cos[0, :, :half], sin[0, :, :half]], dim=-1).float().contiguous()
save_file(out, f"{OUT}/rope.safetensors")
json.dump({"positions": POSITIONS, "cases": CASES}, open(f"{OUT}/rope.json", "w"), indent=1)
