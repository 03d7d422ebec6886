#include "study/spec.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "train/recipe.h"

namespace nibble::study {
namespace {

constexpr uint64_t kMostBytes = 1 << 20;
using Keys = std::vector<std::pair<std::string, std::string>>;

class Reader {
 public:
  Reader(std::string where, const Given& given) : where_(std::move(where)), given_(given) {}

  [[noreturn]] void bad(const std::string& what) const { throw UsageError(where_, what); }

  void known(const std::string& key, const std::vector<std::string>& names, const std::string& place) const {
    if (std::find(names.begin(), names.end(), key) != names.end()) return;
    const std::string near = nearest_name(key, names);
    bad(fmt::format("unknown key \"{}\" in {}{}", key, place,
                    near.empty() ? "" : fmt::format("; did you mean \"{}\"?", near)));
  }

  std::string text(const YAML::Node& node, const std::string& place) const {
    if (!node.IsScalar()) bad(fmt::format("{} should be a single value", place));
    return expanded(node.as<std::string>());
  }

  // "${name}" is what was given for it.
  std::string expanded(std::string text) const {
    for (size_t at = text.find("${"); at != std::string::npos; at = text.find("${", at)) {
      const size_t end = text.find('}', at);
      if (end == std::string::npos) bad(fmt::format("\"{}\" has a ${{ without an end", text));
      const std::string name = text.substr(at + 2, end - at - 2);
      const auto it = given_.find(name);
      if (it == given_.end()) bad(fmt::format("${{{}}} is not among `needs`", name));
      text.replace(at, end - at + 1, it->second);
      at += it->second.size();
    }
    return text;
  }

  void check_needs(const YAML::Node& needs) const {
    std::vector<std::string> names;
    for (const auto& item : needs) {
      names.push_back(item.first.as<std::string>());
      if (given_.count(names.back()) == 0)
        bad(fmt::format("needs {}=…: {}", names.back(), item.second.as<std::string>()));
    }
    names.emplace_back("here");
    for (const auto& [name, value] : given_) known(name, names, "key=value");
  }

  // A recipe key's value as `key=value` takes it: a scalar, or a flow list.
  std::string value(const YAML::Node& node) const {
    if (node.IsScalar()) return expanded(node.as<std::string>());
    YAML::Emitter out;
    out << YAML::Flow << node;
    return expanded(out.c_str());
  }

  Keys recipe_keys(const YAML::Node& node, const std::string& place,
                   const std::set<std::string>& besides) const {
    if (!node.IsMap()) bad(fmt::format("{} should be a map of recipe keys", place));
    std::vector<std::string> names(besides.begin(), besides.end());
    for (const train::Field& field : train::recipe_fields()) names.emplace_back(field.name);
    Keys keys;
    for (const auto& item : node) {
      const auto key = item.first.as<std::string>();
      known(key, names, place);
      if (besides.count(key) == 0) keys.emplace_back(key, value(item.second));
    }
    return keys;
  }

  std::vector<Named> named(const YAML::Node& list, const std::string& place, const std::string& path_key = "",
                           bool may_train = false) const {
    if (!list.IsSequence() || list.size() == 0)
      bad(fmt::format("{} should be a list with at least one entry", place));
    std::vector<Named> all;
    std::set<std::string> seen;
    for (const YAML::Node& entry : list) {
      if (!entry.IsMap() || !entry["name"]) bad(fmt::format("each entry of {} needs a name", place));
      Named one;
      one.name = text(entry["name"], place + ".name");
      if (!seen.insert(one.name).second) bad(fmt::format("{} has two entries named \"{}\"", place, one.name));
      std::set<std::string> besides = {"name"};
      if (!path_key.empty()) besides.insert(path_key);
      if (may_train) besides.insert("train");
      if (place == "data") besides.insert("measure");
      if (place == "data" && entry["measure"]) {
        if (!entry["measure"].IsMap())
          bad(fmt::format("measure of data \"{}\" should be a map of options", one.name));
        one.measure = json(entry["measure"]);
      }
      if (may_train && entry["train"] && !YAML::convert<bool>::decode(entry["train"], one.trains))
        bad(fmt::format("train of {} \"{}\" should be true or false", place, one.name));
      one.keys = recipe_keys(entry, fmt::format("{} \"{}\"", place, one.name), besides);
      if (!path_key.empty()) {
        if (!entry[path_key]) bad(fmt::format("{} \"{}\" needs a {}", place, one.name, path_key));
        one.keys.emplace_back("model", text(entry[path_key], path_key));
      }
      all.push_back(std::move(one));
    }
    return all;
  }

  Json json(const YAML::Node& node) const {
    if (node.IsMap()) {
      Json object = Json::object();
      for (const auto& item : node) object[item.first.as<std::string>()] = json(item.second);
      return object;
    }
    if (node.IsSequence()) {
      Json list = Json::array();
      for (const YAML::Node& item : node) list.push_back(json(item));
      return list;
    }
    if (!node.IsScalar()) return nullptr;
    const bool quoted = node.Tag() == "!";
    int64_t integer = 0;
    double number = 0;
    bool truth = false;
    if (!quoted && YAML::convert<int64_t>::decode(node, integer)) return integer;
    if (!quoted && YAML::convert<double>::decode(node, number)) return number;
    if (!quoted && YAML::convert<bool>::decode(node, truth)) return truth;
    return expanded(node.as<std::string>());
  }

