"""One kind of training step in Transformers + PEFT (+ bitsandbytes), timed: the peer of `nibble bench`.

SmolLM2-135M's shape with random weights (speed does not depend on them), LoRA on all linear layers, AdamW,
sequences of random tokens, every token learned. Prints one JSON document.
"""
import argparse
import json
import resource
import statistics
import time

START = time.perf_counter()

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig


def quantized(model):
    """Every linear layer but the head as bitsandbytes' NF4 with double quantization, on the CPU."""
    import bitsandbytes as bnb

    for name, module in list(model.named_modules()):
        for child_name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Linear) and child_name != "lm_head":
                linear = bnb.nn.Linear4bit(
                    child.in_features, child.out_features, bias=child.bias is not None,
                    compute_dtype=torch.bfloat16, compress_statistics=True, quant_type="nf4")
                linear.weight = bnb.nn.Params4bit(
                    child.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4")
                setattr(module, child_name, linear.to("cpu"))
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", choices=["nf4", "bf16", "f32"], default="nf4")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--steps", type=int, default=1, help="timed steps after the first")
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    config = LlamaConfig(
        hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, vocab_size=49152, tie_word_embeddings=True, max_position_embeddings=8192)
    dtype = torch.float32 if args.base == "f32" else torch.bfloat16
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    if args.base == "nf4":
        model = quantized(model)
    if args.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    model = get_peft_model(model, LoraConfig(r=args.rank, lora_alpha=32, target_modules="all-linear"))
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    forward = torch.compile(model) if args.compile else model

    ids = torch.randint(0, config.vocab_size, (args.batch, args.length))

    def step():
        began = time.perf_counter()
        forward(input_ids=ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.3)
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - began

    step()
    first = time.perf_counter() - START
    if args.compile:
        step()
    seconds = statistics.median(step() for _ in range(args.steps))
    import peft
    import transformers
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__}
    if args.base == "nf4":
        import bitsandbytes
        versions["bitsandbytes"] = bitsandbytes.__version__
    print(json.dumps({
        "tokens_per_second": args.batch * args.length / seconds,
        "seconds_per_step": seconds,
        "seconds_to_first_step": first,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "versions": versions}))


if __name__ == "__main__":
    main()
