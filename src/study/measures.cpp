#include "study/measures.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/text.h"

namespace nibble::study {

void known_options(const Json& options, const std::vector<std::string>& known, const std::string& where) {
  for (const auto& [key, value] : options.items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    const std::string near = nearest_name(key, known);
    throw UsageError(where, fmt::format("unknown option \"{}\"{}", key,
                                        near.empty() ? "" : fmt::format("; did you mean \"{}\"?", near)));
  }
}

void needs_option(const Json& options, const char* key, const std::string& where) {
  if (!options.contains(key)) throw UsageError(where, fmt::format("needs the option \"{}\"", key));
}

std::string option_among(const Json& options, const char* key, const std::vector<std::string>& words,
                         const std::string& where) {
  auto word = json_get<std::string>(options, key, words.front(), where);
  if (std::find(words.begin(), words.end(), word) == words.end())
    throw UsageError(where,
                     fmt::format("{} is \"{}\"; expected one of {}", key, word, fmt::join(words, ", ")));
  return word;
}

int64_t whole_option(const Json& options, const char* key, int64_t otherwise, int64_t low, int64_t high,
                     const std::string& where) {
  const auto value = json_get<int64_t>(options, key, otherwise, where);
  if (value < low || value > high)
    throw UsageError(where, high == INT64_MAX
                                ? fmt::format("{} is {}; expected a number from {} up", key, value, low)
                                : fmt::format("{} is {}; expected {} to {}", key, value, low, high));
  return value;
}

namespace {

void check_held_out(const Json& options, const std::string& where) { known_options(options, {}, where); }

double measure_held_out(Subject& subject, const Json&) {
  require(subject.held_out_loss().has_value(), "measure held_out",
          "the run held nothing out; give eval_data or a positive eval_fraction");
  return std::exp(*subject.held_out_loss());
}

const MeasureKind* const kKinds[] = {&kPpl, &kHeldOut, &kMmlu, &kChoice, &kMatch, &kRouge, &kGlue};

}  // namespace

const MeasureKind kHeldOut = {"held_out", true, check_held_out,
                              [](const Json&) { return std::vector<std::string>(); }, measure_held_out};

const MeasureKind& measure_kind(const std::string& kind) {
  std::vector<std::string> names;
  for (const MeasureKind* k : kKinds) {
    if (k->kind == kind) return *k;
    names.emplace_back(k->kind);
  }
  throw UsageError("study",
                   fmt::format("no measure of kind \"{}\"; there are {}", kind, fmt::join(names, ", ")));
}

}  // namespace nibble::study
