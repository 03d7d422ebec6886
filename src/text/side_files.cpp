// What stands beside a tokenizer: tokenizer_config.json and its companions.
#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "text/loaders.h"

namespace nibble::text {
namespace {

namespace fs = std::filesystem;

std::optional<Json> read_object(const std::string& directory, const char* name) {
  const std::string path = (fs::path(directory) / name).string();
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return std::nullopt;
  Json object = parse_json(read_file(path, uint64_t{64} << 20), path);
  require(object.is_object(), path, "should be a JSON object");
  return object;
}

// A token is written as its text or as an object with "content".
std::optional<std::string> token_text(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_object() && value.contains("content") && value["content"].is_string())
    return value["content"].get<std::string>();
  return std::nullopt;
}

void read_names(const Json& object, SideFiles& side) {
  const std::pair<const char*, SideFiles::Name*> kNames[] = {
      {"bos_token", &side.bos}, {"eos_token", &side.eos}, {"unk_token", &side.unk}, {"pad_token", &side.pad}};
  for (const auto& [key, name] : kNames) {
    if (!object.contains(key) || name->said) continue;
    name->said = true;
    name->token = token_text(object[key]);
    if (name->token) side.special.push_back(*name->token);
  }
  for (const char* key : {"sep_token", "cls_token", "mask_token"})
    if (object.contains(key))
      if (const auto token = token_text(object[key])) side.special.push_back(*token);
  if (object.contains("additional_special_tokens") && object["additional_special_tokens"].is_array())
    for (const Json& entry : object["additional_special_tokens"])
      if (const auto token = token_text(entry)) side.special.push_back(*token);
}

std::optional<bool> read_flag(const Json& object, const char* key) {
  if (!object.contains(key) || !object[key].is_boolean()) return std::nullopt;
  return object[key].get<bool>();
}

bool as_id(const std::string& text, int32_t& id) {
  if (text.empty() || text.size() > 8 || text.find_first_not_of("0123456789") != std::string::npos)
    return false;
  id = std::stoi(text);
  return id < Vocab::kMaxId;
}

void read_added_decoder(const Json& object, SideFiles& side, const std::string& where) {
  if (!object.contains("added_tokens_decoder") || !object["added_tokens_decoder"].is_object()) return;
  for (const auto& [key, entry] : object["added_tokens_decoder"].items()) {
    AddedToken token;
    require(as_id(key, token.id), where, "\"added_tokens_decoder\" has the id \"{}\"", key);
    token.content = json_get<std::string>(entry, "content", where);
    token.special = json_get<bool>(entry, "special", false, where);
    token.single_word = json_get<bool>(entry, "single_word", false, where);
    token.lstrip = json_get<bool>(entry, "lstrip", false, where);
    token.rstrip = json_get<bool>(entry, "rstrip", false, where);
    token.normalized = json_get<bool>(entry, "normalized", !token.special, where);
    side.added.push_back(std::move(token));
  }
}

std::string read_template(const Json& config, const std::string& where) {
  if (!config.contains("chat_template") || config["chat_template"].is_null()) return "";
  const Json& value = config["chat_template"];
  if (value.is_string()) return value.get<std::string>();
  require(value.is_array(), where, "\"chat_template\" should be a string or a list of named templates");
  std::string first;
  for (const Json& entry : value) {
    auto source = json_get<std::string>(entry, "template", where);
    if (json_get<std::string>(entry, "name", "", where) == "default") return source;
    if (first.empty()) first = std::move(source);
  }
  return first;
}

std::optional<int32_t> read_id(const Json& object, const char* key) {
  if (!object.contains(key)) return std::nullopt;
  const Json& value = object[key].is_array() && !object[key].empty() ? object[key][0] : object[key];
  if (!value.is_number_integer()) return std::nullopt;
  const auto id = value.get<int64_t>();
  return id >= 0 && id < Vocab::kMaxId ? std::optional(static_cast<int32_t>(id)) : std::nullopt;
}

}  // namespace

