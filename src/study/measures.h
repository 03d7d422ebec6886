// What a study can measure: one row each in measures.cpp.
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

}  // namespace nibble::study
