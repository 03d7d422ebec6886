"""Goldens of the quantization formats: bitsandbytes 0.50.2 on the CPU, and the gguf package's decoders.

    python tests/goldens/make_quant.py        (torch, bitsandbytes 0.50.2, gguf)

Writes quant/bitsandbytes.bin and quant/gguf.bin: records of name length, name, element bytes, count (u32 each), bytes.
"""
import pathlib
import struct

import bitsandbytes
import bitsandbytes.functional as F
import gguf
import numpy as np
import torch

assert bitsandbytes.__version__ == "0.50.2"
torch.set_num_threads(1)
HERE = pathlib.Path(__file__).parent / "quant"


class Records:
    def __init__(self, path):
        self.file = open(path, "wb")

    def put(self, name, array):
        if isinstance(array, torch.Tensor):
            array = array.detach().contiguous().reshape(-1)
            array = array.view(torch.uint8).numpy().view({1: np.uint8, 2: np.uint16, 4: np.uint32}[array.element_size()])
        array = np.ascontiguousarray(array).reshape(-1)
        self.file.write(struct.pack("<I", len(name)) + name.encode() + struct.pack("<II", array.itemsize, array.size))
        self.file.write(array.tobytes())


def telling_scale(ties, code):
    """A scale at which dividing by it and multiplying by its reciprocal give different codes."""
    thresholds = (code[1:] + code[:-1]) / 2
    for scale in torch.linspace(0.03, 0.04, 1000):
        x = ties[-37:] * scale
        if not torch.equal(torch.bucketize(x * (1 / scale), thresholds), torch.bucketize(x / scale, thresholds)):
            return scale
    raise AssertionError("none found")


def inputs(n, quant_type):
    g = torch.Generator().manual_seed(n)
    normal = torch.randn(n, generator=g) * 0.02
    outlier = normal.clone()
    outlier[::29] *= 40
    nan = normal.clone()
    nan[3] = float("nan")
    inf = normal.clone()
    inf[5], inf[n - 2] = float("inf"), -float("inf")
    code = F.get_4bit_type(quant_type, device="cpu").sort()[0]
    ties = ((code[1:] + code[:-1]) / 2).repeat(n // 15 + 1)[:n].clone()
    ties[3::11] = torch.nextafter(ties[3::11], torch.tensor(2.0))
    ties[::7] = 1.0
    yield "flat", torch.full((n,), 0.37)
    yield "ramp", torch.linspace(-1, 1, n)
    yield "plateau", torch.tensor([-0.5, 0.125, 0.25, 0.5]).repeat_interleave(9).repeat(n // 36 + 1)[:n].clone()
    yield "normal", normal
    yield "outlier", outlier
    yield "zero", torch.cat([torch.zeros(n // 2), -torch.zeros(n - n // 2)])
    yield "nan", nan
    yield "inf", inf
    yield "ties", ties
    yield "scaled ties", ties * telling_scale(ties, code)
    yield "tiny", normal * 1e-37


def four_bits(out):
    for quant_type in ("nf4", "fp4"):
        cases = [(64, 3 * 64 + 37, d, None) for d in (torch.float32, torch.bfloat16, torch.float16)]
        cases += [(b, 2 * b + 38, torch.float32, ("normal", "outlier")) for b in (32, 128, 256, 512)]
        cases += [(4096, 4096 + 37, torch.float32, ("normal",))]
        for block, n, dtype, only in cases:
            for name, x in inputs(n, quant_type):
                if only and name not in only or dtype != torch.float32 and name in ("flat", "plateau", "scaled ties"):
                    continue
                x = x.to(dtype)
                codes, state = F.quantize_4bit(x, blocksize=block, quant_type=quant_type)
                decoded = F.dequantize_4bit(codes, state)
                key = f"{quant_type}/{name}/{str(dtype)[6:]}/{block}"
                out.put(key + "/input", x)
                out.put(key + "/codes", codes)
                out.put(key + "/absmax", state.absmax)
                out.put(key + "/decoded", decoded)


def double_quantization(out):
    out.put("map/signed", F.create_dynamic_map(signed=True))
    out.put("map/unsigned", F.create_dynamic_map(signed=False))
    g = torch.Generator().manual_seed(7)
    absmax = (torch.randn(1300, 64, generator=g) * 0.02).abs().amax(1)
    absmax[::97] *= 8
    offset = absmax.mean()
    codes, state = F.quantize_blockwise(absmax - offset, blocksize=256)
    out.put("nested/absmax", absmax)
    out.put("nested/offset", offset.reshape(1))
    out.put("nested/codes", codes)
    out.put("nested/nested_absmax", state.absmax)
    out.put("nested/decoded", F.dequantize_blockwise(codes, state) + offset)


def eight_bits(out):
    g = torch.Generator().manual_seed(8)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        x = torch.randn(6, 70, generator=g)
        x[1] = 0
        x[2] *= 1e-3
        x[3, 5] = 50
        x = x.to(dtype)
        codes, absmax, _ = torch.ops.bitsandbytes.int8_vectorwise_quant.default(x, 0.0)
        key = f"int8/{str(dtype)[6:]}"
        out.put(key + "/input", x)
        out.put(key + "/codes", codes)
        out.put(key + "/absmax", absmax)
        out.put(key + "/decoded", torch.ops.bitsandbytes.int8_vectorwise_dequant.default(codes, absmax))


def blocks(out):
    rng = np.random.default_rng(1)
    halves = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
              "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
    for name, at in halves.items():
        kind = gguf.GGMLQuantizationType[name]
        values, size = gguf.GGML_QUANT_SIZES[kind]
        count = 12 if values == 32 else 3
        data = rng.integers(0, 256, (count, size), dtype=np.uint8)
        for offset in at:
            d = (rng.standard_normal(count) * 0.01).astype(np.float16)
            d[0] = 3e-6  # subnormal
            data[:, offset : offset + 2] = d.view(np.uint8).reshape(count, 2)
        out.put(f"{name}/blocks", data)
        out.put(f"{name}/decoded", gguf.quants.dequantize(data, kind).astype(np.float32))
    data = rng.standard_normal(40).astype(np.float32)
    for name in ("F32", "F16", "BF16"):
        kind = gguf.GGMLQuantizationType[name]
        raw = gguf.quants.quantize(data, kind)
        out.put(f"{name}/blocks", raw.view(np.uint8))
        out.put(f"{name}/decoded", gguf.quants.dequantize(raw, kind).astype(np.float32))
    # The row permutation of llama GGUFs, as conversion applies it to q and k.
    w = np.arange(3 * 8 * 2, dtype=np.float32).reshape(24, 2)
    out.put("permuted", w.reshape(3, 2, 4, 2).swapaxes(1, 2).reshape(24, 2))


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    records = Records(HERE / "bitsandbytes.bin")
    four_bits(records)
    double_quantization(records)
    eight_bits(records)
    blocks(Records(HERE / "gguf.bin"))
