// LLaMA and the families that differ from it by a switch (Touvron et al. 2023): Mistral (sliding window),
// Qwen2 (biases on q, k, v), Qwen3 (norms of q and k), Phi-3 (fused products), Gemma 1 to 3 (scaled
// embeddings, norms around zero, GEGLU; then norms on both sides of a sublayer, soft caps, windows in some
// layers, which Gemma 3 turns with a base of their own).
#include "models/blocks.h"
#include "models/families.h"
#include "models/llama_config.h"
#include "nn/attention.h"
#include "nn/mlp.h"
#include "nn/norm.h"
#include "nn/table.h"

namespace nibble::models {
namespace {

nn::Norm norm_at(const nn::Loader& w, const LlamaConfig& c) {
  return nn::Norm::rms(w, c.width, c.norm_eps, c.norm_offset);
}

// One layer: h += attention(norm(h)); h += mlp(norm(h)); with `sandwich` each sublayer's result is normed
// too.
struct LlamaBlock {
  LlamaBlock(const nn::Loader& w, const LlamaConfig& c, int64_t layer)
      : before_attention(norm_at(w / "input_layernorm", c)),
        before_mlp(norm_at(w / (c.sandwich ? "pre_feedforward_layernorm" : "post_attention_layernorm"), c)) {
    if (c.sandwich) {
      after_attention = norm_at(w / "post_attention_layernorm", c);
      after_mlp = norm_at(w / "post_feedforward_layernorm", c);
    }
    const nn::Loader a = w / "self_attn", m = w / "mlp";
    const int64_t q = c.heads * c.head_width, kv = c.kv_heads * c.head_width;
    if (c.fused) {
      attention.fused = nn::FusedQkv::kInTurn;
      attention.qkv = (a / "qkv_proj").linear(c.width, q + 2 * kv, c.qkv_bias);
      mlp.gate_up = (m / "gate_up_proj").linear(c.width, 2 * c.feed_forward, c.mlp_bias);
    } else {
      attention.q = (a / "q_proj").linear(c.width, q, c.qkv_bias);
      attention.k = (a / "k_proj").linear(c.width, kv, c.qkv_bias);
      attention.v = (a / "v_proj").linear(c.width, kv, c.qkv_bias);
      mlp.gate = (m / "gate_proj").linear(c.width, c.feed_forward, c.mlp_bias);
      mlp.up = (m / "up_proj").linear(c.width, c.feed_forward, c.mlp_bias);
    }
    attention.o = (a / "o_proj").linear(q, c.width, c.o_bias);
    mlp.down = (m / "down_proj").linear(c.feed_forward, c.width, c.mlp_bias);
    mlp.activation = c.activation;
    if (c.head_norms) {
      attention.q_norm = nn::Norm::rms(a / "q_norm", c.head_width, c.norm_eps, c.norm_offset);
      attention.k_norm = nn::Norm::rms(a / "k_norm", c.head_width, c.norm_eps, c.norm_offset);
    }
    attention.args = {.heads = c.heads,
                      .kv_heads = c.kv_heads,
                      .head_width = c.head_width,
                      .scale = c.score_scale,
                      .causal = true,
                      .window = c.windows[static_cast<size_t>(layer)],
                      .softcap = c.score_cap};
  }

  Variable operator()(Context& cx, Variable h, const Tensor& cos_sin, const nn::SequenceInput& input,
                      nn::KvCache* cache, int64_t layer) const {
    const auto after = [&](const nn::Norm& norm, const Variable& x) {
      return norm.defined() ? norm(cx, x) : x;
    };
    h = ops::add(
        cx, h, after(after_attention, attention(cx, before_attention(cx, h), cos_sin, input, cache, layer)));
    return ops::add(cx, h, after(after_mlp, mlp(cx, before_mlp(cx, h))));
  }

  void list(Modules& modules) {
    modules.add(before_attention);
    nn::SelfAttention& a = attention;
    for (nn::Linear* linear : {&a.q, &a.k, &a.v, &a.qkv, &a.o, &mlp.gate, &mlp.up, &mlp.gate_up, &mlp.down})
      modules.add_defined(*linear);
    modules.add(before_mlp);
    for (nn::Norm* norm : {&a.q_norm, &a.k_norm, &after_attention, &after_mlp}) modules.add_defined(*norm);
  }

  nn::Norm before_attention, before_mlp, after_attention, after_mlp;
  nn::SelfAttention attention;
  nn::GatedMlp mlp;
};

class Llama : public Model {
 public:
  Llama(const nn::Loader& w, LlamaConfig c) : config_(std::move(c)) {
    const nn::Loader m = w / "model";
    for (const nn::RopeSpec& rope : config_.ropes) ropes_.emplace_back(rope, w.stream().allocator());
    embed_ = {"model.embed_tokens", (m / "embed_tokens").table("weight", config_.vocab, config_.width)};
    blocks_.reserve(static_cast<size_t>(config_.layers));
    for (int64_t i = 0; i < config_.layers; ++i) blocks_.emplace_back(m / "layers" / i, config_, i);
    norm_ = norm_at(m / "norm", config_);
    if (!config_.tied_head)
      head_ = nn::Linear("lm_head", (w / "lm_head").table("weight", config_.vocab, config_.width), Tensor());
    modules_.add(embed_);
    for (LlamaBlock& block : blocks_) block.list(modules_);
    modules_.add(norm_);
    modules_.add_defined(head_);
  }

  const ModelConfig& config() const override { return config_; }

  Variable forward(Context& cx, const nn::SequenceInput& input, nn::KvCache* cache) const override {
    std::vector<Tensor> cos_sin;
    for (nn::RopeTable& rope : ropes_) cos_sin.push_back(rope.covering(input.positions));
    Variable h = embed_.embed(cx, input.ids);
    if (config_.embedding_scale != 1) {
      // Transformers holds the factor in the compute type.
      const float f = config_.embedding_scale;
      h = ops::scale(cx, h, cx.compute() == kBF16 ? to_float(to_bf16(f)) : f);
    }
    h = run_blocks(cx, "llama_block", config_.layers, cache, {h},
                   [this, cos_sin, input, cache](Context& c, const std::vector<Variable>& in, int64_t i) {
                     const auto layer = static_cast<size_t>(i);
                     return blocks_[layer](c, in[0], cos_sin[config_.rope_of[layer]], input, cache, i);
                   });
    return norm_(cx, h);
  }

  ops::LinearArgs head(const Context& cx, int64_t tokens) const override {
    ops::LinearArgs args = config_.tied_head ? embed_.as_head() : head_.args(cx, tokens);
    args.softcap = config_.logit_cap;
    return args;
  }

 private:
  LlamaConfig config_;
  mutable std::vector<nn::RopeTable> ropes_;  // grow with the longest sequence seen
  nn::Table embed_;
  std::vector<LlamaBlock> blocks_;
  nn::Norm norm_;
  nn::Linear head_;  // untied only
};

}  // namespace

std::unique_ptr<Model> load_llama(const io::ModelFiles& files, backend::Stream& stream,
                                  const nn::LoadOptions& options) {
  const LlamaConfig config = read_llama_config(files.config);
  return std::make_unique<Llama>(nn::Loader(files.root(), stream, options), config);
}

}  // namespace nibble::models
