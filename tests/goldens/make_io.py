"""Makes tests/goldens/io/ (gguf 0.19, torch 2.15, transformers 5.23, bitsandbytes 0.50.2). Run make_tiny_llama.py first.

  tiny.gguf        tiny_llama with the attention biases of biases.safetensors, rows of q and k permuted as llama.cpp's converter
                   does it, llama3 rotary factors, linears in several GGUF types
  int8/            two linears of tiny_llama as LLM.int8 (bitsandbytes' own rows and scales), and their decoded values
"""
import json
import os
import shutil

import bitsandbytes.functional as bnb
import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save_file

GOLDENS = os.path.dirname(os.path.abspath(__file__))
TINY, HERE = f"{GOLDENS}/tiny_llama", f"{GOLDENS}/io"
shutil.rmtree(HERE, ignore_errors=True)
os.makedirs(f"{HERE}/int8")
state = load_file(f"{TINY}/model.safetensors")
biases = load_file(f"{TINY}/biases.safetensors")


def permute(w, heads):
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def make_gguf():
    out = gguf.GGUFWriter(f"{HERE}/tiny.gguf", "llama")
    out.add_context_length(128)
    out.add_embedding_length(64)
    out.add_block_count(2)
    out.add_feed_forward_length(112)
    out.add_head_count(4)
    out.add_head_count_kv(2)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_rope_freq_base(10000.0)
    out.add_rope_dimension_count(16)
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    Q = gguf.GGMLQuantizationType

    def add(name, w, kind):
        w = w.float().numpy()
        if kind == Q.F32:
            out.add_tensor(name, w)
        else:
            out.add_tensor(name, gguf.quants.quantize(w, kind), raw_dtype=kind)

    add("token_embd.weight", state["model.embed_tokens.weight"], Q.Q8_0)
    add("output_norm.weight", state["model.norm.weight"], Q.F32)
    add("output.weight", state["lm_head.weight"], Q.F16)
    low, high, factor, original = 1.0, 4.0, 8.0, 64
    inverse = 1.0 / 10000.0 ** (torch.arange(0, 16, 2).float() / 16)
    wave = 2 * np.pi / inverse
    smooth = ((original / wave - low) / (high - low)).clamp(0, 1)
    add("rope_freqs.weight", 1 / ((1 - smooth) / factor + smooth), Q.F32)
    for i in range(2):
        p, b = f"model.layers.{i}.", f"blk.{i}."
        for name, hf, kind, heads in (
                ("attn_q", "self_attn.q_proj", Q.BF16, 4), ("attn_k", "self_attn.k_proj", Q.Q8_0, 2),
                ("attn_v", "self_attn.v_proj", Q.Q4_0, 0), ("attn_output", "self_attn.o_proj", Q.Q5_1, 0),
                ("ffn_gate", "mlp.gate_proj", Q.Q4_1, 0), ("ffn_up", "mlp.up_proj", Q.Q5_0, 0),
                ("ffn_down", "mlp.down_proj", Q.BF16, 0), ("attn_norm", "input_layernorm", Q.F32, 0),
                ("ffn_norm", "post_attention_layernorm", Q.F32, 0)):
            w = state[p + hf + ".weight"]
            add(b + name + ".weight", permute(w, heads) if heads else w, kind)
        add(b + "attn_q.bias", permute(biases[p + "self_attn.q_proj.bias"], 4), Q.F32)
        add(b + "attn_k.bias", permute(biases[p + "self_attn.k_proj.bias"], 2), Q.F32)
        add(b + "attn_v.bias", biases[p + "self_attn.v_proj.bias"], Q.F32)
        add(b + "attn_output.bias", biases[p + "self_attn.o_proj.bias"], Q.F32)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def make_int8():
    parts, values = {}, {}
    for name in ("model.layers.0.self_attn.k_proj", "model.layers.1.self_attn.v_proj"):
        w = state[name + ".weight"].half()
        q, scb, _ = bnb.int8_vectorwise_quant(w)
        parts[name + ".weight"], parts[name + ".SCB"] = q, scb
        parts[name + ".weight_format"] = torch.tensor(0, dtype=torch.uint8)
        values[name + ".weight"] = bnb.int8_vectorwise_dequant(q, scb).float()
    parts["model.norm.weight"] = state["model.norm.weight"].half()
    save_file(parts, f"{HERE}/int8/model.safetensors")
    save_file(values, f"{HERE}/int8/values.safetensors")
    config = json.load(open(f"{TINY}/config.json"))
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    json.dump(config, open(f"{HERE}/int8/config.json", "w"))


make_gguf()
make_int8()
