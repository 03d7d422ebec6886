// The JSON files that hold vocabularies, read as events: a tree of 100,000 members would be slow to build.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"

namespace nibble::text {

struct TokenizerJson {
  Json rest;  // the document without model.vocab and model.merges
  std::vector<std::pair<std::string, int32_t>> vocab;
  std::vector<double> scores;  // of a unigram vocabulary, by id; else empty
  std::vector<std::pair<std::string, std::string>> merges;
};

// Errors: Error{where} with line and column for bad JSON; for a vocabulary or merges of another form.
TokenizerJson parse_tokenizer_document(std::string_view text, const std::string& where);
// {"piece": id, …}
std::vector<std::pair<std::string, int32_t>> parse_vocab_json(std::string_view text,
                                                              const std::string& where);

}  // namespace nibble::text
