#!/usr/bin/env python3
"""Goldens of the sampler: what Transformers' logits processors leave of a row of logits.

Needs torch and transformers. Writes sampler/cases.json: logits, text so far, options, kept ids with probabilities.
"""
import json
import pathlib

import torch
import transformers
from transformers import (LogitsProcessorList, RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper,
                          TopKLogitsWarper, TopPLogitsWarper)

VOCAB = 40
CASES = [
    {"temperature": 1.0},
    {"temperature": 0.7, "top_p": 0.9},
    {"temperature": 1.5, "top_k": 5},
    {"temperature": 0.7, "top_k": 12, "top_p": 0.5},
    {"temperature": 1.0, "repetition_penalty": 1.3},
    {"temperature": 0.8, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.7},
    {"temperature": 0.9, "top_p": 0.01},
    {"temperature": 2.0, "top_p": 0.99, "repetition_penalty": 0.8},
]


def main():
    torch.manual_seed(7)
    cases = []
    for options in CASES:
        logits = (torch.randn(1, VOCAB) * 3).round(decimals=3)
        history = torch.randint(0, VOCAB, (1, 9))
        history[0, 8] = history[0, 0]  # one token twice
        processors = LogitsProcessorList()
        if "repetition_penalty" in options:
            processors.append(RepetitionPenaltyLogitsProcessor(options["repetition_penalty"]))
        processors.append(TemperatureLogitsWarper(options["temperature"]))
        if "top_k" in options:
            processors.append(TopKLogitsWarper(options["top_k"]))
        if "top_p" in options:
            processors.append(TopPLogitsWarper(options["top_p"]))
        scores = processors(history, logits.clone())
        probabilities = torch.softmax(scores.double(), -1)[0]
        kept = {str(i): float(p) for i, p in enumerate(probabilities) if p > 0}
        cases.append({"logits": [float(x) for x in logits[0]], "history": history[0].tolist(), "options": options,
                      "probabilities": kept})
    out = pathlib.Path(__file__).parent / "sampler" / "cases.json"
    out.write_text(json.dumps({"made_with": f"transformers {transformers.__version__}", "cases": cases}, indent=1) + "\n")


main()
