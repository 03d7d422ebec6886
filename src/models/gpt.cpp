#include "models/gpt.h"

#include <algorithm>
#include <cmath>

#include "base/rng.h"
#include "models/blocks.h"
#include "models/config_keys.h"
#include "nn/mlp.h"
#include "nn/norm.h"
#include "nn/table.h"

namespace nibble::models {
namespace {

nn::Norm norm_at(const nn::Loader& w, const GptConfig& c, const std::string& path) {
  const nn::Loader at = w / path;
  if (c.norm_weights) return nn::Norm::layer(at, c.width, c.norm_eps);
  const MemoryGroup group(w.stream().allocator(), "weights");
  const auto constant = [&](float value) {
    Tensor t = Tensor::empty(w.stream().allocator(), {c.width}, kF32, at.path());
    if (t.raw() != nullptr) std::fill_n(t.data<float>(), c.width, value);
    return t;
  };
  return {at.path(), constant(1), constant(0), c.norm_eps};
}

struct GptBlock {
  GptBlock(const nn::Loader& w, const GptConfig& c, int64_t layer)
      : residual(c.residual),
        attention_norm(norm_at(w, c, c.names.attention_norm)),
        mlp_norm(norm_at(w, c, c.names.mlp_norm)),
        dropout(c.hidden_dropout),
        attention_dropout(stream_id(attention_norm.name() + ".dropout")),
        mlp_dropout(stream_id(mlp_norm.name() + ".dropout")) {
    const GptNames& n = c.names;
    const auto square = [&](const std::string& path) {
      return (w / path).linear(c.width, c.width, c.attention_bias, c.stored);
    };
    if (c.fused == nn::FusedQkv::kNo) {
      attention.q = square(n.q);
      attention.k = square(n.k);
      attention.v = square(n.v);
    } else {
      attention.qkv = (w / n.qkv).linear(c.width, 3 * c.width, c.attention_bias, c.stored);
    }
    attention.fused = c.fused;
    attention.o = square(n.o);
    attention.args = {.heads = c.heads,
                      .kv_heads = c.heads,
                      .head_width = c.head_width,
                      .scale = c.scales[static_cast<size_t>(layer)],
                      .causal = c.causal,
                      .alibi = c.alibi};
    mlp.up = (w / n.up).linear(c.width, c.feed_forward, c.mlp_bias, c.stored);
    mlp.down = (w / n.down).linear(c.feed_forward, c.width, c.mlp_bias, c.stored);
    mlp.activation = c.activation;
  }

  Variable operator()(Context& cx, const Variable& h, const Tensor& cos_sin, const nn::SequenceInput& input,
                      nn::KvCache* cache, int64_t layer) const {
    const auto attend = [&](const Variable& x) { return attention(cx, x, cos_sin, input, cache, layer); };
    switch (residual) {
      case Residual::kPreNorm: {
        const Variable a = ops::add(cx, h, attend(attention_norm(cx, h)));
        return ops::add(cx, a, mlp(cx, mlp_norm(cx, a)));
      }
      case Residual::kPostNorm: {
        const auto drop = [&](const Variable& x, uint64_t stream) {
          return ops::dropout(cx, x, dropout, stream);
        };
        const Variable a = attention_norm(cx, ops::add(cx, h, drop(attend(h), attention_dropout)));
        return mlp_norm(cx, ops::add(cx, a, drop(mlp(cx, a), mlp_dropout)));
      }
      case Residual::kParallel: {
        const Variable a = ops::add(cx, h, attend(attention_norm(cx, h)));
        return ops::add(cx, a, mlp(cx, mlp_norm(cx, h)));
      }
      case Residual::kNormedInput:
        break;
    }
    const Variable x = attention_norm(cx, h), a = mlp_norm(cx, ops::add(cx, x, attend(x)));
    return ops::add(cx, a, mlp(cx, a));
  }

  Residual residual;
  nn::Norm attention_norm, mlp_norm;
  nn::SelfAttention attention;
  nn::Mlp mlp;
  float dropout;  // of the sublayers' results, post-norm alone
  uint64_t attention_dropout, mlp_dropout;
};

class Gpt : public Model {
 public:
  Gpt(const nn::Loader& w, GptConfig c) : config_(std::move(c)) {
    const GptNames& n = config_.names;
    const int64_t width = config_.width, narrow = config_.embedding_width;
    embedding_ = {n.embedding, (w / n.embedding).table("weight", config_.vocab, narrow)};
    modules_.add(embedding_);
    if (!n.positions.empty()) {
      positions_ = {n.positions,
                    (w / n.positions).table("weight", config_.max_positions + config_.first_position, width)};
      modules_.add(positions_);
    }
    if (config_.token_types > 0) {
      types_ = {n.types, (w / n.types).table("weight", config_.token_types, width)};
      modules_.add(types_);
    }
    if (!n.embedding_norm.empty()) embedding_norm_ = norm_at(w, config_, n.embedding_norm);
    if (narrow != width) {
      project_in_ = (w / n.project_in).linear(narrow, width, false);
      project_out_ = (w / n.project_out).linear(width, narrow, false);
    }
    if (config_.rope) rope_.emplace(*config_.rope, w.stream().allocator());
    blocks_.reserve(static_cast<size_t>(config_.layers));
    for (int64_t i = 0; i < config_.layers; ++i) blocks_.emplace_back(w / n.blocks / i, config_, i);
    if (!n.last_norm.empty()) last_norm_ = norm_at(w, config_, n.last_norm);
    if (!config_.causal) classifier_ = {w, config_.classifier, width};
    if (!config_.tied_head && !n.head.empty())
      head_ = nn::Linear(n.head, (w / n.head).table("weight", config_.vocab, narrow), Tensor());
    list_modules();
  }

