// Some families' published checkpoints were saved from the bare model, without the prefix that the language
// model's names have; old ones hold buffers that are no weights, or call a norm's vectors gamma and beta. All
// this is put right here, so that nobody else need know.
#include <algorithm>
#include <unordered_map>

#include "io/sources.h"

namespace nibble::io {
namespace {

struct Row {
  std::string_view model_type, prefix;
};
constexpr Row kPrefixes[] = {{"gpt2", "transformer."},  {"bloom", "transformer."}, {"opt", "model."},
                             {"gpt_neox", "gpt_neox."}, {"bert", "bert."},         {"roberta", "roberta."}};

// Masks and rotary frequencies, which every reader makes itself.
bool is_buffer(std::string_view name) {
  for (const std::string_view end :
       {".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias",
        ".rotary_emb.inv_freq", "embeddings.position_ids"})
    if (name.ends_with(end)) return true;
  return false;
}

// "LayerNorm.gamma" -> "LayerNorm.weight" (BERT's first checkpoints).
std::string present_name(const std::string& name) {
  for (const auto& [old, now] : {std::pair{"LayerNorm.gamma", "weight"}, std::pair{"LayerNorm.beta", "bias"}})
    if (name.ends_with(old)) return name.substr(0, name.rfind('.') + 1) + now;
  return name;
}

bool is_head(std::string_view name) { return name.starts_with("lm_head.") || name.starts_with("embed_out."); }

class RenamedSource : public WeightSource {
 public:
  RenamedSource(std::shared_ptr<const WeightSource> weights, std::string_view prefix)
      : weights_(std::move(weights)) {
    for (WeightInfo info : weights_->list()) {
      if (is_buffer(info.name)) continue;
      const std::string name = is_head(info.name) ? info.name : std::string(prefix) + present_name(info.name);
      stored_[name] = info.name;
      info.name = name;
      list_.push_back(std::move(info));
    }
  }
  bool has(const std::string& name) const override { return stored_.contains(name); }
  quant::Weight read(const std::string& name) const override { return weights_->read(stored(name)); }
  std::vector<WeightInfo> list() const override { return list_; }
  void forget(const std::string& name) const override { weights_->forget(stored(name)); }

 private:
  // An unknown name goes through, for the message of who has not got it.
  const std::string& stored(const std::string& name) const {
    const auto it = stored_.find(name);
    return it == stored_.end() ? name : it->second;
  }
  std::shared_ptr<const WeightSource> weights_;
  std::unordered_map<std::string, std::string> stored_;  // by canonical name
  std::vector<WeightInfo> list_;
};

}  // namespace

std::shared_ptr<const WeightSource> with_canonical_names(std::shared_ptr<const WeightSource> weights,
                                                         const Json& config) {
  const std::vector<WeightInfo> list = weights->list();
  const bool old = std::any_of(list.begin(), list.end(), [](const WeightInfo& w) {
    return is_buffer(w.name) || present_name(w.name) != w.name;
  });
  std::string_view prefix;
  const Json type = config.contains("model_type") ? config["model_type"] : Json();
  for (const Row& row : kPrefixes)
    if (type.is_string() && type.get_ref<const std::string&>() == row.model_type) prefix = row.prefix;
  const bool prefixed =
      std::any_of(list.begin(), list.end(), [&](const WeightInfo& w) { return w.name.starts_with(prefix); });
  if (prefixed && !old) return weights;
  return std::make_shared<RenamedSource>(std::move(weights), prefixed ? std::string_view() : prefix);
}

}  // namespace nibble::io
