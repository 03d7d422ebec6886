#!/usr/bin/env python3
"""Small tokenizers of every kind, and the ids that the `tokenizers` and `sentencepiece` packages give for awkward strings.

    pip install tokenizers sentencepiece
    python3 tests/goldens/make_tokenizer.py [DATA]

Writes tests/goldens/tokenizer/. The small tokenizers are trained here, on the text below. DATA is the folder with real
tokenizers (default ../shared/data beside the checkout): only ids made with them are written, none of their files.
Made with tokenizers 0.23.3 and sentencepiece 0.2.3.
"""
import io
import json
import os
import sys

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "tokenizer")
DATA = sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "../../../shared/data")

CORPUS = """The heron stands in the shallow water and waits. It waits for a long time; then, in one movement, it has a fish.
Nobody who watches it for the first time believes that a bird so slow can be so fast. "How does it know?" asks the child.
It doesn't know. It isn't patient either: it's only standing there, as herons have stood for 35,000,000 years or so.
def count_fish(pond, depth=0):
    if pond is None or depth > 10:
        return 0
    return len(pond.fish) + count_fish(pond.outlet, depth + 1)
Der Reiher steht im flachen Wasser und wartet. Größe: 98 cm, Spannweite 1,75 m. Où est le héron ? El río está frío.
Цапля стоит в мелкой воде и ждёт. アオサギは浅い水の中に立って待っている。苍鹭站在浅水里等待。왜가리가 얕은 물에 서 있다. مالك الحزين يقف في الماء.
It's 12:30, they've gone, we'll stay, I'm here, she'd know, you're right. THE HERON STANDS. Water, water, waiting, waited.
The price was $4.50 (or 4,20 €) in 1998, and 7.25 in 2004! Is that much? No... yes: 61% more. 🐟 🐟🐟 🦩 👨‍👩‍👧
""".split("\n")

STRINGS = [
    "", "a", " ", "  ", "     ", "\n", "\n\n\n", "\t", "\r\n", "a\r\nb\r\n\r\n c", "The heron stands in the water.", " Hello", "  Hello   world  ",
    "Hello\n\n\n  world\t\tx  \n", "I'm I'll we've you'd he's 'S 'LL I'VE don't it’s", "3.14159 1234567890 12 345 1,000,000 ½ ² ٣٤٥ ⅷ 〇",
    "foo_bar(baz)[0] += 1; // comment\n\tif (x==y) {\n\t\treturn;\n    }\n", "🦙🚀 😶‍🌫️ 👨‍👩‍👧‍👦 🇩🇪 ✅ 👍🏽",
    "café cafe\u0301 naïve A\u030a ﬁ Ⅳ ① ㎏ ｈａｌｆ　ｗｉｄｔｈ", "한국어 \u1112\u1161\u11ab 각\u11a8", "日本語、漢字。カタカナ ｶﾞｷﾞ か\u3099", "我想在apple工作1314151天～",
    "العربية ١٢٣ مَرْحَبًا", "हिन्दी क़ क\u093c", "Σίσυφος ΣΊΣΥΦΟΣ İstanbul ıI ẞß", "Cửa Việt កាន់តែពិសេស",
    "\u00a0nbsp\u00a0\u00a0x \u2003em\u200bzwsp\u200dzwj\ufeffbom \u3000 \u180e \u0085nel \u2028ls", "a\x00b\x01\x1f\x7f", "\ufffd x",
    "e\u0301\u0323 q\u0307\u0323 \u0301start", "a" * 120, " " * 40, "ab " * 20, "!?!?!?...---===***###@@@$$$%%%^^^&&&", "https://www.example.com/path?q=1&r=2#f u@mail.org",
    "<s> </s> <unk><pad> <mask>  x <|endoftext|>y<|im_start|>user\nhi<|im_end|>\n [CLS] [MASK]", "▁under▁score ▁ ▁▁x", "Ġ Ċ ġ <0x0A> <0x41>",
    "x\n \n  \n   y", "𝔘𝔫𝔦 𝟙𝟚 Ω Ω µ μ ǅ \u0344\u037e ſ 'ſ", "“quotes” ‘x’ «g»  — – … 5€ £3 ¥ ©®™ §¶",
    "waters watering WATER Heron's herons", "word<sep>word <sep> xword yword word", "A.B,C;D:E!F?G",
]


def bpe(alphabet=True, **options):
    return trainers.BpeTrainer(vocab_size=420 if alphabet else 300, show_progress=False,
                               initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if alphabet else [], **options)


def byte_level():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(CORPUS, bpe(special_tokens=["<s>", "</s>"]))
    t.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    t.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True), AddedToken("<sep>", rstrip=True, special=True)])
    t.add_tokens([AddedToken("word", single_word=True, normalized=True), AddedToken("  ", normalized=True)])
    return t


def split_patterns():
    t = Tokenizer(models.BPE(ignore_merges=True))
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(CORPUS, bpe(special_tokens=["<|endoftext|>"]))
    t.post_processor = processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])
    return t