  const ModelConfig& config() const override { return config_; }

  Variable forward(Context& cx, const nn::SequenceInput& input, nn::KvCache* cache) const override {
    require(cache == nullptr || config_.causal, config_.family,
            "reads whole sequences; it cannot write one token after another");
    const Tensor cos_sin = rope_ ? rope_->covering(input.positions) : Tensor();
    Variable h = embedding_.embed(cx, input.ids);
    if (project_in_.defined()) h = project_in_(cx, h);
    if (!config_.names.positions.empty())
      h = ops::add(cx, h, positions_.embed(cx, rows_of(cx, input.positions)));
    if (config_.token_types > 0) h = ops::add(cx, h, types_.embed(cx, types_of(cx, input)));
    if (embedding_norm_.defined()) h = embedding_norm_(cx, h);
    h = ops::dropout(cx, h, config_.hidden_dropout, stream_id(config_.names.embedding + ".dropout"));
    h = run_blocks(cx, "gpt_block", config_.layers, cache, {h},
                   [this, cos_sin, input, cache](Context& c, const std::vector<Variable>& in, int64_t i) {
                     return blocks_[static_cast<size_t>(i)](c, in[0], cos_sin, input, cache, i);
                   });
    if (last_norm_.defined()) h = last_norm_(cx, h);
    if (classifier_.defined()) return classifier_.pool(cx, h, input.segments);
    return project_out_.defined() ? project_out_(cx, h) : h;
  }

  ops::LinearArgs head(const Context& cx, int64_t tokens) const override {
    if (classifier_.defined()) return classifier_.args(cx, tokens);
    require(config_.tied_head || head_.defined(), config_.family,
            "is an encoder without a head: it gives hidden states alone; train it on a task first");
    return config_.tied_head ? embedding_.as_head() : head_.args(cx, tokens);
  }

 private:
  void list_modules() {
    modules_.add_defined(project_out_);
    modules_.add_defined(project_in_);
    // Norms without weights have nothing to train or to write.
    const auto add_norm = [&](nn::Norm& norm) {
      if (config_.norm_weights) modules_.add_defined(norm);
    };
    add_norm(embedding_norm_);
    for (GptBlock& block : blocks_) {
      add_norm(block.attention_norm);
      nn::SelfAttention& a = block.attention;
      for (nn::Linear* linear : {&a.q, &a.k, &a.v, &a.qkv, &a.o, &block.mlp.up, &block.mlp.down})
        modules_.add_defined(*linear);
      add_norm(block.mlp_norm);
    }
    add_norm(last_norm_);
    modules_.add_defined(head_);
    classifier_.list(modules_);
  }

  // Rows of the table of token types: those given, else all of the first.
  Tensor types_of(Context& cx, const nn::SequenceInput& input) const {
    if (input.types.defined()) return input.types;
    Tensor types = cx.empty({input.tokens()}, kI32, "token types");
    if (types.raw() != nullptr) std::fill_n(types.data<int32_t>(), types.numel(), 0);
    return types;
  }

  // Rows of the table of learned positions.
  Tensor rows_of(Context& cx, const Tensor& positions) const {
    Tensor rows = cx.empty(positions.shape(), kI32, "positions");
    if (rows.raw() == nullptr || positions.raw() == nullptr) return rows;
    const auto* p = positions.data<int32_t>();
    for (int64_t t = 0; t < rows.numel(); ++t) {
      require(p[t] < config_.max_positions, config_.family,
              "position {} is beyond the {} that this model has learned; shorten the sequences", p[t],
              config_.max_positions);
      rows.data<int32_t>()[t] = p[t] + static_cast<int32_t>(config_.first_position);
    }
    return rows;
  }

  GptConfig config_;
  mutable std::optional<nn::RopeTable> rope_;  // grows with the longest sequence seen
  nn::Table embedding_, positions_, types_;
  nn::Linear project_in_, project_out_;
  nn::Norm embedding_norm_, last_norm_;
  std::vector<GptBlock> blocks_;
  nn::Linear head_;  // untied only
  ClassificationHead classifier_;
};

}  // namespace

GptConfig read_usual_sizes(const Json& config) {
  GptConfig c;
  c.source = config;
  c.vocab = positive(config, "vocab_size");
  c.width = c.embedding_width = positive(config, "hidden_size");
  c.layers = layer_count(config, "num_hidden_layers");
  c.heads = c.kv_heads = positive(config, "num_attention_heads");
  c.head_width = divided_width(c.width, c.heads);
  c.feed_forward = positive(config, "intermediate_size");
  c.scales.assign(static_cast<size_t>(c.layers), 1.0f / std::sqrt(static_cast<float>(c.head_width)));
  return c;
}

std::unique_ptr<Model> make_gpt(const nn::Loader& weights, GptConfig config) {
  return std::make_unique<Gpt>(weights, std::move(config));
}

}  // namespace nibble::models
