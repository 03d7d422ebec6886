#include "text/export.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/gguf.h"
#include "base/text.h"
#include "text/export_vocab.h"
#include "text/loaders.h"

namespace nibble::text {
namespace {

namespace fs = std::filesystem;
using Document = nlohmann::json;  // not Json: its ordered objects are slow to build from fifty thousand names

constexpr const char* kGeneration = "generation_config.json";
constexpr const char* kTokenizerFiles[] = {
    "tokenizer.json",  "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "tokenizer.model", "spiece.model",          "sentencepiece.bpe.model", "vocab.json",
    "merges.txt",      "chat_template.jinja",   "chat_template.json",      kGeneration};

NamedFile copy_of(const fs::path& path, const std::string& name) {
  constexpr uint64_t kLargest = uint64_t{256} << 20;
  return {name, read_file(path.string(), kLargest)};
}

std::vector<NamedFile> files_beside(const fs::path& tokenizer) {
  const fs::path directory = tokenizer.has_parent_path() ? tokenizer.parent_path() : fs::path(".");
  std::vector<NamedFile> files;
  for (const char* name : kTokenizerFiles)
    if (fs::is_regular_file(directory / name)) files.push_back(copy_of(directory / name, name));
  // One of another name ("20B_tokenizer.json", "gpt2-vocab.json") gets the name under which it is looked for.
  const std::string own = tokenizer.filename().string();
  for (const char* name : {"tokenizer.json", "vocab.json"})
    if (own != name && own.ends_with(name) && !fs::exists(directory / name))
      files.push_back(copy_of(tokenizer, name));
  if (own != "vocab.json" && own.ends_with("vocab.json"))
    for (const auto& entry : fs::directory_iterator(directory))
      if (const std::string name = entry.path().filename().string();
          name != "merges.txt" && name.ends_with("merges.txt"))
        files.push_back(copy_of(entry.path(), "merges.txt"));
  return files;
}

std::string tokenizer_config(const VocabSource& source) {
  Document config = {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"clean_up_tokenization_spaces", false}};
  const auto name = [&](const char* key, const std::optional<int32_t>& id) {
    if (id) config[key] = spelled(source, *id);
  };
  name("bos_token", source.parts.bos);
  name("eos_token", source.parts.eos);
  name("unk_token", source.parts.unk);
  name("pad_token", source.parts.pad);
  if (!source.parts.chat_template.empty())
    config["chat_template"] = replace_invalid_utf8(source.parts.chat_template);
  return config.dump(2) + "\n";
}

// `end_of_turn`: of a chat, where the file knows one besides the end of text.
std::string generation_config(const VocabSource& source, int64_t end_of_turn) {
  Document config = Document::object();
  if (source.parts.bos) config["bos_token_id"] = *source.parts.bos;
  if (source.parts.pad) config["pad_token_id"] = *source.parts.pad;
  Document ends = Document::array();
  if (source.parts.eos) ends.push_back(*source.parts.eos);
  if (end_of_turn >= 0 && end_of_turn < static_cast<int64_t>(source.tokens.size()) &&
      (!source.parts.eos || *source.parts.eos != end_of_turn))
    ends.push_back(end_of_turn);
  if (!ends.empty()) config["eos_token_id"] = ends.size() == 1 ? ends[0] : ends;
  return config.dump(2) + "\n";
}

TokenizerExport made_from(const VocabSource& source, int64_t end_of_turn) {
  TokenizerExport out;
  std::string json;
  out.missing = tokenizer_json(source, json);
  if (!out.missing.empty()) return out;
  out.files.push_back({"tokenizer.json", std::move(json)});
  out.files.push_back({"tokenizer_config.json", tokenizer_config(source)});
  out.files.push_back({kGeneration, generation_config(source, end_of_turn)});
  return out;
}

TokenizerExport tokenizer_in(const std::string& path) {
  if (is_gguf(path)) {
    const GgufFile file = GgufFile::open(path);
    if (file.find("tokenizer.ggml.model") == nullptr) return {{}, "the GGUF holds no tokenizer"};
    return made_from(read_gguf_vocab(file), file.integer("tokenizer.ggml.eot_token_id", -1));
  }
  if (path.ends_with(".bin")) {
    TokenizerExport out = made_from(read_llama2c_vocab(path), -1);
    if (!out.missing.empty()) out.files.push_back(copy_of(path, "tokenizer.bin"));  // nibble reads it
    return out;
  }
  TokenizerExport out{files_beside(path), "there is none beside the weights"};
  for (const NamedFile& f : out.files)
    for (const char* name :
         {"tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json"})
      if (f.name == name) out.missing.clear();
  return out;
}

// Beside a model there may be none, or one that is not known; one that was asked for must be there.
TokenizerExport tokenizer_of(const std::string& model, const std::string& tokenizer) {
  if (!tokenizer.empty()) return tokenizer_in(tokenizer_file(tokenizer));
  try {
    return tokenizer_in(tokenizer_file(model));
  } catch (const Error& e) {
    return {{}, e.what()};
  }
}

}  // namespace

TokenizerExport export_tokenizer(const std::string& model, const std::string& tokenizer) {
  TokenizerExport out = tokenizer_of(model, tokenizer);
  const fs::path generation = fs::path(model) / kGeneration;
  if (!fs::is_regular_file(generation)) return out;
  std::erase_if(out.files, [](const NamedFile& f) { return f.name == kGeneration; });
  out.files.push_back(copy_of(generation, kGeneration));
  return out;
}

}  // namespace nibble::text
