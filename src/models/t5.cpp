// T5 and T5 v1.1 (Raffel et al. 2020; Shazeer 2020), an encoder and a decoder that reads what the encoder
// made of the source. Positions are a bias on the scores by distance, one table for all layers of each of the
// two; scores are not divided by √width; norms are RMSNorms before the sublayers. v1.0 has a ReLU and one
// table for embedding and output, whose logits are scaled by 1 / √width; v1.1 has a gated GELU and a head of
// its own. Dropout stands where Transformers has it, except on attention's probabilities, which are never
// whole here.
#include <cmath>
#include <optional>

#include "base/rng.h"
#include "models/blocks.h"
#include "models/config_keys.h"
#include "models/families.h"
#include "nn/attention.h"
#include "nn/norm.h"
#include "nn/table.h"

namespace nibble::models {
namespace {

struct T5Config : ModelConfig {
  int64_t bias_distance = 128;
  ops::Activation activation = ops::Activation::kRelu;
  bool gated = false, scaled_logits = true;
  float norm_eps = 1e-6f, dropout = 0;
};

// "relu", "gated-gelu" … (there "gelu" is its tanh form, as in the models that have it).
void read_feed_forward(const Json& json, T5Config& c) {
  constexpr const char* kKey = "feed_forward_proj";
  const auto name = json_get<std::string>(json, kKey, "relu", kConfig);
  constexpr std::string_view kGated = "gated-";
  c.gated = name.starts_with(kGated);
  if (name == "gated-gelu") {
    c.activation = ops::Activation::kGeluTanh;
    return;
  }
  const Json plain = {{kKey, c.gated ? name.substr(kGated.size()) : name}};
  c.activation = activation_named(plain, kKey, "relu");
}

T5Config read_t5_config(const io::ModelFiles& files) {
  const Json& json = files.config;
  T5Config c;
  c.family = json_get<std::string>(json, "model_type", "t5", kConfig);
  c.task = Task::kSeq2Seq;
  c.source = json;
  c.vocab = positive(json, "vocab_size");
  c.width = positive(json, "d_model");
  c.head_width = positive(json, "d_kv");
  c.feed_forward = positive(json, "d_ff");
  c.heads = c.kv_heads = positive(json, "num_heads");
  c.encoder_layers = layer_count(json, "num_layers");
  const bool same = !json.contains("num_decoder_layers") || json["num_decoder_layers"].is_null();
  c.layers = same ? c.encoder_layers : layer_count(json, "num_decoder_layers");
  c.max_positions = 1 << 20;  // distances have no end; n_positions is only how long its first texts were
  c.bias_buckets = positive(json, "relative_attention_num_buckets", 32);
  c.bias_distance = positive(json, "relative_attention_max_distance", 128);
  require(c.bias_buckets >= 4 && c.bias_buckets <= 4096 && c.bias_buckets % 2 == 0 &&
              c.bias_distance > c.bias_buckets / 2,
          kConfig,
          "relative_attention_num_buckets {} up to relative_attention_max_distance {}: expected an even "
          "number of "
          "at least 4 buckets, half of them below the distance",
          c.bias_buckets, c.bias_distance);
  c.norm_eps = norm_epsilon(json, "layer_norm_epsilon", 1e-6);
  const auto dropout = json_get<double>(json, "dropout_rate", 0.1, kConfig);
  require(dropout >= 0 && dropout < 1, kConfig, "dropout_rate should be at least 0 and below 1, got {}",
          dropout);
  c.dropout = static_cast<float>(dropout);
  c.start_token = json_get<int64_t>(json, "decoder_start_token_id",
                                    json_get<int64_t>(json, "pad_token_id", 0, kConfig), kConfig);
  require(c.start_token >= 0 && c.start_token < c.vocab, kConfig,
          "decoder_start_token_id is {}, the vocabulary has {}", c.start_token, c.vocab);
  read_feed_forward(json, c);
  // tie_word_embeddings says both whether there is one table and whether logits are scaled; Transformers 5
  // writes the latter apart and always calls the tables tied.
  const bool tied = json_get<bool>(json, "tie_word_embeddings", true, kConfig);
  c.scaled_logits = json_get<bool>(json, "scale_decoder_outputs", tied, kConfig);
  c.tied_head = tied && (c.scaled_logits || !files.weights->has("lm_head.weight"));
  return c;
}

// Dropout of one place, which its name tells from all others.
struct T5Dropout {
  T5Dropout() = default;
  T5Dropout(const std::string& place, float p_) : p(p_), stream(stream_id(place + ".dropout")) {}
  Variable operator()(Context& cx, const Variable& x) const { return ops::dropout(cx, x, p, stream); }
  float p = 0;
  uint64_t stream = 0;
};

// A module behind its norm, in a residual: what every sublayer has.
struct T5Sublayer {
  T5Sublayer() = default;
  T5Sublayer(const nn::Loader& w, const T5Config& c)
      : norm(nn::Norm::rms(w / "layer_norm", c.width, c.norm_eps)), dropout(w.path(), c.dropout) {}
  Variable add(Context& cx, const Variable& h, const Variable& result) const {
    return ops::add(cx, h, dropout(cx, result));
  }
  nn::Norm norm;
  T5Dropout dropout;
};

struct T5FeedForward {
  T5FeedForward() = default;
  T5FeedForward(const nn::Loader& w, const T5Config& c)
      : activation(c.activation), inner(w.path(), c.dropout) {
    const auto into = [&](const char* name) { return (w / name).linear(c.width, c.feed_forward, false); };
    if (c.gated) {
      gate = into("wi_0");
      up = into("wi_1");
    } else {
      up = into("wi");
    }
    // Transformers never quantizes it: its results are the largest numbers of the model.
    down = (w / "wo").dense_linear(c.feed_forward, c.width, false);
  }
  Variable operator()(Context& cx, const Variable& x) const {
    const Variable wide = gate.defined() ? ops::gated(cx, gate(cx, x), up(cx, x), activation)
                                         : ops::activation(cx, up(cx, x), activation);
    return down(cx, inner(cx, wide));
  }
  nn::Linear gate, up, down;
  ops::Activation activation = ops::Activation::kRelu;
  T5Dropout inner;
};

backend::AttentionArgs attention_args(const T5Config& c, bool causal) {
  return {.heads = c.heads,
          .kv_heads = c.heads,
          .head_width = c.head_width,
          .scale = 1,
          .causal = causal,
          .bias_distance = c.bias_distance};
}

template <class Attention>
void load_products(const nn::Loader& w, const T5Config& c, Attention& attention) {
  const int64_t inner = c.heads * c.head_width;
  attention.q = (w / "q").linear(c.width, inner, false);
  attention.k = (w / "k").linear(c.width, inner, false);
  attention.v = (w / "v").linear(c.width, inner, false);
  attention.o = (w / "o").linear(inner, c.width, false);
}

// One layer of the encoder, or with `decoder` of the decoder.
struct T5Block {
  T5Block(const nn::Loader& w, const T5Config& c, bool decoder_) : decoder(decoder_) {
    const nn::Loader layers = w / "layer", feed = layers / (decoder ? 2 : 1);
    self = T5Sublayer(layers / 0, c);
    load_products(layers / 0 / "SelfAttention", c, attention);
    attention.args = attention_args(c, decoder);
    if (decoder) {
      cross = T5Sublayer(layers / 1, c);
      load_products(layers / 1 / "EncDecAttention", c, to_source);
      to_source.args = attention_args(c, false);
    }
    mlp = T5Sublayer(feed, c);
    feed_forward = T5FeedForward(feed / "DenseReluDense", c);
  }

