#include "models/classifier.h"

#include "base/rng.h"
#include "models/config_keys.h"
#include "models/registry.h"

namespace nibble::models {
namespace {

// Row of the first token of each segment.
Tensor first_rows(Context& cx, const Tensor& segments) {
  Tensor rows = cx.empty({segments.size(0)}, kI32, "first rows");
  if (rows.raw() == nullptr || segments.raw() == nullptr) return rows;
  for (int64_t i = 0; i < rows.numel(); ++i) rows.data<int32_t>()[i] = segments.data<int32_t>()[4 * i];
  return rows;
}

}  // namespace

ClassificationHead::ClassificationHead(const nn::Loader& root, ClassifierConfig config, int64_t width)
    : config_(std::move(config)) {
  const nn::Loader dense = root / config_.dense;
  if (!config_.dense_is_head && (config_.labels > 0 || dense.has("weight")))
    dense_ = dense.linear(width, width, true);
  if (config_.labels == 0) return;
  if (config_.dense_is_head) dense_ = dense.dense_linear(width, width, true);
  out_ = (root / config_.out).dense_linear(width, config_.labels, true);
}

Variable ClassificationHead::pool(Context& cx, const Variable& h, const Tensor& segments) const {
  const auto drop = [&](const Variable& x, const char* where) {
    return ops::dropout(cx, x, config_.dropout, stream_id(config_.out + where));
  };
  Variable x = ops::rows(cx, h, first_rows(cx, segments));
  if (config_.dropout_first) x = drop(x, ".first_dropout");
  return drop(ops::activation(cx, dense_(cx, x), ops::Activation::kTanh), ".dropout");
}

void ClassificationHead::list(Modules& modules) {
  if (!config_.dense_is_head) modules.add_defined(dense_);
  if (!defined()) return;
  if (config_.dense_is_head) modules.add_head(dense_);
  modules.add_head(out_);
}

int64_t label_count(const Json& config) {
  const bool named = config.contains("id2label") && config["id2label"].is_object();
  const int64_t labels = named ? static_cast<int64_t>(config["id2label"].size())
                               : json_get<int64_t>(config, "num_labels", 2, kConfig);
  require(labels > 0 && labels <= 1'000'000, kConfig, "the head has {} labels; expected at least one",
          labels);
  const auto kind = json_get<std::string>(config, "problem_type", "", kConfig);
  require(kind.empty() || kind == (labels == 1 ? "regression" : "single_label_classification"), kConfig,
          "problem_type \"{}\" with {} labels is not supported; a head gives one of several classes, or one "
          "score",
          kind, labels);
  return labels;
}

bool is_encoder(const Json& config) { return !family_of(config, kConfig).classifier.empty(); }

io::ModelFiles as_classifier(io::ModelFiles files, int64_t outputs, uint64_t seed,
                             const std::vector<std::string>& names) {
  const Family& family = family_of(files.config, files.path);
  require(!family.classifier.empty(), files.path,
          "is a {}, which predicts tokens; to classify takes an encoder such as BERT or RoBERTa",
          family.architecture);
  Json& config = files.config;
  if (family.architecture == family.classifier) {
    const int64_t has = label_count(config);
    require(has == outputs, files.path,
            "has a head of {} labels where the task has {}; start from the encoder without its head", has,
            outputs);
    return files;
  }
  Json labels = Json::object(), ids = Json::object();
  for (int64_t i = 0; i < outputs; ++i) {
    const auto at = static_cast<size_t>(i);
    const std::string name = at < names.size() ? names[at] : fmt::format("LABEL_{}", i);
    labels[std::to_string(i)] = name;
    ids[name] = i;
  }
  config["architectures"] = Json::array({std::string(family.classifier)});
  config["id2label"] = labels;
  config["label2id"] = ids;
  config["problem_type"] = outputs == 1 ? "regression" : "single_label_classification";
  files.weights =
      io::with_fresh_weights(files.weights, {"classifier.", std::string(family.model_type) + ".pooler."},
                             seed, json_get<double>(config, "initializer_range", 0.02, kConfig));
  return files;
}

io::ModelFiles with_head_of(const io::AdapterFile& adapter, io::ModelFiles files) {
  for (const char* name : {"classifier.weight", "classifier.out_proj.weight"})
    for (const auto& [saved, value] : adapter.saved)
      if (saved == name) return as_classifier(std::move(files), value.size(0), 0);
  return files;
}

}  // namespace nibble::models
