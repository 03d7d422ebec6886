// Exact match: the share of answers that equal their reference, white space around both ignored.
#pragma once
#include <string>
#include <vector>

namespace nibble::eval {

struct ExactMatch {
  std::vector<bool> right;  // per answer
  int64_t count = 0;
  double share() const {
    return right.empty() ? 0 : static_cast<double>(count) / static_cast<double>(right.size());
  }
};

// REQUIRES: as many answers as references.
ExactMatch exact_match(const std::vector<std::string>& answers, const std::vector<std::string>& references);

}  // namespace nibble::eval