  // in: h, and in the decoder what the encoder made, where it has just made it.
  Variable operator()(Context& cx, const std::vector<Variable>& in, const Tensor& segments,
                      const Variable& bias, const nn::SequenceInput& input, nn::KvCache* cache,
                      int64_t layer) const {
    nn::SequenceInput own = input;
    own.segments = segments;
    Variable h =
        self.add(cx, in[0],
                 attention(cx, self.norm(cx, in[0]), Tensor(), own, decoder ? cache : nullptr, layer, bias));
    if (decoder)
      h = cross.add(
          cx, h, to_source(cx, cross.norm(cx, h), in.size() > 1 ? in[1] : Variable(), input, cache, layer));
    return mlp.add(cx, h, feed_forward(cx, mlp.norm(cx, h)));
  }

  void list(Modules& modules) {
    modules.add(self.norm);
    for (nn::Linear* linear :
         {&attention.q, &attention.k, &attention.v, &attention.o, &to_source.q, &to_source.k, &to_source.v,
          &to_source.o, &feed_forward.gate, &feed_forward.up, &feed_forward.down})
      modules.add_defined(*linear);
    modules.add_defined(cross.norm);
    modules.add(mlp.norm);
  }

  bool decoder;
  T5Sublayer self, cross, mlp;
  nn::SelfAttention attention;
  nn::CrossAttention to_source;
  T5FeedForward feed_forward;
};

// Encoder or decoder: blocks that share one bias, between dropouts, and a norm.
struct T5Stack {
  T5Stack(const nn::Loader& w, const T5Config& c, bool decoder)
      : before(w.path() + ".embedding", c.dropout), after(w.path() + ".result", c.dropout) {
    const int64_t layers = decoder ? c.layers : c.encoder_layers;
    blocks.reserve(static_cast<size_t>(layers));
    for (int64_t i = 0; i < layers; ++i) blocks.emplace_back(w / "block" / i, c, decoder);
    const nn::Loader at = w / "block" / 0 / "layer" / 0 / "SelfAttention" / "relative_attention_bias";
    bias = nn::Table(at.path(), at.table("weight", c.bias_buckets, c.heads)).f32(w.stream().allocator());
    norm = nn::Norm::rms(w / "final_layer_norm", c.width, c.norm_eps);
  }

