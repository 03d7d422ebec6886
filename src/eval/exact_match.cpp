#include "eval/exact_match.h"

#include "base/error.h"
#include "base/text.h"

namespace nibble::eval {

ExactMatch exact_match(const std::vector<std::string>& answers, const std::vector<std::string>& references) {
  require(answers.size() == references.size(), "exact match", "{} answers for {} references", answers.size(),
          references.size());
  ExactMatch result;
  for (size_t i = 0; i < answers.size(); ++i) {
    result.right.push_back(trim(answers[i]) == trim(references[i]));
    result.count += result.right.back();
  }
  return result;
}

}  // namespace nibble::eval
