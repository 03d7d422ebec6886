#!/usr/bin/env python3
"""Goldens of measures: rouge-score 0.1.2 (NLTK's Porter stemmer), SciPy and scikit-learn.

Needs rouge-score, scipy, scikit-learn, statsmodels and, for pairs of real text, ../shared/data/instruct beside the repository.
Writes measures/
  rouge_pairs.json   64 pairs of OpenAssistant replies (Apache-2.0) and a few hard ones, with their scores
  rouge_scores.json  scores alone of 252 + 348 pairs that the test reads where the data is
  stems.json         words and their stems
  scores.json        classifications and correlations
"""
import json
import pathlib
import random
import re

import numpy as np
from nltk.stem.porter import PorterStemmer
from rouge_score import rouge_scorer
from scipy import stats
from sklearn import metrics
from statsmodels.stats.inter_rater import fleiss_kappa

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / "measures"
DATA = HERE.parents[2] / "shared" / "data" / "instruct"
TYPES = ["rouge1", "rouge2", "rougeL"]
SCORERS = [rouge_scorer.RougeScorer(TYPES, use_stemmer=s) for s in (False, True)]


def lines(name):
    return [json.loads(line) for line in (DATA / name).read_text().splitlines() if line.strip()]


def scores(prediction, references):
    """18 numbers: unstemmed then stemmed; rouge1, rouge2, rougeL; precision, recall, F."""
    out = []
    for scorer in SCORERS:
        best = scorer.score_multi(references, prediction)
        for t in TYPES:
            out += [float(best[t].precision), float(best[t].recall), float(best[t].fmeasure)]
    return out


def sibling_replies():
    pairs = []

    def walk(message):
        texts = [r["text"] for r in message.get("replies", []) if r["role"] == "assistant"]
        pairs.extend((a, b) for i, a in enumerate(texts) for b in texts[i + 1:])
        for reply in message.get("replies", []):
            walk(reply)

    for tree in lines("openassistant_en_100_trees.jsonl"):
        walk(tree["prompt"])
    return pairs


def main():
    OUT.mkdir(exist_ok=True)
    siblings = sibling_replies()
    short = sorted(siblings, key=lambda p: len(p[0]) + len(p[1]))[:64]
    hard = [("", ""), ("", "a word"), ("a word", ""), ("...", "!?"), ("one", "one"), ("The the THE", "the"),
            ("Ünïcode naïve café", "naive cafe"), ("\u212Aelvin \u0130stanbul", "kelvin istanbul i stanbul"),
            ("a_b-c'd 3.14 1,000", "a b c d 3 14 1000"), ("running flies dies agreed", "run fly die agree")]
    several = [["the cat sat on the mat", ["a cat sat", "the mat", "the cat sat on a mat today"]],
               ["yes", ["no", "yes", "yes"]]]
    cases = [{"prediction": p, "references": [r], "scores": scores(p, [r])} for p, r in short + hard]
    cases += [{"prediction": p, "references": r, "scores": scores(p, r)} for p, r in several]
    (OUT / "rouge_pairs.json").write_text(json.dumps(cases, ensure_ascii=False, indent=0) + "\n")

    predicted, wanted = lines("selfinstruct_text-davinci-003_predictions.jsonl"), lines("selfinstruct_user_oriented_252.jsonl")
    self_instruct = [scores(p["response"], [w["instances"][0]["output"]]) for p, w in zip(predicted, wanted)]
    tulu = [scores(t["completions"][0]["completion"], [t["completions"][1]["completion"]])
            for t in lines("tulu1_eval_instances.jsonl")][:348]
    compact = {"self_instruct": self_instruct, "tulu": tulu}
    (OUT / "rouge_scores.json").write_text(json.dumps(compact, separators=(",", ":")).replace("],[", "],\n["))

    stemmer = PorterStemmer()
    words = set()
    for a, b in siblings:
        words.update(re.findall(r"[a-z0-9]+", (a + " " + b).lower()))
    words = sorted(random.Random(3).sample(sorted(words), 1500))
    words += ["sky", "skies", "dying", "innings", "news", "howe", "proceed", "succeed", "flies", "dies", "spied", "died", "geology",
              "theology", "archaeology", "logi", "radically", "hopefully", "alli", "rationalli", "yyyy", "yyyyed", "abby", "say",
              "enjoy", "spy", "ion", "adoption", "opinion", "controlling", "rolls", "feed", "agreed", "sing", "hissing", "fizzed",
              "filing", "failing", "owed", "used", "oed", "bed", "1990s", "4th", "eed", "ing", "ied", "ies", "aies", "xies", "sses",
              "ements", "replacements", "s", "ss", "ee", "nationalization", "vietnamization", "bly", "ably", "yed", "eying"]
    (OUT / "stems.json").write_text(json.dumps([[w, stemmer.stem(w)] for w in words], separators=(",", ":")).replace("],[", "],\n["))

    rng = np.random.default_rng(11)
    out = {"classes": [], "numbers": [], "kappa": []}
    for n, k in [(1, 2), (7, 2), (50, 2), (200, 3), (90, 5), (6, 1)]:
        y = rng.integers(0, k, n)
        p = np.where(rng.random(n) < 0.6, y, rng.integers(0, k, n))
        out["classes"].append({"predictions": p.tolist(), "labels": y.tolist(), "accuracy": metrics.accuracy_score(y, p),
                               "f1": metrics.f1_score(y, p, labels=[1], average="macro", zero_division=0),
                               "matthews": float(metrics.matthews_corrcoef(y, p))})
    for n in (2, 5, 40, 300):
        for tied in (False, True):
            x = rng.normal(size=n) * 3 + 1e3
            y = 0.4 * x + rng.normal(size=n)
            if tied and n > 2:
                x, y = np.round(x), np.round(y)
            out["numbers"].append({"x": x.tolist(), "y": y.tolist(), "pearson": stats.pearsonr(x, y)[0],
                                   "spearman": stats.spearmanr(x, y)[0], "kendall": stats.kendalltau(x, y)[0]})
    for items, raters, kinds in ((10, 4, 3), (30, 2, 3), (5, 14, 5)):
        votes = rng.multinomial(raters, rng.dirichlet(np.ones(kinds)), size=items)
        out["kappa"].append({"votes": votes.tolist(), "kappa": fleiss_kappa(votes)})
    (OUT / "scores.json").write_text(json.dumps(out, indent=0) + "\n")


if __name__ == "__main__":
    main()
