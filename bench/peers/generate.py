"""Reading a prompt and writing text with llama.cpp through llama-cpp-python. Prints one JSON document."""
import argparse
import json
import random
import statistics
import time

import llama_cpp


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--written", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    model = llama_cpp.Llama(args.model, n_ctx=2048, n_batch=512, n_threads=args.threads,
                            n_threads_batch=args.threads, verbose=False)
    draw = random.Random(42)
    vocab = model.n_vocab()

    def read(count):
        """Tokens per second of a fresh prompt."""
        model.reset()
        began = time.perf_counter()
        model.eval([draw.randrange(vocab) for _ in range(count)])
        model.sample(temp=0)
        return count / (time.perf_counter() - began)

    def write():
        read(16)
        began = time.perf_counter()
        for _ in range(args.written):
            model.eval([model.sample(temp=0)])
        return args.written / (time.perf_counter() - began)

    read(16)
    prefill, single = [], []
    for _ in range(args.rounds):
        prefill.append(read(args.prompt))
        single.append(write())
    print(json.dumps({
        "prefill_tokens_per_second": statistics.median(prefill),
        "tokens_per_second": statistics.median(single),
        "versions": {"llama-cpp-python": llama_cpp.__version__}}))


if __name__ == "__main__":
    main()
