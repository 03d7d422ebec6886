// GLUE (Wang et al. 2019) by a classifier: its predictions for labelled texts, and what the task is reported
// with.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "eval/scores.h"
#include "models/model.h"
#include "text/tokenizer.h"

namespace nibble::eval {

struct GlueOptions {
  int64_t every = 1;            // one example of a file in so many is scored, from the first
  int64_t limit = 0;            // most examples of a file; 0: all
  int64_t batch_tokens = 4096;  // of a forward
  std::function<void(int64_t done, int64_t total)> progress;  // may be empty
};

// One file; of MNLI there are two, matched and mismatched.
struct GluePart {
  std::string path;
  std::vector<double> predictions, labels;  // class numbers, or scores
  std::vector<std::vector<float>> logits;   // what the head gave, a number per label
  std::vector<NamedScore> scores;           // as glue_scores() gives them
  int64_t truncated = 0;                    // texts that were longer than the model's context
};

struct GlueReport {
  std::string task;
  std::vector<GluePart> parts;
  // The task's one number: of each part the last score (a mean where there are two), and their mean.
  double score() const;
};

// `cx` has no tape and the adapter in force. Errors: a model that is no classifier of that task; what
// read_glue() finds (labels outside the task's range, an empty split); a split without labels.
GlueReport glue(autograd::Context& cx, const models::Model& model, const text::Tokenizer& tokenizer,
                const std::string& task, const std::vector<std::string>& files,
                const GlueOptions& options = {});

}  // namespace nibble::eval
