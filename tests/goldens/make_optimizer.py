"""Golden values of tests/train/optimizer_golden_test.cpp: torch's AdamW and SGD in f64, bitsandbytes' Lion and 8-bit
AdamW (its CPU backend), torch's clip_grad_norm_, Transformers' get_scheduler.

    python tests/goldens/make_optimizer.py      (torch, bitsandbytes, transformers, safetensors)

Parameters and gradients follow a rule of small integers (see value() and gradient()), so that both sides have the same
floats without storing them.
"""

import json
import pathlib

import bitsandbytes as bnb
import torch
from safetensors.torch import save_file
from transformers import get_scheduler

HERE = pathlib.Path(__file__).parent / "optimizer"
N, STEPS, STEPS_8BIT = 4113, 12, 6  # above the 8-bit limit of 4096; the last block and the last vector are short
LR, DECAY, BETAS = 0.01, 0.1, (0.9, 0.95)


def value(n: int) -> torch.Tensor:
    i = torch.arange(n, dtype=torch.int64)
    return ((i * 31) % 1999 - 999).double() / 1024


def gradient(n: int, step: int) -> torch.Tensor:
    """Magnitudes over three decades, about every seventh zero."""
    i = torch.arange(n, dtype=torch.int64)
    g = ((i * 7919 + step * 104729) % 2001 - 1000).double() * torch.pow(2.0, -10 - (i % 11).double())
    return torch.where((i + step) % 7 == 0, torch.zeros_like(g), g)


def run(make, dtype, after=None) -> torch.Tensor:
    p = torch.nn.Parameter(value(N).to(dtype))
    optimizer = make([p])
    for step in range(1, STEPS + 1):
        p.grad = gradient(N, step).to(dtype)
        optimizer.step()
        if after:
            after(step, p, optimizer.state[p])
    return p.detach()


def main() -> None:
    HERE.mkdir(exist_ok=True)
    out: dict[str, torch.Tensor] = {}
    f64, f32 = torch.float64, torch.float32
    out["adamw"] = run(lambda p: torch.optim.AdamW(p, lr=LR, betas=BETAS, eps=1e-8, weight_decay=DECAY), f64)
    out["sgd"] = run(lambda p: torch.optim.SGD(p, lr=LR, momentum=0.9, weight_decay=DECAY), f64)
    out["sgd_plain"] = run(lambda p: torch.optim.SGD(p, lr=LR, weight_decay=DECAY), f64)
    out["lion"] = run(lambda p: bnb.optim.Lion32bit(p, lr=LR, betas=BETAS, weight_decay=DECAY), f32)

    def keep(step, p, state):
        assert state["state1"].dtype == torch.uint8
        if step > STEPS_8BIT:
            return
        for name, key in (("m", "state1"), ("m_absmax", "absmax1"), ("v", "state2"), ("v_absmax", "absmax2")):
            out[f"adamw_8bit.{step}.{name}"] = state[key].clone()
        out[f"adamw_8bit.{step}.p"] = p.detach().clone()

    run(lambda p: bnb.optim.AdamW8bit(p, lr=LR, betas=BETAS, eps=1e-8, weight_decay=DECAY), f32, keep)
    for name in ("adamw", "sgd", "sgd_plain", "lion"):
        out[name] = out[name].float()
    save_file(out, HERE / "optimizer.safetensors")

    clip = []
    for limit in (0.5, 3.0, 1000.0):
        ps = [torch.nn.Parameter(torch.zeros(n, dtype=f64)) for n in (5, 4113, 64)]
        for k, p in enumerate(ps):
            p.grad = gradient(p.numel(), k + 1)
        norm = torch.nn.utils.clip_grad_norm_(ps, limit)
        clip.append({"max_norm": limit, "norm": norm.item(), "first": [p.grad[1].item() for p in ps]})

    schedules = []
    for name, total, warmup in (("constant_with_warmup", 20, 6), ("linear", 20, 0), ("linear", 20, 6), ("linear", 7, 7),
                                ("cosine", 20, 0), ("cosine", 20, 6), ("cosine", 1, 0)):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
        scheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total)
        rates = []
        for _ in range(total + 1):
            rates.append(scheduler.get_last_lr()[0])
            optimizer.step()
            scheduler.step()
        schedules.append({"name": name, "total": total, "warmup": warmup, "rates": rates})
    (HERE / "optimizer.safetensors").chmod(0o644)
    (HERE / "cases.json").write_text(json.dumps({"clip": clip, "schedules": schedules}, indent=1) + "\n")


main()
