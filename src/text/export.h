// What a model directory holds beside the weights, whatever file the model came from: tokenizer and how to
// generate, in the files that Transformers' AutoTokenizer and nibble read.
#pragma once
#include <string>
#include <vector>

#include "base/named_file.h"

namespace nibble::text {

struct TokenizerExport {
  std::vector<NamedFile> files;
  // Why Transformers finds no tokenizer among them, or "". Files that nibble alone reads may be there all the
  // same.
  std::string missing;
};

// From a Hugging Face directory (or a file in one) its own files. From a GGUF (byte-level and SentencePiece
// BPE) and from llama2.c's tokenizer.bin a tokenizer.json that gives the same ids, tokenizer_config.json with
// special tokens and chat template, generation_config.json with the ids that end a text. `tokenizer`: where
// it is looked for (load_tokenizer()'s argument); `model`: a directory there has the last word on generation.
// A model without any tokenizer, or with one that cannot be read, is no error; a `tokenizer` that was asked
// for is.
TokenizerExport export_tokenizer(const std::string& model, const std::string& tokenizer);

}  // namespace nibble::text
