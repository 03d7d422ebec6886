#include "train/recipe.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <charconv>
#include <cmath>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "quant/format.h"

namespace nibble::train {
namespace {

[[noreturn]] void bad(const std::string& where, const std::string& message) {
  throw UsageError(where, message);
}

std::string shorten(std::string_view text) {
  return text.size() <= 60 ? std::string(text)
                           : std::string(text.substr(0, complete_utf8_prefix(text.substr(0, 57)))) + "…";
}

const Field& find_field(std::string_view key, const std::string& where) {
  std::vector<std::string> names;
  for (const Field& field : recipe_fields()) {
    if (key == field.name) return field;
    names.emplace_back(field.name);
  }
  const std::string nearest = nearest_name(key, names);
  bad(where, nearest.empty() ? fmt::format("unknown key \"{}\"; `nibble train --help-recipe` lists every key",
                                           shorten(key))
                             : fmt::format("unknown key \"{}\"; did you mean {}?", shorten(key), nearest));
}

template <class T>
bool parse_whole(std::string_view text, T& value) {
  if (!text.empty() && text[0] == '+') text.remove_prefix(1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

int64_t parse_integer(const Field& field, std::string_view text, const std::string& where) {
  int64_t value = 0;
  if (!parse_whole(text, value))
    bad(where, fmt::format("{} takes a whole number, not \"{}\"", field.name, shorten(text)));
  return value;
}

double parse_number(const Field& field, std::string_view text, const std::string& where) {
  double value = 0;
  if (!parse_whole(text, value) || !std::isfinite(value))
    bad(where, fmt::format("{} takes a number, not \"{}\"", field.name, shorten(text)));
  return value;
}

bool parse_switch(const Field& field, std::string_view text, const std::string& where) {
  const std::string lower = lower_ascii(text);
  if (lower == "true" || lower == "yes" || lower == "on") return true;
  if (lower == "false" || lower == "no" || lower == "off") return false;
  bad(where, fmt::format("{} takes true or false, not \"{}\"", field.name, shorten(text)));
}

void check_range(const Field& field, double value, const std::string& where) {
  if (field.low < field.high && (value < field.low || value > field.high))
    bad(where,
        fmt::format("{} must lie between {} and {}, not {}", field.name, field.low, field.high, value));
}

void check_choice(const Field& field, const std::string& value, const std::string& where) {
  const std::vector<std::string> known = split(field.choices, '|');
  for (const std::string& name : known)
    if (name == value) return;
  const std::string nearest = nearest_name(value, known);
  bad(where, fmt::format("{} is one of {}, not \"{}\"{}", field.name, fmt::join(known, ", "), shorten(value),
                         nearest.empty() ? "" : "; did you mean " + nearest + "?"));
}

void set_scalar(Recipe& recipe, const Field& field, std::string_view text, const std::string& where) {
  if (text.find('\0') != std::string_view::npos || find_invalid_utf8(text) != std::string_view::npos)
    bad(where, fmt::format("{} is not valid UTF-8 text", field.name));
  switch (field.type) {
    case FieldType::kText:
    case FieldType::kChoice: {
      std::string value(text);
      if (field.type == FieldType::kChoice) check_choice(field, value, where);
      recipe.*std::get<std::string Recipe::*>(field.member) = std::move(value);
      return;
    }
    case FieldType::kInteger: {
      const int64_t value = parse_integer(field, text, where);
      check_range(field, static_cast<double>(value), where);
      recipe.*std::get<int64_t Recipe::*>(field.member) = value;
      return;
    }
    case FieldType::kBytes: {
      const int64_t value = parse_bytes(text, where);
      if (value != 0 || field.low > 0) check_range(field, static_cast<double>(value), where);
      recipe.*std::get<int64_t Recipe::*>(field.member) = value;
      return;
    }
    case FieldType::kNumber: {
      const double value = parse_number(field, text, where);
      check_range(field, value, where);
      recipe.*std::get<double Recipe::*>(field.member) = value;
      return;
    }
    case FieldType::kSwitch:
      recipe.*std::get<bool Recipe::*>(field.member) = parse_switch(field, text, where);
      return;
    case FieldType::kList:
      recipe.*std::get<std::vector<std::string> Recipe::*>(field.member) = {std::string(text)};
      return;
    case FieldType::kData: {
      data::DataSource source;
      source.path = std::string(text);
      recipe.*std::get<std::vector<data::DataSource> Recipe::*>(field.member) = {source};
      return;
    }
  }
}

std::string at(const std::string& where, const YAML::Node& node) {
  return node.Mark().line >= 0 ? fmt::format("{}:{}", where, node.Mark().line + 1) : where;
}

std::string scalar_of(const YAML::Node& node, const std::string& name, const std::string& where) {
  if (!node.IsScalar())
    bad(at(where, node), fmt::format("{} takes one value, not a {}", name,
                                     node.IsMap()        ? "map"
                                     : node.IsSequence() ? "list"
                                                         : "null"));
  return node.Scalar();
}

data::DataSource source_of(const YAML::Node& node, const Field& field, const std::string& where) {
  data::DataSource source;
  if (node.IsScalar()) {
    source.path = node.Scalar();
  } else {
    if (!node.IsMap())
      bad(at(where, node),
          fmt::format("{} takes paths or maps of path, format, weight, skip and take", field.name));
    static const std::vector<std::string> known = {"path", "format", "weight", "skip", "take"};
    for (const auto& entry : node) {
      const std::string key = scalar_of(entry.first, field.name, where);
      if (key == "path") {
        source.path = scalar_of(entry.second, "path", where);
      } else if (key == "format") {
        source.format = scalar_of(entry.second, "format", where);
      } else if (key == "weight") {
        source.weight =
            parse_number(field, scalar_of(entry.second, "weight", where), at(where, entry.second));
        if (source.weight <= 0 || source.weight > 1000)
          bad(at(where, entry.second),
              fmt::format("weight of {} must lie above 0 and up to 1000", source.path));
      } else if (key == "skip" || key == "take") {
        const double value =
            parse_number(field, scalar_of(entry.second, key, where), at(where, entry.second));
        if (value < 0 || value > 1e15 || value != std::floor(value))
          bad(at(where, entry.second),
              fmt::format("{} of {} should be a number of examples from 0 up", key, source.path));
        (key == "skip" ? source.skip : source.take) = static_cast<int64_t>(value);
      } else {
        const std::string nearest = nearest_name(key, known);
        bad(at(where, entry.first),
            fmt::format("{} has path, format, weight, skip and take, not \"{}\"{}", field.name, shorten(key),
                        nearest.empty() ? "" : "; did you mean " + nearest + "?"));
      }
    }
  }
  if (source.path.empty()) bad(at(where, node), fmt::format("{} has an entry without a path", field.name));
  return source;
}

void set_node(Recipe& recipe, const Field& field, const YAML::Node& node, const std::string& where) {
  if (node.IsNull()) {  // "key:" with nothing after it: empty text or list
    if (field.type == FieldType::kText || field.type == FieldType::kList || field.type == FieldType::kData) {
      set_scalar(recipe, field, "", at(where, node));
      if (field.type == FieldType::kList)
        (recipe.*std::get<std::vector<std::string> Recipe::*>(field.member)).clear();
      if (field.type == FieldType::kData)
        (recipe.*std::get<std::vector<data::DataSource> Recipe::*>(field.member)).clear();
      return;
    }
    bad(at(where, node), fmt::format("{} has no value", field.name));
  }
  if (field.type == FieldType::kList && node.IsSequence()) {
    std::vector<std::string> values;
    for (const auto& item : node) values.push_back(scalar_of(item, field.name, where));
    recipe.*std::get<std::vector<std::string> Recipe::*>(field.member) = std::move(values);
  } else if (field.type == FieldType::kData) {
    std::vector<data::DataSource> sources;
    if (node.IsSequence())
      for (const auto& item : node) sources.push_back(source_of(item, field, where));
    else
      sources.push_back(source_of(node, field, where));
    recipe.*std::get<std::vector<data::DataSource> Recipe::*>(field.member) = std::move(sources);
  } else {
    set_scalar(recipe, field, scalar_of(node, field.name, where), at(where, node));
  }
}

YAML::Node load_yaml(std::string_view text, const std::string& where) {
  if (text.size() > 1 << 20) bad(where, "is larger than 1 MiB; a recipe is a short YAML file");
  if (const size_t bad_byte = find_invalid_utf8(text); bad_byte != std::string_view::npos)
    bad(where, fmt::format("is not valid UTF-8 (byte {})", bad_byte));
  try {
    return YAML::Load(std::string(text));
  } catch (const YAML::Exception& error) {
    bad(error.mark.line >= 0 ? fmt::format("{}:{}", where, error.mark.line + 1) : where,
        "is not YAML: " + error.msg);
  }
}

}  // namespace

void read_recipe_text(Recipe& recipe, std::string_view yaml, const std::string& where) {
  const YAML::Node root = load_yaml(yaml, where);
  if (root.IsNull()) return;
  if (!root.IsMap()) bad(where, "a recipe is a list of `key: value` lines");
  std::set<std::string> seen;
  for (const auto& entry : root) {
    const std::string key = scalar_of(entry.first, "a key", where);
    const Field& field = find_field(key, at(where, entry.first));
    if (!seen.insert(key).second) bad(at(where, entry.first), fmt::format("{} is given twice", key));
    set_node(recipe, field, entry.second, where);
    recipe.given.insert(key);
  }
}

void read_recipe(Recipe& recipe, const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) bad(path, "is a directory, not a recipe");
  if (!std::filesystem::exists(path, error)) bad(path, "no such recipe; expected a YAML file or key=value");
  read_recipe_text(recipe, read_file(path, 2 << 20), path);
}

void set_field(Recipe& recipe, std::string_view key, std::string_view value) {
  const std::string where(key);
  const Field& field = find_field(key, "command line");
  if (field.type == FieldType::kList && value.substr(0, 1) != "[") {
    std::vector<std::string> values;
    for (const std::string& part : split(value, ','))
      if (!trim(part).empty()) values.emplace_back(trim(part));
    recipe.*std::get<std::vector<std::string> Recipe::*>(field.member) = std::move(values);
  } else if (field.type == FieldType::kList ||
             (field.type == FieldType::kData && !value.empty() && (value[0] == '[' || value[0] == '{'))) {
    set_node(recipe, field, load_yaml(value, where), where);
  } else {
    set_scalar(recipe, field, value, where);
    if (field.type == FieldType::kData && value.empty())
      (recipe.*std::get<std::vector<data::DataSource> Recipe::*>(field.member)).clear();
  }
  recipe.given.insert(where);
}

void set_field(Recipe& recipe, std::string_view assignment) {
  const size_t equals = assignment.find('=');
  if (equals == std::string_view::npos || equals == 0)
    bad("command line", fmt::format("expected key=value, not \"{}\"", shorten(assignment)));
  set_field(recipe, trim(assignment.substr(0, equals)), trim(assignment.substr(equals + 1)));
}

int64_t parse_bytes(std::string_view text, std::string_view where) {
  const std::string_view whole = trim(text);
  size_t digits = 0;
  while (digits < whole.size() &&
         (std::isdigit(static_cast<unsigned char>(whole[digits])) || whole[digits] == '.'))
    ++digits;
  double value = 0;
  const std::string unit = lower_ascii(trim(whole.substr(digits)));
  static const std::pair<const char*, double> units[] = {
      {"", 1},         {"b", 1},    {"k", 1e3},      {"kb", 1e3},    {"kib", 1024},
      {"m", 1e6},      {"mb", 1e6}, {"mib", 0x1p20}, {"g", 1e9},     {"gb", 1e9},
      {"gib", 0x1p30}, {"t", 1e12}, {"tb", 1e12},    {"tib", 0x1p40}};
  if (parse_whole(whole.substr(0, digits), value))
    for (const auto& [name, factor] : units)
      if (unit == name && value * factor < 9e18) return static_cast<int64_t>(std::llround(value * factor));
  throw UsageError(where,
                   fmt::format("expected a size such as 2GB, 800MB or 1.5GiB, not \"{}\"", shorten(text)));
}

void settle_base(Recipe& recipe) {
  if (!recipe.lora()) {
    if (!recipe.was_given("quantize")) recipe.quantize = "none";
    if (recipe.quantize != "none")
      bad("quantize",
          fmt::format("method full trains the weights themselves, so quantize must be none, not {}",
                      recipe.quantize));
    if (!recipe.adapter.empty())
      bad("adapter", "method full takes no adapter; merge it into the model first or use method lora");
  }
  if (recipe.init == "random" && recipe.lora())
    bad("init", "random weights are worth no adapter: set method to full");
  if (recipe.init_lora_weights == "loftq") {
    if (!recipe.lora() || !recipe.adapter.empty())
      bad("init_lora_weights",
          recipe.lora() ? "loftq is for fresh adapters; the one that `adapter` names has values of its own"
                        : "loftq is for adapters; set method to lora");
    if (recipe.quantize == "none" || recipe.quantize == "stored")
      bad("init_lora_weights",
          fmt::format("loftq begins at what quantizing loses, and with quantize: {} nothing is "
                      "quantized here; choose kaiming, or a format such as nf4",
                      recipe.quantize));
  }
  const bool has_scales = recipe.quantize != "none" && recipe.quantize != "stored" &&
                          quant::find_format(recipe.quantize).has_block_scales();
  if (!has_scales && !recipe.was_given("double_quant")) recipe.double_quant = false;
  quant::parse_quantize(recipe.quantize, recipe.double_quant, recipe.block_size);
}

void check_recipe(Recipe& recipe) {
  if (recipe.model.empty()) bad("model", "is missing: give --model PATH or `model:` in the recipe");
  if (recipe.data.empty()) bad("data", "is missing: give --data FILE or `data:` in the recipe");
  settle_base(recipe);
  if (recipe.group_by_length && recipe.packing)
    bad("group_by_length", "orders examples that stand alone in a sequence; set packing to false as well");
  if (recipe.lora() && recipe.adapter.empty() && recipe.target_modules.empty())
    bad("target_modules", "names no module; all-linear takes every linear layer but the head");
  if (recipe.max_steps == 0 && recipe.num_train_epochs <= 0)
    bad("num_train_epochs", "with max_steps 0 at least a part of an epoch must be trained");
  if (recipe.out.empty()) {
    const auto stem = [](std::string path) {
      while (path.size() > 1 && path.back() == '/') path.pop_back();
      const std::string name = std::filesystem::path(path).stem().string();
      return name.empty() ? std::string("run") : name;
    };
    recipe.out = "runs/" + stem(recipe.model) + "-" + stem(recipe.data[0].path);
  }
}

}  // namespace nibble::train
