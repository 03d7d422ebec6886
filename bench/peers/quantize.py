"""Encoding to and decoding from NF4 with double quantization in bitsandbytes on the CPU. Prints one JSON document."""
import argparse
import json
import statistics
import time

import bitsandbytes
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit


def rate(count, repetitions, work):
    seconds = []
    for _ in range(repetitions):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return count / statistics.median(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    values = torch.randn(1536, 576, dtype=torch.bfloat16)
    encode = lambda: quantize_4bit(values, blocksize=64, compress_statistics=True, quant_type="nf4")
    codes, state = encode()
    decode = lambda: dequantize_4bit(codes, state)
    decode()
    print(json.dumps({
        "encode_weights_per_second": rate(values.numel(), 15, encode),
        "decode_weights_per_second": rate(values.numel(), 60, decode),
        "versions": {"torch": torch.__version__, "bitsandbytes": bitsandbytes.__version__}}))


if __name__ == "__main__":
    main()
