// vocab.json and merges.txt, with a line of --- between them.
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/use_tokenizer.h"
#include "text/loaders.h"

FUZZ_TARGET(vocab_merges) {
  static const std::string directory = nibble::fuzz::scratch_directory("vocab_merges");
  const size_t border = bytes.find("\n---\n");
  nibble::fuzz::put(directory + "/vocab.json", bytes.substr(0, border));
  nibble::fuzz::put(directory + "/merges.txt",
                    border == std::string_view::npos ? "" : bytes.substr(border + 5));
  const auto tokenizer =
      nibble::text::load_vocab_and_merges(directory + "/vocab.json", directory + "/merges.txt", {});
  nibble::fuzz::use(*tokenizer, nibble::fuzz::kText);
}
