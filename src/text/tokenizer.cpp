#include "text/tokenizer.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "base/error.h"
#include "base/text.h"
#include "text/loaders.h"

namespace nibble::text {
namespace {

namespace fs = std::filesystem;

// The file's beginning, to tell formats apart.
std::string head_of(const fs::path& path) {
  std::string head(256, '\0');
  std::FILE* file = std::fopen(path.c_str(), "rb");
  require(file != nullptr, path.string(), "cannot be opened");
  head.resize(std::fread(head.data(), 1, head.size(), file));
  std::fclose(file);
  return head;
}

// A line of base64, a space and digits.
bool looks_like_tiktoken(std::string_view head) {
  const size_t blank = head.find(' ');
  if (blank == std::string_view::npos || blank == 0) return false;
  const bool base64 =
      std::all_of(head.begin(), head.begin() + static_cast<ptrdiff_t>(blank),
                  [](unsigned char c) { return std::isalnum(c) != 0 || c == '+' || c == '/' || c == '='; });
  return base64 && blank + 1 < head.size() && std::isdigit(static_cast<unsigned char>(head[blank + 1])) != 0;
}

// The file of this name, or the only one whose name ends (or, for tok*.bin, begins) as the predicate says.
template <class Matches>
fs::path find_file(const fs::path& directory, const char* exact, Matches&& matches) {
  std::error_code error;
  if (fs::is_regular_file(directory / exact, error)) return directory / exact;
  fs::path found;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    if (!entry.is_regular_file(error) || !matches(entry.path().filename().string())) continue;
    if (!found.empty()) return {};
    found = entry.path();
  }
  return found;
}

fs::path find_ending(const fs::path& directory, const char* exact) {
  return find_file(directory, exact, [&](const std::string& name) { return name.ends_with(exact); });
}

bool is_tokenizer_bin(const std::string& name) { return name.starts_with("tok") && name.ends_with(".bin"); }

std::shared_ptr<const Tokenizer> load_model_file(const fs::path& path, const SideFiles& side) {
  if (looks_like_tiktoken(head_of(path))) return load_tiktoken(path.string(), side);
  return load_sentencepiece(path.string(), side);
}

fs::path file_in(const fs::path& directory) {
  if (auto json = find_ending(directory, "tokenizer.json"); !json.empty()) return json;
  for (const char* name : {"tokenizer.model", "spiece.model", "sentencepiece.bpe.model"}) {
    std::error_code error;
    if (fs::is_regular_file(directory / name, error)) return directory / name;
  }
  auto vocab = find_ending(directory, "vocab.json");
  if (!vocab.empty() && !find_ending(directory, "merges.txt").empty()) return vocab;
  if (auto bin = find_file(directory, "tokenizer.bin", is_tokenizer_bin); !bin.empty()) return bin;
  if (auto gguf =
          find_file(directory, "model.gguf", [](const std::string& n) { return n.ends_with(".gguf"); });
      !gguf.empty())
    return gguf;
  fail(directory.string(),
       "holds no tokenizer: looked for tokenizer.json, tokenizer.model, spiece.model, vocab.json with "
       "merges.txt, "
       "tokenizer.bin and a .gguf file");
}

}  // namespace

std::vector<int32_t> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  const auto spans = encode_spans(text, options);
  std::vector<int32_t> ids(spans.size());
  std::transform(spans.begin(), spans.end(), ids.begin(), [](const TokenSpan& span) { return span.id; });
  return ids;
}

std::string tokenizer_file(const std::string& given) {
  const fs::path path(given);
  std::error_code error;
  if (fs::is_directory(path, error)) return file_in(path).string();
  require(fs::exists(path, error), given,
          "there is no such file or directory; expected a model directory, a tokenizer "
          "file or a .gguf");
  require(fs::is_regular_file(path, error), given, "is no regular file");
  const std::string name = path.filename().string();
  if (!name.ends_with(".bin") || is_tokenizer_bin(name) || is_gguf(path)) return given;
  const fs::path directory = path.has_parent_path() ? path.parent_path() : fs::path(".");
  const auto bin = find_file(directory, "tokenizer.bin", is_tokenizer_bin);
  require(!bin.empty(), given,
          "has no tokenizer beside it: looked for tokenizer.bin and one tok*.bin in {}; name one "
          "with --tokenizer",
          directory.string());
  return bin.string();
}

bool is_gguf(const std::string& path) { return path.ends_with(".gguf") || head_of(path).starts_with("GGUF"); }

std::shared_ptr<const Tokenizer> load_tokenizer(const std::string& given) {
  const fs::path path(tokenizer_file(given));
  const fs::path directory = path.has_parent_path() ? path.parent_path() : fs::path(".");
  const std::string name = path.filename().string(), file = path.string();
  if (is_gguf(file)) return load_gguf_tokenizer(file);
  if (name.ends_with(".bin")) return load_llama2c(file);
  const SideFiles side = read_side_files(directory.string());
  if (name.ends_with(".model")) return load_model_file(path, side);
  if (name.ends_with("vocab.json") || name.ends_with("merges.txt")) {
    const auto vocab = find_ending(directory, "vocab.json"), merges = find_ending(directory, "merges.txt");
    require(!vocab.empty() && !merges.empty(), file, "needs vocab.json and merges.txt beside each other");
    return load_vocab_and_merges(vocab.string(), merges.string(), side);
  }
  if (name.ends_with(".json")) return load_tokenizer_json(file, side);
  if (looks_like_tiktoken(head_of(path))) return load_tiktoken(file, side);
  fail(file,
       "is no tokenizer file that is known: tokenizer.json, tokenizer.model, spiece.model, vocab.json, "
       "merges.txt, "
       "tokenizer.bin and .gguf are");
}

}  // namespace nibble::text