  std::vector<Measure> measures(const YAML::Node& list) const {
    if (!list || !list.IsSequence() || list.size() == 0)
      bad("measures should be a list with at least one entry");
    std::vector<Measure> all;
    for (const YAML::Node& entry : list) {
      if (!entry.IsMap() || !entry["kind"]) bad("each entry of measures needs a kind");
      Measure one;
      one.kind = text(entry["kind"], "measures.kind");
      one.name = entry["name"] ? text(entry["name"], "measures.name") : one.kind;
      const std::string better = entry["better"] ? text(entry["better"], "measures.better") : "lower";
      if (better != "lower" && better != "higher")
        bad(fmt::format("better of measure \"{}\" should be lower or higher, not \"{}\"", one.name, better));
      one.higher_is_better = better == "higher";
      one.options = json(entry);
      for (const char* key : {"name", "kind", "better"}) one.options.erase(key);
      all.push_back(std::move(one));
    }
    return all;
  }

  Published published(const YAML::Node& node) const {
    Published p;
    for (const auto& item : node)
      known(item.first.as<std::string>(), {"source", "scale", "column", "rows"}, "published");
    const auto field = [&](const char* key) { return node[key] ? text(node[key], key) : std::string(); };
    p.source = field("source");
    p.scale = field("scale");
    p.column = field("column");
    if (!node["rows"] || !node["rows"].IsMap()) bad("published needs rows: the figure of each variant");
    for (const auto& item : node["rows"]) {
      double figure = 0;
      if (!YAML::convert<double>::decode(item.second, figure))
        bad(fmt::format("published row \"{}\" should be a number", item.first.as<std::string>()));
      p.rows.emplace_back(item.first.as<std::string>(), figure);
    }
    return p;
  }

 private:
  std::string where_;
  const Given& given_;
};

const std::vector<std::string> kKeys = {"study",     "title",   "about",    "scale",   "needs",
                                        "published", "prepare", "models",   "data",    "variants",
                                        "train",     "seeds",   "measures", "baseline"};

Spec spec_of(const YAML::Node& root, const Reader& read) {
  if (!root.IsMap()) read.bad("a study is a map; it begins with `study: NAME`");
  for (const auto& item : root) read.known(item.first.as<std::string>(), kKeys, "the study");
  for (const char* key : {"study", "models", "variants", "measures"})
    if (!root[key]) read.bad(fmt::format("needs the key \"{}\"", key));
  read.check_needs(root["needs"]);
  Spec spec;
  const auto field = [&](const char* key) { return root[key] ? read.text(root[key], key) : std::string(); };
  spec.name = field("study");
  if (spec.name.empty() || spec.name.find_first_of("/\\ ") != std::string::npos)
    read.bad("study should be a short name without spaces or slashes");
  spec.title = root["title"] ? field("title") : spec.name;
  spec.about = field("about");
  spec.scale = field("scale");
  if (root["published"]) spec.published = read.published(root["published"]);
  if (root["prepare"]) spec.prepare = read.named(root["prepare"], "prepare");
  spec.models = read.named(root["models"], "models", "path");
  if (root["data"]) spec.data = read.named(root["data"], "data", "", true);
  spec.variants = read.named(root["variants"], "variants", "", true);
  spec.trains = static_cast<bool>(root["train"]);
  if (spec.trains) spec.train = read.recipe_keys(root["train"], "train", {});
  if (!spec.trains && (root["seeds"] || root["data"]))
    read.bad("seeds and data are for studies that train; add `train:` or leave them out");
  spec.seeds = {42};
  if (root["seeds"]) {
    spec.seeds.clear();
    for (const YAML::Node& seed : root["seeds"]) {
      int64_t value = 0;
      if (!YAML::convert<int64_t>::decode(seed, value) || value < 0)
        read.bad("seeds should be a list of whole numbers");
      spec.seeds.push_back(value);
    }
    if (spec.seeds.empty()) read.bad("seeds should name at least one");
  }
  spec.measures = read.measures(root["measures"]);
  spec.baseline = root["baseline"] ? field("baseline") : spec.variants.front().name;
  const auto is_variant = [&](const std::string& name) {
    return std::any_of(spec.variants.begin(), spec.variants.end(),
                       [&](const Named& v) { return v.name == name; });
  };
  if (!is_variant(spec.baseline)) read.bad(fmt::format("baseline \"{}\" is no variant", spec.baseline));
  return spec;
}

}  // namespace

Json measure_options(const Spec& spec, size_t measure, size_t data) {
  Json options = spec.measures[measure].options;
  if (!spec.data.empty() && spec.data[data].measure.is_object()) options.update(spec.data[data].measure);
  return options;
}

Spec parse_spec(const std::string& yaml, const std::string& where, const Given& given) {
  try {
    return spec_of(YAML::Load(yaml), Reader(where, given));
  } catch (const YAML::Exception& e) {
    throw UsageError(fmt::format("{}:{}", where, e.mark.line + 1), e.msg);
  }
}

Spec read_spec(const std::string& path, const Given& given) {
  Given all = given;
  const std::string folder = std::filesystem::path(path).parent_path().string();
  all.emplace("here", folder.empty() ? "." : folder);
  return parse_spec(read_file(path, kMostBytes), path, all);
}

}  // namespace nibble::study
