// A bare BERT of tests/goldens with a tokenizer of words and a task it can learn: sentences with "w7" are
// positive.
#pragma once
#include "tests/train/tiny.h"

namespace nibble::train {

class TinyEncoder {
 public:
  explicit TinyEncoder(const std::string& directory, const std::string& golden = "bert_bare")
      : directory_(directory) {
    const std::string from = NIBBLE_SOURCE_DIR "/tests/goldens/classifiers/" + golden;
    std::filesystem::create_directories(model());
    for (const char* name : {"config.json", "model.safetensors"})
      std::filesystem::copy_file(from + "/" + name, model() + "/" + name);
    Json vocab = {{"[PAD]", 0}, {"[UNK]", 1}, {"[CLS]", 2}, {"[SEP]", 3}};
    for (int i = 4; i < 96; ++i) vocab[fmt::format("w{}", i)] = i;
    write("model/tokenizer.json",
          Json{{"model", {{"type", "WordLevel"}, {"vocab", vocab}, {"unk_token", "[UNK]"}}},
               {"pre_tokenizer", {{"type", "WhitespaceSplit"}}},
               {"post_processor", {{"type", "BertProcessing"}, {"sep", {"[SEP]", 3}}, {"cls", {"[CLS]", 2}}}}}
              .dump());
  }
  std::string model() const { return directory_ + "/model"; }
  std::string write(const std::string& name, const std::string& text) const {
    write_file_atomic(directory_ + "/" + name, text);
    return directory_ + "/" + name;
  }
  // Sentences of three to six words.
  std::string sentiments(const std::string& name, int64_t count, uint64_t seed) const {
    std::string text = "sentence\tlabel\n";
    const Rng rng(seed, 3);
    for (int64_t i = 0; i < count; ++i) {
      const auto at = static_cast<uint64_t>(i) * 10;
      const bool positive = rng.below(at, 2) == 1;
      const auto length = static_cast<int64_t>(3 + rng.below(at + 1, 4)),
                 where = static_cast<int64_t>(rng.below(at + 2, static_cast<uint64_t>(length)));
      for (int64_t w = 0; w < length; ++w)
        text +=
            fmt::format("{}w{}", w == 0 ? "" : " ",
                        w == where && positive ? 7 : 10 + rng.below(at + 3 + static_cast<uint64_t>(w), 80));
      text += positive ? "\t1\n" : "\t0\n";
    }
    return write(name, text);
  }
  // Pairs of words; the score is how far the first one lies behind the second, within 0 to 5.
  std::string similarities(const std::string& name, int64_t count) const {
    std::string text = "sentence1\tsentence2\tscore\n";
    for (int64_t i = 0; i < count; ++i)
      text += fmt::format("w{} w9\tw{}\t{}\n", 10 + i % 6, 20 + i % 7, static_cast<double>(i % 6) * 0.9);
    return write(name, text);
  }

 private:
  std::string directory_;
};

}  // namespace nibble::train