def digits():
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFD()
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(CORPUS, bpe(special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"]))
    return t


def byte_fallback():
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    words = [w for line in CORPUS for w in ("▁" + line.replace(" ", " ▁")).split(" ")]
    t.train_from_iterator(words, bpe(False, limit_alphabet=60, special_tokens=["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]))
    model = json.loads(t.to_str())
    model["normalizer"] = json.loads(t.to_str())["normalizer"]
    return Tokenizer.from_str(json.dumps(model))


def fused_unknown():
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    t.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()])
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    t.decoder = decoders.Metaspace(prepend_scheme="first")
    t.train_from_iterator(CORPUS, bpe(False, limit_alphabet=40, special_tokens=["<unk>", "<s>"]))
    return t


def word_suffix():
    t = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    t.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("contiguous")])
    t.decoder = decoders.BPEDecoder(suffix="</w>")
    t.train_from_iterator(CORPUS, bpe(False, end_of_word_suffix="</w>", special_tokens=["<unk>"]))
    return t


def inner_prefix():
    t = Tokenizer(models.BPE(unk_token="[UNK]", continuing_subword_prefix="##"))
    t.normalizer = normalizers.Strip()
    t.pre_tokenizer = pre_tokenizers.Whitespace()
    t.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    t.train_from_iterator(CORPUS, bpe(False, continuing_subword_prefix="##", special_tokens=["[UNK]"]))
    return t


def unigram():
    t = Tokenizer(models.Unigram())
    t.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    t.decoder = decoders.Metaspace(prepend_scheme="always")
    t.train_from_iterator(CORPUS, trainers.UnigramTrainer(vocab_size=300, show_progress=False, unk_token="<unk>", special_tokens=["<pad>", "</s>", "<unk>"]))
    t.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return t


def wordpiece():
    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer(lowercase=True)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece()
    t.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=400, show_progress=False, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    t.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return t


def wordlevel():
    t = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Split(Regex("[,.;!?]"), "merged_with_previous"), pre_tokenizers.Split("-", "merged_with_next")])
    t.train_from_iterator(CORPUS, trainers.WordLevelTrainer(vocab_size=200, show_progress=False, special_tokens=["[UNK]"]))
    return t


def sp_model(**options):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(CORPUS), model_writer=model, minloglevel=2, **options)
    return model.getvalue()


def main():
    os.makedirs(OUT, exist_ok=True)
    cases = {"strings": STRINGS, "tokenizers": {}, "sentencepiece": {}, "real": {}}
    makers = [byte_level, split_patterns, digits, byte_fallback, fused_unknown, word_suffix, inner_prefix, unigram, wordpiece, wordlevel]
    for make in makers:
        t = make()
        text = t.to_str()
        with open(os.path.join(OUT, make.__name__ + ".json"), "w") as f:
            json.dump(json.loads(text), f, ensure_ascii=False, separators=(",", ":"))
        rows = {"special": [t.encode(s).ids for s in STRINGS], "plain": [t.encode(s, add_special_tokens=False).ids for s in STRINGS]}
        # Where special tokens have a normalized form, `tokenizers` decodes them although told to skip them: kept apart.
        rows["decoded"] = [t.decode(ids, skip_special_tokens=False) for ids in rows["plain"]]
        t.encode_special_tokens = True
        rows["unparsed"] = [t.encode(s, add_special_tokens=False).ids for s in STRINGS]
        cases["tokenizers"][make.__name__] = rows

    rules = os.path.join(OUT, "rules.tsv")
    with open(rules, "w") as f:  # source and target code points
        f.write("FB01\t66 69\n41 30A\tC5\n3000\t20\nA\t20\n9\t20\n22\t201D\n200B\t\n")
    for name, options in {
        "sp_unigram": dict(vocab_size=237, model_type="unigram", normalization_rule_tsv=rules, user_defined_symbols="<sep>,water", control_symbols="<ctl>"),
        "sp_bpe": dict(vocab_size=560, model_type="bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=0.98, split_digits=True),
        "sp_suffix": dict(vocab_size=330, model_type="bpe", treat_whitespace_as_suffix=True, normalization_rule_name="identity", user_defined_symbols="<sep>"),
    }.items():
        data = sp_model(**options)
        with open(os.path.join(OUT, name + ".model"), "wb") as f:
            f.write(data)
        sp = sentencepiece.SentencePieceProcessor(model_proto=data)
        cases["sentencepiece"][name] = {"plain": [sp.encode(s) for s in STRINGS], "decoded": [sp.decode(sp.encode(s)) for s in STRINGS]}
    os.remove(rules)

    real = os.path.join(DATA, "tokenizers")
    for name in ["gpt2/tokenizer.json", "smollm/tokenizer.json", "pythia/tokenizer.json", "gpt-neox-20b/20B_tokenizer.json", "roberta/tokenizer.json", "phi-2/tokenizer.json"]:
        t = Tokenizer.from_file(os.path.join(real, name))
        t.no_truncation()
        t.no_padding()
        cases["real"][name] = [t.encode(s).ids for s in STRINGS]
    for name in ["llama1-2/tokenizer.model", "t5/spiece.model", "sentencepiece-test/test_model.model", "sentencepiece-test/test_ja_model.model"]:
        sp = sentencepiece.SentencePieceProcessor(model_file=os.path.join(real, name))
        cases["real"][name] = [sp.encode(s) for s in STRINGS]
    with open(os.path.join(OUT, "cases.json"), "w") as f:
        json.dump(cases, f, ensure_ascii=True, separators=(",", ":"))


main()
