#include <filesystem>
#include <limits>
#include <set>

#include "base/file.h"
#include "base/json.h"
#include "eval/generate.h"
#include "io/weights.h"
#include "text/chat.h"

namespace nibble::eval {
namespace {

// Ids under "eos_token_id": a number, a list of numbers, or nothing.
void add_eos_ids(const Json& config, std::set<int32_t>& ids) {
  const auto found = config.is_object() ? config.find("eos_token_id") : config.end();
  if (found == config.end()) return;
  for (const Json& id : found->is_array() ? *found : Json::array({*found}))
    if (id.is_number_integer()) {
      const auto value = id.get<int64_t>();
      if (value >= 0 && value <= std::numeric_limits<int32_t>::max()) ids.insert(static_cast<int32_t>(value));
    }
}

Json generation_config(const std::string& model) {
  const std::filesystem::path path = std::filesystem::path(model) / "generation_config.json";
  std::error_code none;
  if (!std::filesystem::is_regular_file(path, none)) return nullptr;
  return parse_json(read_file(path.string(), 1 << 20), path.string());
}

}  // namespace

std::vector<int32_t> stop_ids(const io::ModelFiles& files, const text::Tokenizer& tokenizer,
                              const text::ChatTemplate* chat) {
  std::set<int32_t> ids;
  if (tokenizer.eos) ids.insert(*tokenizer.eos);
  add_eos_ids(files.config, ids);
  add_eos_ids(generation_config(files.path), ids);
  if (chat != nullptr)
    if (const auto end = text::end_of_turn(*chat, tokenizer)) ids.insert(*end);
  return {ids.begin(), ids.end()};
}

}  // namespace nibble::eval
