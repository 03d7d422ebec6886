// Recipes as YAML, JSON, help and documentation.
#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include "base/json.h"
#include "base/text.h"
#include "train/recipe.h"

namespace nibble::train {
namespace {

// As short as it reads back to the same value.
std::string show_number(double value) { return fmt::format("{}", value); }

std::string quoted(const std::string& text) {
  YAML::Emitter emitter;
  emitter << YAML::Flow << YAML::DoubleQuoted << text;
  return emitter.c_str();
}

// Plain where YAML reads it back as the same text, else in quotes.
std::string show_text(const std::string& text) {
  if (text.empty()) return "\"\"";
  for (const char c : text)
    if (!std::isalnum(static_cast<unsigned char>(c)) &&
        std::string_view("/._-+").find(c) == std::string_view::npos)
      return quoted(text);
  return text[0] == '-' ? quoted(text) : text;
}

std::string show_bytes_exactly(int64_t bytes) {
  if (bytes != 0 && bytes % (1 << 20) == 0) return fmt::format("{} MiB", bytes >> 20);
  if (bytes != 0 && bytes % 1000000 == 0) return fmt::format("{} MB", bytes / 1000000);
  return std::to_string(bytes);
}

std::string show_sources(const std::vector<data::DataSource>& sources) {
  std::vector<std::string> parts;
  bool plain = true;
  for (const auto& source : sources) {
    const bool part = source.skip > 0 || source.take > 0,
               only_path = source.format == "auto" && source.weight == 1 && !part;
    plain = plain && only_path;
    parts.push_back(
        only_path ? show_text(source.path)
                  : fmt::format("{{path: {}, format: {}, weight: {}{}}}", quoted(source.path),
                                show_text(source.format), show_number(source.weight),
                                part ? fmt::format(", skip: {}, take: {}", source.skip, source.take) : ""));
  }
  return plain && parts.size() == 1 ? parts[0] : fmt::format("[{}]", fmt::join(parts, ", "));
}

const char* type_name(FieldType type) {
  switch (type) {
    case FieldType::kText:
      return "text";
    case FieldType::kChoice:
      return "choice";
    case FieldType::kInteger:
      return "whole number";
    case FieldType::kNumber:
      return "number";
    case FieldType::kSwitch:
      return "true or false";
    case FieldType::kBytes:
      return "size";
    case FieldType::kList:
      return "list";
    case FieldType::kData:
      return "data sets";
  }
  return "";
}

std::string type_of(const Field& field) {
  return field.type == FieldType::kChoice ? fmt::format("{}", fmt::join(split(field.choices, '|'), ", "))
                                          : type_name(field.type);
}

}  // namespace

std::string show_field(const Recipe& recipe, const Field& field) {
  return std::visit(
      [&](auto member) -> std::string {
        const auto& value = recipe.*member;
        using T = std::decay_t<decltype(value)>;
        if constexpr (std::is_same_v<T, bool>) {
          return value ? "true" : "false";
        } else if constexpr (std::is_same_v<T, std::string>) {
          return show_text(value);
        } else if constexpr (std::is_same_v<T, double>) {
          return show_number(value);
        } else if constexpr (std::is_same_v<T, int64_t>) {
          return field.type == FieldType::kBytes ? show_bytes_exactly(value) : std::to_string(value);
        } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
          std::vector<std::string> parts;
          for (const std::string& item : value) parts.push_back(show_text(item));
          return fmt::format("[{}]", fmt::join(parts, ", "));
        } else {
          return show_sources(value);
        }
      },
      field.member);
}

std::string recipe_yaml(const Recipe& recipe) {
  std::string text;
  const char* section = "";
  for (const Field& field : recipe_fields()) {
    if (std::string_view(section) != field.section) {
      text += fmt::format("{}# {}\n", text.empty() ? "" : "\n", field.section);
      section = field.section;
    }
    text += fmt::format("{}: {}\n", field.name, show_field(recipe, field));
  }
  return text;
}

Json recipe_json(const Recipe& recipe) {
  Json json = Json::object();
  for (const Field& field : recipe_fields()) {
    std::visit(
        [&](auto member) {
          const auto& value = recipe.*member;
          if constexpr (std::is_same_v<std::decay_t<decltype(value)>, std::vector<data::DataSource>>) {
            Json list = Json::array();
            for (const auto& source : value) {
              Json one = {{"path", source.path}, {"format", source.format}, {"weight", source.weight}};
              if (source.skip > 0) one["skip"] = source.skip;
              if (source.take > 0) one["take"] = source.take;
              list.push_back(std::move(one));
            }
            json[field.name] = std::move(list);
          } else {
            json[field.name] = value;
          }
        },
        field.member);
  }
  return json;
}

Recipe recipe_from_json(const Json& json, const std::string& where) {
  // JSON is YAML, so there is one reader.
  Recipe recipe;
  read_recipe_text(recipe, json.dump(), where);
  recipe.given.clear();  // every key stands there, whether somebody wrote it or not
  return recipe;
}

std::string recipe_help() {
  const Recipe defaults;
  std::string text = "Keys of a recipe (YAML file, or key=value on the command line), with their defaults:\n";
  const char* section = "";
  for (const Field& field : recipe_fields()) {
    if (std::string_view(section) != field.section) {
      text += fmt::format("\n{}\n", field.section);
      section = field.section;
    }
    text += fmt::format("  {} = {}   ({})\n", field.name, show_field(defaults, field), type_of(field));
    // Wrapped at 100 columns.
    std::string line = "     ";
    for (const std::string& word : split(field.help, ' ')) {
      if (line.size() + word.size() + 1 > 100) {
        text += line + "\n";
        line = "     ";
      }
      line += " " + word;
    }
    text += line + "\n";
  }
  return text;
}

std::string recipe_markdown() {
  const Recipe defaults;
  std::string text =
      "# Recipes\n\n"
      "A recipe is a YAML file of `key: value` lines for `nibble train RECIPE.yaml`; any key can also be "
      "given on the command line as\n"
      "`key=value`, which goes before the file. Without a recipe, `nibble train --model M --data D.jsonl` "
      "takes every default below.\n"
      "An unknown key is an error that suggests the nearest known one. This page is printed by `nibble train "
      "--help-recipe=markdown`.\n\n"
      "A run can be continued with other values of the keys marked *free on resume*; every other key must "
      "stay as it was.\n";
  const char* section = "";
  for (const Field& field : recipe_fields()) {
    if (std::string_view(section) != field.section) {
      text += fmt::format("\n## {}\n| key | type | default | meaning |\n|---|---|---|---|\n", field.section);
      section = field.section;
    }
    text +=
        fmt::format("| `{}` | {} | `{}` | {}{} |\n", field.name, type_of(field), show_field(defaults, field),
                    field.help, field.on_resume == OnResume::kMayChange ? " *Free on resume.*" : "");
  }
  return text;
}

}  // namespace nibble::train
