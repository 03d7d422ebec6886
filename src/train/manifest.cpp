#include "train/manifest.h"

#include <fmt/format.h>

#include <filesystem>

#include "base/file.h"

namespace nibble::train {
namespace {

// Every piece of the vocabulary by its id, and the special ids.
std::string tokenizer_hash(const text::Tokenizer& tokenizer) {
  std::string all;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    all += tokenizer.piece(id);
    all += '\0';
  }
  for (const auto& special : {tokenizer.bos, tokenizer.eos, tokenizer.unk})
    all += fmt::format("{}\n", special ? *special : -1);
  return hash_text(all);
}

std::string examples_hash(const std::vector<data::EncodedExample>& examples,
                          const std::vector<double>& weights) {
  std::string all(reinterpret_cast<const char*>(weights.data()), weights.size() * sizeof(double));
  for (const auto& example : examples) {
    const auto n = static_cast<uint64_t>(example.ids.size());
    all.append(reinterpret_cast<const char*>(&n), sizeof n);
    all.append(reinterpret_cast<const char*>(example.ids.data()), example.ids.size() * sizeof(int32_t));
    all.append(reinterpret_cast<const char*>(example.train.data()), example.train.size());
    if (example.label) all += fmt::format("{} {}", *example.label, example.second_begin);
    if (example.source_tokens > 0) all += fmt::format("source {}", example.source_tokens);
  }
  return hash_text(all);
}

}  // namespace

Json make_manifest(const Prepared& prepared) {
  Json manifest = {{"format", 1},
                   {"status", "running"},
                   {"base", prepared.files.path},
                   {"base_hash", prepared.files.hash()},
                   {"base_sources", prepared.files.sources},
                   {"train_data_hash", examples_hash(prepared.dataset.train, prepared.dataset.train_weights)},
                   {"eval_data_hash", examples_hash(prepared.dataset.eval, {})}};
  if (prepared.tokenizer) {
    manifest["tokenizer_hash"] = tokenizer_hash(*prepared.tokenizer);
    manifest["template_hash"] = hash_text(prepared.tokenizer->chat_template);
  }
  manifest["recipe"] = recipe_json(prepared.recipe);
  return manifest;
}

std::vector<std::string> manifest_differences(const Json& then, const Json& now) {
  std::vector<std::string> differences;
  const std::pair<const char*, const char*> contents[] = {{"base_hash", "the weights of the base model"},
                                                          {"tokenizer_hash", "the tokenizer"},
                                                          {"template_hash", "the chat template"},
                                                          {"train_data_hash", "the training data"},
                                                          {"eval_data_hash", "the held-out data"}};
  for (const auto& [key, what] : contents) {
    const auto before = json_get<std::string>(then, key, "", kManifestFile),
               after = json_get<std::string>(now, key, "", kManifestFile);
    if (before != after)
      differences.push_back(
          fmt::format("{} changed (hash {} then, {} now)", what, before.substr(0, 12), after.substr(0, 12)));
  }
  const Json empty = Json::object();
  const Json& old_recipe = then.contains("recipe") ? then["recipe"] : empty;
  const Json& new_recipe = now.contains("recipe") ? now["recipe"] : empty;
  for (const Field& field : recipe_fields()) {
    if (field.on_resume != OnResume::kMustMatch) continue;
    const Json before = old_recipe.contains(field.name) ? old_recipe[field.name] : Json();
    const Json after = new_recipe.contains(field.name) ? new_recipe[field.name] : Json();
    if (before != after)
      differences.push_back(fmt::format("{} was {}, is {}", field.name, before.dump(), after.dump()));
  }
  return differences;
}

Json read_manifest(const std::string& directory) {
  const std::string path = directory + "/" + kManifestFile;
  std::error_code none;
  if (!std::filesystem::exists(path, none)) return nullptr;
  Json manifest = parse_json(read_file(path, 1 << 24), path);
  require(manifest.is_object() && manifest.contains("recipe") && manifest["recipe"].is_object() &&
              json_get<int64_t>(manifest, "format", 0, path) == 1,
          path, "is not the manifest of a run of this version");
  return manifest;
}

void write_manifest(const std::string& directory, const Json& manifest) {
  write_file_atomic(directory + "/" + kManifestFile, manifest.dump(2) + "\n");
}

}  // namespace nibble::train
