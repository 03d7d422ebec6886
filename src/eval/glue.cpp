#include "eval/glue.h"

#include <algorithm>

#include "base/process.h"
#include "data/dataset.h"
#include "data/glue.h"
#include "data/steps.h"
#include "eval/part.h"

namespace nibble::eval {
namespace {

void require_classifier(const models::ModelConfig& config, const data::GlueTask& task) {
  const int64_t labels = task.scores() ? 1 : static_cast<int64_t>(task.labels.size());
  require(config.labels > 0, "glue",
          "this {} has no head for whole texts; score a model or an adapter that was trained on {}",
          config.family, task.name);
  require(config.labels == labels, "glue",
          "the model's head has {} labels, {} has {}; it was trained for another task", config.labels,
          task.name, labels);
}

std::vector<data::EncodedExample> encoded(const std::string& path, const data::GlueTask& task,
                                          const data::Encoder& encoder, int64_t context,
                                          const GlueOptions& options, GluePart& part) {
  std::vector<data::GlueExample> examples = data::read_glue(path, task.name);
  keep_part(examples, options.every, options.limit);
  require(!examples.empty(), path, "is an empty split of {}: there is no row", task.name);
  std::vector<data::EncodedExample> out;
  for (const data::GlueExample& example : examples) {
    require(example.label >= 0, example.source, "has no label; such a split of {} cannot be scored",
            task.name);
    data::Example texts;
    texts.segments.push_back({example.first, false});
    if (task.second != nullptr) texts.segments.push_back({example.second, false});
    texts.label = example.label;
    texts.source = example.source;
    out.push_back(encoder.encode(texts));
    if (static_cast<int64_t>(out.back().ids.size()) > context) {
      encoder.truncate(out.back(), context);
      ++part.truncated;
    }
    part.labels.push_back(example.label);
  }
  return out;
}

// The score, or the class with the highest one (the first of equals).
void predict(autograd::Context& cx, const models::Model& model, const data::MicroBatch& batch,
             GluePart& part) {
  const nn::SequenceInput input = nn::packed_input(cx.allocator(), batch.ids, batch.lengths, batch.types);
  const Tensor logits = model.logits(cx, model.forward(cx, input, nullptr), Tensor());
  const int64_t labels = logits.size(1);
  for (int64_t i = 0; i < logits.size(0); ++i) {
    const float* row = logits.data<float>() + i * labels;
    part.logits.emplace_back(row, row + labels);
    part.predictions.push_back(labels == 1 ? static_cast<double>(row[0])
                                           : static_cast<double>(std::max_element(row, row + labels) - row));
  }
}

}  // namespace

double GlueReport::score() const {
  double sum = 0;
  for (const GluePart& part : parts) sum += part.scores.back().value;
  return sum / static_cast<double>(parts.size());
}

GlueReport glue(autograd::Context& cx, const models::Model& model, const text::Tokenizer& tokenizer,
                const std::string& task_name, const std::vector<std::string>& files,
                const GlueOptions& options) {
  const data::GlueTask& task = data::glue_task(task_name);
  require_classifier(model.config(), task);
  require(!files.empty(), "glue", "no file of {} is given", task.name);
  const std::shared_ptr<const text::Tokenizer> borrowed(std::shared_ptr<void>(), &tokenizer);
  const data::Encoder encoder(borrowed, nullptr);
  GlueReport report{task.name, {}};
  std::vector<std::vector<data::EncodedExample>> examples;
  int64_t total = 0, done = 0;
  for (const std::string& path : files) {
    GluePart& part = report.parts.emplace_back();
    part.path = path;
    examples.push_back(encoded(path, task, encoder, model.config().max_positions, options, part));
    total += static_cast<int64_t>(examples.back().size());
  }
  for (size_t i = 0; i < files.size(); ++i) {
    GluePart& part = report.parts[i];
    for (const data::MicroBatch& batch : data::sequential_batches(examples[i], options.batch_tokens)) {
      if (interrupted())
        throw Interrupted("glue", fmt::format("interrupted after {} of {} texts", done, total));
      predict(cx, model, batch, part);
      done += batch.trained();
      if (options.progress) options.progress(done, total);
    }
    part.scores = glue_scores(task.name, part.predictions, part.labels);
  }
  return report;
}

}  // namespace nibble::eval
