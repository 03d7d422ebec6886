// A tokenizer of bytes with named special tokens, and files that go away.
#pragma once
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "data/dataset.h"

namespace nibble::data {

// Ids 0 … 255 are bytes, then come the special tokens in the order given; the longest that fits is taken.
class ByteTokenizer : public text::Tokenizer {
 public:
  explicit ByteTokenizer(std::vector<std::string> specials) : specials_(std::move(specials)) {}

  std::vector<text::TokenSpan> encode_spans(std::string_view text,
                                            text::EncodeOptions options) const override {
    std::vector<text::TokenSpan> out;
    if (options.add_special && bos) out.push_back({*bos, 0, 0});
    for (size_t at = 0; at < text.size();) {
      size_t length = 1;
      int32_t id = static_cast<unsigned char>(text[at]);
      for (size_t i = 0; i < specials_.size(); ++i)
        if (options.parse_special && text.substr(at).starts_with(specials_[i]) &&
            specials_[i].size() > length && !touches(options.literal, at, at + specials_[i].size())) {
          id = 256 + static_cast<int32_t>(i);
          length = specials_[i].size();
        }
      out.push_back({id, at, at + length});
      at += length;
    }
    return out;
  }
  std::string decode(std::span<const int32_t> ids, bool skip_special) const override {
    std::string out;
    for (const int32_t id : ids)
      if (id < 256 || !skip_special) out += piece(id);
    return out;
  }
  std::string piece(int32_t id) const override {
    return id < 256 ? std::string(1, static_cast<char>(id)) : specials_.at(static_cast<size_t>(id - 256));
  }
  std::optional<int32_t> id(std::string_view piece) const override {
    for (size_t i = 0; i < specials_.size(); ++i)
      if (specials_[i] == piece) return 256 + static_cast<int32_t>(i);
    return std::nullopt;
  }
  int32_t vocab_size() const override { return 256 + static_cast<int32_t>(specials_.size()); }
  bool is_special(int32_t id) const override { return id >= 256; }

 private:
  static bool touches(std::span<const text::ByteRange> ranges, size_t begin, size_t end) {
    return std::any_of(ranges.begin(), ranges.end(),
                       [&](const auto& r) { return r.begin < end && begin < r.end; });
  }
  std::vector<std::string> specials_;
};

inline std::shared_ptr<ByteTokenizer> chatml_tokenizer() {
  auto t = std::make_shared<ByteTokenizer>(std::vector<std::string>{"<|im_start|>", "<|im_end|>"});
  t->bos = t->id("<|im_start|>");
  t->eos = t->pad = t->id("<|im_end|>");  // as SmolLM2 has it: the pad token is the end token
  return t;
}

inline std::shared_ptr<const text::ChatTemplate> chatml_template() {
  return std::make_shared<const text::ChatTemplate>(
      "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}",
      Json::object());
}

// Tokens that are learned, as text; where they are not neighbours a "|" stands between.
inline std::string learned_text(const EncodedExample& e, const text::Tokenizer& tokenizer) {
  std::string out;
  bool gap = false;
  for (size_t i = 0; i < e.ids.size(); ++i) {
    if (e.train[i] == 0) {
      gap = !out.empty();
      continue;
    }
    out += (gap ? "|" : "") + tokenizer.piece(e.ids[i]);
    gap = false;
  }
  return out;
}

class Files : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = std::filesystem::temp_directory_path() /
                 ("nibble-data-" + std::to_string(getpid()) + "-" +
                  testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::create_directories(directory_);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  std::string write(const std::string& name, std::string_view content) {
    const auto path = directory_ / name;
    std::ofstream(path, std::ios::binary) << content;
    return path.string();
  }

 private:
  std::filesystem::path directory_;
};

template <class F>
std::string failure(F act) {
  try {
    act();
    return "no error";
  } catch (const Error& e) {
    return e.what();
  }
}

}  // namespace nibble::data
