"""Training in Transformers + PEFT (+ bitsandbytes), timed: the peer of `nibble bench` and of an epoch of `nibble train`.

SmolLM2-135M's shape with random weights (speed does not depend on them), LoRA on all linear layers, AdamW. Either steps of
random tokens, every token learned, or (--data) an epoch over Alpaca examples in padded batches, the response learned.

Prints one JSON document a line: after launch and its first step, then after each line read from standard input, so that two
programs can take turns without starting again.
"""
import argparse
import json
import resource
import sys
import time

START = time.perf_counter()

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig


def quantized(model, compute):
    """Every linear layer but the head as bitsandbytes' NF4 with double quantization, on the CPU."""
    import bitsandbytes as bnb

    for module in list(model.modules()):
        for child_name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Linear) and child_name != "lm_head":
                linear = bnb.nn.Linear4bit(
                    child.in_features, child.out_features, bias=child.bias is not None,
                    compute_dtype=compute, compress_statistics=True, quant_type="nf4")
                linear.weight = bnb.nn.Params4bit(
                    child.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4")
                setattr(module, child_name, linear.to("cpu"))
    return model


def alpaca_batches(path, tokenizer_path, examples, batch):
    """Batches of token ids and labels, padded to their longest example as Transformers' collator does."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(tokenizer_path)
    tokenizer.no_padding()  # a published file may ask for both
    tokenizer.no_truncation()
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    with open(path, encoding="utf-8") as file:
        rows = json.load(file)[:examples]
    sequences = []
    for row in rows:
        has_input = bool(row.get("input"))
        prompt = ("Below is an instruction that describes a task"
                  + (", paired with an input that provides further context" if has_input else "")
                  + ". Write a response that appropriately completes the request.\n\n"
                  + f"### Instruction:\n{row['instruction']}\n\n"
                  + (f"### Input:\n{row['input']}\n\n" if has_input else "") + "### Response: ")
        source, target = encode(prompt), encode(row["output"]) + [0]
        sequences.append((source + target, [-100] * len(source) + target))
    batches = []
    for i in range(0, len(sequences), batch):
        part = sequences[i:i + batch]
        longest = max(len(ids) for ids, _ in part)
        pad = lambda list_, value: list_ + [value] * (longest - len(list_))
        batches.append({
            "input_ids": torch.tensor([pad(ids, 0) for ids, _ in part]),
            "attention_mask": torch.tensor([pad([1] * len(ids), 0) for ids, _ in part]),
            "labels": torch.tensor([pad(labels, -100) for _, labels in part])})
    return batches


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", choices=["nf4", "bf16", "f32"], default="nf4")
    parser.add_argument("--compute", choices=["bf16", "f32"], default="bf16", help="type of activations and products")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--data", help="Alpaca's JSON: turns are epochs over it")
    parser.add_argument("--tokenizer", help="a tokenizer.json, with --data")
    parser.add_argument("--examples", type=int, default=1000, help="the first so many of --data")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    config = LlamaConfig(
        hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, vocab_size=49152, tie_word_embeddings=True, max_position_embeddings=8192)
    compute = torch.float32 if args.base == "f32" or args.compute == "f32" else torch.bfloat16
    model = AutoModelForCausalLM.from_config(config, dtype=compute)
    if args.base == "nf4":
        model = quantized(model, compute)
    if args.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    model = get_peft_model(model, LoraConfig(r=args.rank, lora_alpha=32, target_modules="all-linear"))
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    forward = torch.compile(model) if args.compile else model

    if args.data:
        batches = alpaca_batches(args.data, args.tokenizer, args.examples, args.batch)
        order = torch.randperm(len(batches)).tolist()
        batches = [batches[i] for i in order]
    else:
        ids = torch.randint(0, config.vocab_size, (args.batch, args.length))
        batches = [{"input_ids": ids, "labels": ids}]
    real = sum(int(b["attention_mask"].sum()) if "attention_mask" in b else b["input_ids"].numel() for b in batches)
    padded = sum(b["input_ids"].numel() for b in batches)

    def step(batch):
        forward(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.3)
        optimizer.step()
        optimizer.zero_grad()

    import peft
    import transformers
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__}
    if args.base == "nf4":
        import bitsandbytes
        versions["bitsandbytes"] = bitsandbytes.__version__

    step(batches[0])
    first = time.perf_counter() - START
    if args.compile:
        step(batches[0])
    print(json.dumps({"seconds_to_first_step": first, "versions": versions}), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        for batch in batches:
            step(batch)
        seconds = time.perf_counter() - began
        print(json.dumps({
            "tokens_per_second": real / seconds,
            "tokens": real,
            "padded_tokens": padded,
            "seconds": seconds,
            "seconds_to_first_step": first,
            "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "versions": versions}), flush=True)


if __name__ == "__main__":
    main()
