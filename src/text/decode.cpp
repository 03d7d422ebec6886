#include "text/decode.h"

#include "base/error.h"
#include "base/json.h"
#include "text/bpe.h"
#include "text/normalize.h"
#include "text/regex.h"

#include <optional>

namespace nibble::text {
namespace {

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  if (from.empty()) return;
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

class ByteLevel : public Decoder {
 public:
  void apply(std::vector<std::string>& pieces) const override {
    std::string bytes;
    for (std::string& piece : pieces)
      if (bytes_of_alphabet(piece, bytes)) piece.swap(bytes);
  }
};

class ByteFallback : public Decoder {
 public:
  void apply(std::vector<std::string>& pieces) const override {
    for (std::string& piece : pieces)
      if (const int byte = fallback_byte(piece); byte >= 0) piece.assign(1, static_cast<char>(byte));
  }
};

class Fuse : public Decoder {
 public:
  void apply(std::vector<std::string>& pieces) const override {
    std::string all;
    for (const std::string& piece : pieces) all += piece;
    pieces.clear();
    pieces.push_back(std::move(all));
  }
};

class Strip : public Decoder {
 public:
  Strip(std::string content, int64_t start, int64_t stop)
      : content_(std::move(content)), start_(start), stop_(stop) {}
  void apply(std::vector<std::string>& pieces) const override {
    if (content_.empty()) return;
    for (std::string& piece : pieces) {
      std::string_view rest = piece;
      for (int64_t i = 0; i < start_ && rest.starts_with(content_); ++i) rest.remove_prefix(content_.size());
      for (int64_t i = 0; i < stop_ && rest.ends_with(content_); ++i) rest.remove_suffix(content_.size());
      piece = std::string(rest);
    }
  }

 private:
  std::string content_;
  int64_t start_, stop_;
};

class Replace : public Decoder {
 public:
  Replace(std::string pattern, bool regex, std::string content, const std::string& where)
      : text_(std::move(pattern)), content_(std::move(content)) {
    if (regex) regex_.emplace(text_, where);
  }
  void apply(std::vector<std::string>& pieces) const override {
    for (std::string& piece : pieces) {
      if (!regex_) {
        replace_all(piece, text_, content_);
        continue;
      }
      std::string out;
      size_t done = 0, begin = 0, end = 0;
      while (regex_->find(piece, done, begin, end)) {
        out.append(piece, done, begin - done);
        out += content_;
        done = end;
      }
      piece = out.append(piece, done);
    }
  }

 private:
  std::string text_, content_;
  std::optional<Regex> regex_;
};

class Metaspace : public Decoder {
 public:
  Metaspace(std::string replacement, bool prepended)
      : replacement_(std::move(replacement)), prepended_(prepended) {}
  void apply(std::vector<std::string>& pieces) const override {
    for (size_t i = 0; i < pieces.size(); ++i)
      replace_all(pieces[i], replacement_, i == 0 && prepended_ ? "" : " ");
  }

 private:
  std::string replacement_;
  bool prepended_;
};

// The clean-up of spaces that BERT's decoder has as part of it.
void clean_up(std::string& text) {
  constexpr std::pair<const char*, const char*> kRules[] = {
      {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
      {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : kRules) replace_all(text, from, to);
}

class WordPieceDecoder : public Decoder {
 public:
  WordPieceDecoder(std::string prefix, bool cleanup) : prefix_(std::move(prefix)), cleanup_(cleanup) {}
  void apply(std::vector<std::string>& pieces) const override {
    for (size_t i = 0; i < pieces.size(); ++i) {
      if (i > 0) {
        if (!prefix_.empty() && pieces[i].starts_with(prefix_)) {
          pieces[i].erase(0, prefix_.size());
        } else {
          pieces[i].insert(0, 1, ' ');
        }
      }
      if (cleanup_) clean_up(pieces[i]);
    }
  }

 private:
  std::string prefix_;
  bool cleanup_;
};

class SuffixDecoder : public Decoder {
 public:
  explicit SuffixDecoder(std::string suffix) : suffix_(std::move(suffix)) {}
  void apply(std::vector<std::string>& pieces) const override {
    for (size_t i = 0; i < pieces.size(); ++i)
      replace_all(pieces[i], suffix_, i + 1 == pieces.size() ? "" : " ");
  }

 private:
  std::string suffix_;
};

class Sequence : public Decoder {
 public:
  explicit Sequence(std::vector<std::unique_ptr<Decoder>> steps) : steps_(std::move(steps)) {}
  void apply(std::vector<std::string>& pieces) const override {
    for (const auto& step : steps_) step->apply(pieces);
  }

 private:
  std::vector<std::unique_ptr<Decoder>> steps_;
};

std::unique_ptr<Decoder> make_decoder(const Json& spec, const std::string& where, int depth) {
  if (spec.is_null()) return nullptr;
  require(depth < 16, where, "the decoders are nested too deeply");
  const auto type = json_get<std::string>(spec, "type", where);
  if (type == "ByteLevel") return std::make_unique<ByteLevel>();
  if (type == "ByteFallback") return std::make_unique<ByteFallback>();
  if (type == "Fuse") return std::make_unique<Fuse>();
  if (type == "Strip") {
    return std::make_unique<Strip>(json_get<std::string>(spec, "content", where),
                                   json_get<int64_t>(spec, "start", 0, where),
                                   json_get<int64_t>(spec, "stop", 0, where));
  }
  if (type == "Replace") {
    require(spec.contains("pattern") && spec["pattern"].is_object(), where,
            "the Replace decoder has no pattern");
    const Json& pattern = spec["pattern"];
    const bool regex = pattern.contains("Regex");
    return std::make_unique<Replace>(json_get<std::string>(pattern, regex ? "Regex" : "String", where), regex,
                                     json_get<std::string>(spec, "content", where), where);
  }
  if (type == "Metaspace") {
    const bool old = json_get<bool>(spec, "add_prefix_space", true, where);
    const auto scheme = json_get<std::string>(spec, "prepend_scheme", old ? "always" : "never", where);
    return std::make_unique<Metaspace>(
        json_get<std::string>(spec, "replacement", std::string(kSpaceSymbol), where), scheme != "never");
  }
  if (type == "WordPiece") {
    return std::make_unique<WordPieceDecoder>(json_get<std::string>(spec, "prefix", "##", where),
                                              json_get<bool>(spec, "cleanup", true, where));
  }
  if (type == "BPEDecoder")
    return std::make_unique<SuffixDecoder>(json_get<std::string>(spec, "suffix", "</w>", where));
  if (type == "Sequence") {
    require(spec.contains("decoders") && spec["decoders"].is_array(), where,
            "the Sequence decoder has no list \"decoders\"");
    std::vector<std::unique_ptr<Decoder>> steps;
    for (const Json& step : spec["decoders"])
      if (auto made = make_decoder(step, where, depth + 1)) steps.push_back(std::move(made));
    return std::make_unique<Sequence>(std::move(steps));
  }
  fail(where, "the decoder \"{}\" is not known", type);
}

}  // namespace

std::unique_ptr<Decoder> make_decoder(const Json& spec, const std::string& where) {
  return make_decoder(spec, where, 0);
}
std::unique_ptr<Decoder> make_decoder(const char* type, const std::string& where) {
  return make_decoder(Json{{"type", type}}, where, 0);
}

int fallback_byte(std::string_view piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return -1;
  const auto digit = [](char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
  };
  const int high = digit(piece[3]), low = digit(piece[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

}  // namespace nibble::text
