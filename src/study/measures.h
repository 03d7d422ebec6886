// What a study can measure: one row each in measures.cpp. docs/studies.md lists their options.
#pragma once
#include <memory>
#include <span>
#include <string_view>

#include "study/spec.h"
#include "study/subject.h"

namespace nibble::study {

struct MeasureKind {
  std::string_view kind;
  bool needs_training;  // it is about the run, not about a model at rest
  void (*check)(const Json& options, const std::string& where);  // UsageError for what is missing or unknown
  // Files whose contents decide the result.
  std::vector<std::string> (*files)(const Json& options);
  double (*measure)(Subject& subject, const Json& options);
};

// Errors: UsageError naming the known kinds.
const MeasureKind& measure_kind(const std::string& kind);

// For the rows of measures.cpp, which stand in several files.
extern const MeasureKind kPpl, kHeldOut, kMmlu, kChoice, kMatch, kRouge, kGlue;
// Errors: UsageError{where} naming the option, and for a misspelt one the nearest known.
void known_options(const Json& options, const std::vector<std::string>& known, const std::string& where);
void needs_option(const Json& options, const char* key, const std::string& where);
// One of a few words; the first is the default.
std::string option_among(const Json& options, const char* key, const std::vector<std::string>& words,
                         const std::string& where);
// A whole number from `low` to `high`.
int64_t whole_option(const Json& options, const char* key, int64_t otherwise, int64_t low, int64_t high,
                     const std::string& where);

}  // namespace nibble::study