  Variable operator()(Context& cx, Variable h, const std::optional<Variable>& source, const Tensor& segments,
                      const nn::SequenceInput& input, nn::KvCache* cache) const {
    std::vector<Variable> inputs = {before(cx, h)};
    if (source) inputs.push_back(*source);
    h = run_blocks(cx, "t5_block", static_cast<int64_t>(blocks.size()), cache, inputs,
                   [this, segments, input, cache](Context& c, const std::vector<Variable>& in, int64_t i) {
                     return blocks[static_cast<size_t>(i)](c, in, segments, bias.values(), input, cache, i);
                   });
    return after(cx, norm(cx, h));
  }

  void list(Modules& modules) {
    modules.add(bias);
    for (T5Block& block : blocks) block.list(modules);
    modules.add(norm);
  }

  nn::Table bias;
  std::vector<T5Block> blocks;
  nn::Norm norm;
  T5Dropout before, after;
};

class T5 : public Model {
 public:
  T5(const nn::Loader& w, T5Config c)
      : config_(std::move(c)),
        encoder_(w / "encoder", config_, false),
        decoder_(w / "decoder", config_, true) {
    // Some files hold the one table under the stacks' names alone.
    const bool own_name = w.has("encoder.embed_tokens.weight") && !w.has("shared.weight");
    const std::string name = own_name ? "encoder.embed_tokens" : "shared";
    shared_ = {name, (w / name).table("weight", config_.vocab, config_.width)};
    if (!config_.tied_head)
      head_ = nn::Linear("lm_head", (w / "lm_head").table("weight", config_.vocab, config_.width), Tensor());
    modules_.add(shared_);
    encoder_.list(modules_);
    decoder_.list(modules_);
    modules_.add_defined(head_);
  }

  const ModelConfig& config() const override { return config_; }

  Variable forward(Context& cx, const nn::SequenceInput& input, nn::KvCache* cache) const override {
    require(input.cross_segments.defined(), config_.family,
            "is an encoder–decoder: it writes after reading a source, and there is none");
    std::optional<Variable> source;
    if (input.source_ids.defined())
      source = encoder_(cx, shared_.embed(cx, input.source_ids), {}, input.source_segments, input, nullptr);
    const Variable h = decoder_(cx, shared_.embed(cx, input.ids), source, input.segments, input, cache);
    return config_.scaled_logits ? ops::scale(cx, h, 1.0f / std::sqrt(static_cast<float>(config_.width))) : h;
  }

  bool over_source(const nn::Linear& linear) const override {
    const std::string& name = linear.name();
    return name.starts_with("encoder.") || name.ends_with("EncDecAttention.k") ||
           name.ends_with("EncDecAttention.v");
  }

  ops::LinearArgs head(const Context& cx, int64_t tokens) const override {
    return config_.tied_head ? shared_.as_head() : head_.args(cx, tokens);
  }

 private:
  T5Config config_;
  nn::Table shared_;
  T5Stack encoder_, decoder_;
  nn::Linear head_;  // untied only
};

}  // namespace

std::unique_ptr<Model> load_t5(const io::ModelFiles& files, backend::Stream& stream,
                               const nn::LoadOptions& options) {
  return std::make_unique<T5>(nn::Loader(files.root(), stream, options), read_t5_config(files));
}

}  // namespace nibble::models
