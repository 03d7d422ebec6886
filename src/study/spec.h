// A study as its author writes it (YAML): a grid of models, data sets, variants and seeds; what is trained;
// what is measured; and what was published, to stand beside it.
//
//   study: data-types            # name: the default run directory is studies/<name>
//   title: …                     about: …
//   scale: …                     # what its figures are obtained with, to stand beside the published ones'
//   needs: {stories: a directory with …}               # files of the reader's own: `nibble study FILE
//   stories=DIR`;
//                                                      # "${stories}" then stands for it anywhere below;
//                                                      # "${here}" is the folder of the study's file
//   published: {source: …, scale: …, column: …, rows: {NF4 + DQ: 27.41}}      # optional
//   prepare:                     # optional: bases that nibble trains first; `path: prepared/NAME` then means
//   them
//     - {name: pythia-like, model: DIR, init: random, method: full, data: …, …recipe keys}
//   models: [{name, path, tokenizer?, …recipe keys}]
//   data: [{name, …recipe keys, measure: {…options}}]  # optional axis of what is trained on, and measured
//   variants: [{name, …recipe keys}]                   # the rows of the table
//                                                      # in both, `train: false` measures the base as it is
//   train: {…recipe keys}                              # absent: the bases are measured as they are
//   seeds: [1, 2, 3]                                   # with train only
//   measures: [{name, kind: ppl | held_out | match | …, better: lower | higher, …}]
//   baseline: NAME                                     # the variant that differences are taken to
//
// Errors: UsageError{file} naming the key, what it should be and, for a misspelt one, the nearest.
#pragma once
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"

namespace nibble::study {

// A named set of recipe keys; `keys` holds them in the order of the file, values as text.
struct Named {
  std::string name;
  std::vector<std::pair<std::string, std::string>> keys;
  bool trains = true;  // variants and data: `train: false` measures the base as it is
  Json measure = {};   // data: options that every measure takes there besides its own, or null
};

struct Measure {
  std::string name, kind;
  bool higher_is_better = false;
  Json options;  // everything else of its entry, checked by the measure itself
};

struct Published {
  std::string source, scale, column;
  std::vector<std::pair<std::string, double>> rows;  // by variant
  bool empty() const { return rows.empty(); }
};

struct Spec {
  std::string name, title, about, scale, baseline;
  Published published;
  std::vector<Named> prepare, models, data, variants;
  std::vector<std::pair<std::string, std::string>> train;
  bool trains = false;
  std::vector<int64_t> seeds;
  std::vector<Measure> measures;
};

// Those of the measure itself and, where `data` has some, of the data set, which go before.
Json measure_options(const Spec& spec, size_t measure, size_t data);

// What the names under `needs` stand for.
using Given = std::map<std::string, std::string>;
Spec read_spec(const std::string& path, const Given& given);
Spec parse_spec(const std::string& yaml, const std::string& where, const Given& given);

}  // namespace nibble::study
