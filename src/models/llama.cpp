#include "models/llama.h"

#include <cmath>

#include "autograd/recompute.h"
#include "models/llama_config.h"
#include "nn/attention.h"
#include "nn/mlp.h"
#include "nn/norm.h"
#include "nn/table.h"

namespace nibble::models {
namespace {

// One layer: h += attention(norm(h)); h += mlp(norm(h)).
struct LlamaBlock {
  LlamaBlock(const nn::Loader& w, const LlamaConfig& c, int64_t layer)
      : before_attention((w / "input_layernorm").path(), (w / "input_layernorm").vector("weight", c.width),
                         c.norm_eps),
        before_mlp((w / "post_attention_layernorm").path(),
                   (w / "post_attention_layernorm").vector("weight", c.width), c.norm_eps) {
    const nn::Loader a = w / "self_attn", m = w / "mlp";
    const int64_t q = c.heads * c.head_width, kv = c.kv_heads * c.head_width;
    attention.q = (a / "q_proj").linear(c.width, q, c.qkv_bias);
    attention.k = (a / "k_proj").linear(c.width, kv, c.qkv_bias);
    attention.v = (a / "v_proj").linear(c.width, kv, c.qkv_bias);
    attention.o = (a / "o_proj").linear(q, c.width, c.o_bias);
    mlp.gate = (m / "gate_proj").linear(c.width, c.feed_forward, c.mlp_bias);
    mlp.up = (m / "up_proj").linear(c.width, c.feed_forward, c.mlp_bias);
    mlp.down = (m / "down_proj").linear(c.feed_forward, c.width, c.mlp_bias);
    attention.args = {.heads = c.heads,
                      .kv_heads = c.kv_heads,
                      .head_width = c.head_width,
                      .scale = 1.0f / std::sqrt(static_cast<float>(c.head_width)),
                      .causal = true,
                      .window = c.windows[static_cast<size_t>(layer)]};
  }

  Variable operator()(Context& cx, Variable h, const Tensor& cos_sin, const nn::SequenceInput& input,
                      nn::KvCache* cache, int64_t layer) const {
    cx.layer = layer;
    h = ops::add(cx, h, attention(cx, before_attention(cx, h), cos_sin, input, cache, layer));
    return ops::add(cx, h, mlp(cx, before_mlp(cx, h)));
  }

  std::vector<nn::Linear*> linears() {
    return {&attention.q, &attention.k, &attention.v, &attention.o, &mlp.gate, &mlp.up, &mlp.down};
  }

  nn::RmsNorm before_attention, before_mlp;
  nn::SelfAttention attention;
  nn::GatedMlp mlp;
};

class Llama : public CausalModel {
 public:
  Llama(const nn::Loader& w, LlamaConfig c)
      : config_(std::move(c)), rope_(config_.rope, w.stream().allocator()) {
    const nn::Loader m = w / "model";
    embed_ = {"model.embed_tokens", (m / "embed_tokens").table("weight", config_.vocab, config_.width)};
    blocks_.reserve(static_cast<size_t>(config_.layers));
    for (int64_t i = 0; i < config_.layers; ++i) blocks_.emplace_back(m / "layers" / i, config_, i);
    norm_ = {"model.norm", (m / "norm").vector("weight", config_.width), config_.norm_eps};
    if (!config_.tied_head)
      head_ = nn::Linear("lm_head", (w / "lm_head").table("weight", config_.vocab, config_.width), Tensor());
  }

  const ModelConfig& config() const override { return config_; }

  Variable forward(Context& cx, const nn::SequenceInput& input, nn::KvCache* cache) const override {
    const Tensor& cos_sin = rope_.covering(input.positions);
    Variable h = embed_.embed(cx, input.ids);
    for (int64_t i = 0; i < config_.layers; ++i) {
      const LlamaBlock& block = blocks_[static_cast<size_t>(i)];
      if (cx.checkpointing != autograd::Checkpointing::kBlock || cache != nullptr) {
        h = block(cx, h, cos_sin, input, cache, i);
      } else {
        h = autograd::recompute(cx, "llama_block",
                                [&block, cos_sin, input, i](Context& c, const std::vector<Variable>& in) {
                                  return block(c, in[0], cos_sin, input, nullptr, i);
                                },
                                {h});
      }
    }
    cx.layer = -1;
    return norm_(cx, h);
  }

  ops::LinearArgs head(const Context& cx, int64_t tokens) const override {
    return config_.tied_head ? embed_.as_head() : head_.args(cx, tokens);
  }

  void visit_linears(const nn::LinearVisitor& visit) override {
    for (LlamaBlock& block : blocks_)
      for (nn::Linear* linear : block.linears()) visit(*linear);
    if (!config_.tied_head) visit(head_);
  }

  void make_trainable(Allocator& allocator) override {
    embed_.make_trainable(allocator);
    visit_linears([&](nn::Linear& linear) { linear.make_trainable(allocator); });
    visit_norms([](nn::RmsNorm& norm) { norm.make_trainable(); });
  }

  void visit_parameters(const std::function<void(Parameter&)>& visit) override {
    const auto one = [&](Parameter* p) {
      if (p != nullptr) visit(*p);
    };
    one(embed_.parameter());
    visit_linears([&](nn::Linear& linear) {
      one(linear.weight_parameter());
      one(linear.bias_parameter());
    });
    visit_norms([&](nn::RmsNorm& norm) { one(norm.parameter()); });
  }

  void visit_weights(const std::function<void(const std::string&, const quant::Weight&)>& visit) override {
    visit(embed_.name() + ".weight", embed_.weight());
    visit_linears([&](nn::Linear& linear) {
      visit(linear.name() + ".weight", linear.weight());
      if (linear.has_bias()) visit(linear.name() + ".bias", quant::dense_weight(linear.bias()));
    });
    visit_norms(
        [&](nn::RmsNorm& norm) { visit(norm.name() + ".weight", quant::dense_weight(norm.weight())); });
  }

 private:
  void visit_norms(const std::function<void(nn::RmsNorm&)>& visit) {
    for (LlamaBlock& block : blocks_) {
      visit(block.before_attention);
      visit(block.before_mlp);
    }
    visit(norm_);
  }

  LlamaConfig config_;
  mutable nn::RopeTable rope_;  // grows with the longest sequence seen
  nn::Table embed_;
  std::vector<LlamaBlock> blocks_;
  nn::RmsNorm norm_;
  nn::Linear head_;  // untied only
};

}  // namespace

std::unique_ptr<CausalModel> load_llama(const io::ModelFiles& files, backend::Stream& stream,
                                        const nn::LoadOptions& options) {
  const LlamaConfig config = read_llama_config(files.config);
  return std::make_unique<Llama>(nn::Loader(files.root(), stream, options), config);
}

}  // namespace nibble::models