SideFiles read_side_files(const std::string& directory) {
  SideFiles side;
  const auto path_of = [&](const char* name) { return (fs::path(directory) / name).string(); };
  if (const auto config = read_object(directory, "tokenizer_config.json")) {
    const std::string where = path_of("tokenizer_config.json");
    side.tokenizer_class = json_get<std::string>(*config, "tokenizer_class", "", where);
    side.add_bos = read_flag(*config, "add_bos_token");
    side.add_eos = read_flag(*config, "add_eos_token");
    side.chat_template = read_template(*config, where);
    read_added_decoder(*config, side, where);
    read_names(*config, side);
  }
  if (const auto map = read_object(directory, "special_tokens_map.json")) read_names(*map, side);
  if (const auto added = read_object(directory, "added_tokens.json")) {
    for (const auto& [content, id] : added->items()) {
      require(id.is_number_integer() && id.get<int64_t>() >= 0 && id.get<int64_t>() < Vocab::kMaxId,
              path_of("added_tokens.json"), "the token \"{}\" should have an id", content);
      AddedToken token;
      token.content = content;
      token.id = id.get<int32_t>();
      const auto same = [&](const AddedToken& t) { return t.id == token.id || t.content == token.content; };
      if (std::none_of(side.added.begin(), side.added.end(), same)) side.added.push_back(std::move(token));
    }
  }
  if (const auto generation = read_object(directory, "generation_config.json")) {
    side.bos_id = read_id(*generation, "bos_token_id");
    side.eos_id = read_id(*generation, "eos_token_id");
    side.pad_id = read_id(*generation, "pad_token_id");
  }
  std::error_code ignored;
  if (const auto path = path_of("chat_template.jinja"); fs::exists(path, ignored))
    side.chat_template = read_file(path, uint64_t{16} << 20);
  return side;
}

void apply_side_files(PipelineParts& parts, const SideFiles& side, bool default_add_bos, bool default_add_eos,
                      const std::string& where) {
  // Added tokens that the vocabulary file does not have itself.
  for (const AddedToken& token : side.added) {
    const auto same = [&](const AddedToken& t) { return t.content == token.content || t.id == token.id; };
    if (std::none_of(parts.added.begin(), parts.added.end(), same)) parts.added.push_back(token);
  }
  const auto find = [&](const std::string& name) -> std::optional<int32_t> {
    for (const AddedToken& token : parts.added)
      if (token.content == name) return token.id;
    for (const auto& [piece, id] : parts.spelling)
      if (piece == name) return id;
    return std::nullopt;
  };
  const auto name = [&](const SideFiles::Name& said, std::optional<int32_t> generation,
                        std::optional<int32_t>& id) {
    if (said.token) {
      id = find(*said.token);
      // Without its end token a model never stops; the others are often named and never used.
      require(
          id.has_value() || &said != &side.eos, where,
          "the end token \"{}\" that tokenizer_config.json or special_tokens_map.json names is not in the "
          "vocabulary",
          *said.token);
    } else if (said.said) {
      id.reset();
    } else if (!id) {
      id = generation;
    }
  };
  name(side.bos, side.bos_id, parts.bos);
  name(side.eos, side.eos_id, parts.eos);
  name(side.pad, side.pad_id, parts.pad);
  if (side.unk.token && find(*side.unk.token)) parts.unk = find(*side.unk.token);
  for (const std::string& special : side.special) {
    const auto id = find(special);
    if (!id) continue;
    const auto at = std::find_if(parts.added.begin(), parts.added.end(),
                                 [&](const AddedToken& t) { return t.id == *id; });
    if (at != parts.added.end()) {
      at->special = true;
    } else {
      AddedToken token;
      token.id = *id;
      token.content = special;
      token.special = true;
      parts.added.push_back(std::move(token));
    }
  }
  const auto put = [](std::optional<bool> said, bool otherwise, std::optional<int32_t> id,
                      std::vector<int32_t>& ids, bool front) {
    if (!id) return;
    const bool there = !ids.empty() && (front ? ids.front() : ids.back()) == *id;
    if (said.value_or(otherwise || there) == there) return;
    if (there) {
      ids.erase(front ? ids.begin() : ids.end() - 1);
    } else {
      ids.insert(front ? ids.begin() : ids.end(), *id);
    }
  };
  put(side.add_bos, default_add_bos, parts.bos, parts.prefix, true);
  put(side.add_eos, default_add_eos, parts.eos, parts.suffix, false);
  parts.chat_template = side.chat_template;
}

}  // namespace nibble::text
