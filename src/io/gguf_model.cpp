// GGUF under Hugging Face's names. Sources: ggml's docs/gguf.md and the tensor names of llama.cpp's
// converters.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>

#include "base/error.h"
#include "base/gguf.h"
#include "base/text.h"
#include "io/sources.h"

namespace nibble::io {
namespace {

struct Architecture {
  const char* name;        // general.architecture
  const char* model_type;  // config.json
  const char* class_name;
  bool interleaved;  // rows of q and k stored so that rotary pairs are neighbours
};
constexpr Architecture kArchitectures[] = {
    {"llama", "llama", "LlamaForCausalLM", true},
    {"qwen2", "qwen2", "Qwen2ForCausalLM", false},
};

struct NamePair {
  const char *gguf, *hugging_face;
};
constexpr NamePair kTop[] = {
    {"token_embd.weight", "model.embed_tokens.weight"},
    {"output_norm.weight", "model.norm.weight"},
    {"output.weight", "lm_head.weight"},
};
constexpr NamePair kBlock[] = {
    {"attn_norm", "input_layernorm"}, {"ffn_norm", "post_attention_layernorm"},
    {"attn_q", "self_attn.q_proj"},   {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},   {"attn_output", "self_attn.o_proj"},
    {"ffn_gate", "mlp.gate_proj"},    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
};

// "blk.3.attn_q.weight" → "model.layers.3.self_attn.q_proj.weight"; "" when the architecture has no such
// tensor.
std::string hugging_face_name(const std::string& name) {
  for (const NamePair& p : kTop)
    if (name == p.gguf) return p.hugging_face;
  const auto parts = split(name, '.');
  if (parts.size() != 4 || parts[0] != "blk" || parts[1].empty() ||
      (parts[3] != "weight" && parts[3] != "bias"))
    return "";
  if (parts[1].find_first_not_of("0123456789") != std::string::npos) return "";
  for (const NamePair& p : kBlock)
    if (parts[2] == p.gguf) return fmt::format("model.layers.{}.{}.{}", parts[1], p.hugging_face, parts[3]);
  return "";
}

// Tensors that hold nothing a model reads from here: tables that are made again from the config.
bool derived(const std::string& name) {
  return name == "rope_freqs.weight" || name.ends_with("attn_rot_embd.weight");
}

class GgufSource : public WeightSource {
 public:
  GgufSource(GgufFile file, bool interleaved, int64_t heads, int64_t kv_heads)
      : file_(std::move(file)), interleaved_(interleaved), heads_(heads), kv_heads_(kv_heads) {
    for (const GgufTensor& t : file_.tensors) {
      if (derived(t.name)) continue;
      const std::string name = hugging_face_name(t.name);
      require(!name.empty(), file_.path(),
              "has the tensor \"{}\", which this architecture does not have here", t.name);
      require(by_name_.emplace(name, &t).second, file_.path(), "has \"{}\" twice", t.name);
      Shape shape;
      for (auto d = t.dims.rbegin(); d != t.dims.rend(); ++d) shape.push_back(*d);
      list_.push_back({name, shape, ggml_type_name(t.type), static_cast<int64_t>(t.data.size())});
      shapes_[name] = shape;
    }
  }

  bool has(const std::string& name) const override { return by_name_.contains(name); }
  std::vector<WeightInfo> list() const override { return list_; }

  quant::Weight read(const std::string& name) const override {
    const auto it = by_name_.find(name);
    if (it == by_name_.end()) fail_missing(file_.path(), name, list_);
    const GgufTensor& t = *it->second;
    const Shape& shape = shapes_.at(name);
    try {
      const int64_t heads = !interleaved_                                          ? 0
                            : name.find(".self_attn.q_proj.") != std::string::npos ? heads_
                            : name.find(".self_attn.k_proj.") != std::string::npos ? kv_heads_
                                                                                   : 0;
      const bool vector = shape.rank() == 1 && heads > 0;
      quant::Weight w = quant::ggml_weight(t.type, shape, stored(t), vector ? 0 : heads);
      return vector ? in_order(w, heads) : w;
    } catch (const Error& e) {
      fail(file_.path(), "{}: {}", t.name, e.what());
    }
  }

  void forget(const std::string& name) const override {
    if (const auto it = by_name_.find(name); it != by_name_.end()) file_.map->forget(it->second->data);
  }

 private:
  // The bytes as they lie in the file, or a copy where a small general.alignment put them at odd addresses.
  Tensor stored(const GgufTensor& t) const {
    const Shape bytes{static_cast<int64_t>(t.data.size())};
    if (reinterpret_cast<uintptr_t>(t.data.data()) % 4 == 0)
      return Tensor::borrow(t.data.data(), bytes, kU8, file_.map);
    Tensor copy = Tensor::empty(host_allocator(), bytes, kU8, "gguf.unaligned");
    if (!t.data.empty()) std::memcpy(copy.raw(), t.data.data(), t.data.size());
    return copy;
  }

  // A bias is small: its values are put into Hugging Face's order at once.
  quant::Weight in_order(const quant::Weight& bias, int64_t heads) const {
    const int64_t n = bias.numel();
    require(n % (2 * heads) == 0, "gguf",
            "the {} values of a bias cannot be those of {} heads with rotary pairs", n, heads);
    std::vector<float> values(static_cast<size_t>(n));
    quant::decode_rows(bias, 0, n, values.data());
    quant::Weight order = bias;
    order.interleaved_heads = heads;
    Tensor out = Tensor::empty(host_allocator(), {n}, kF32, "gguf.bias");
    for (int64_t i = 0; i < n; ++i) out.data<float>()[i] = values[static_cast<size_t>(order.ggml_row(i))];
    return quant::dense_weight(out);
  }

  GgufFile file_;
  bool interleaved_;
  int64_t heads_, kv_heads_;
  std::map<std::string, const GgufTensor*> by_name_;
  std::map<std::string, Shape> shapes_;
  std::vector<WeightInfo> list_;
};

const GgufTensor* find_tensor(const GgufFile& file, std::string_view name) {
  for (const GgufTensor& t : file.tensors)
    if (t.name == name) return &t;
  return nullptr;
}

// llama3's rotary frequencies come as explicit divisors, one per pair.
Json rope_factors(const GgufFile& file, const GgufTensor& t, int64_t head_dim) {
  require(t.type == static_cast<uint32_t>(GgmlType::kF32) && t.dims.size() == 1 && t.dims[0] == head_dim / 2,
          file.path(), "rope_freqs.weight should be {} F32 values, got {} of {}", head_dim / 2,
          t.dims.empty() ? 0 : t.dims[0], ggml_type_name(t.type));
  Json factors = Json::array();
  for (int64_t i = 0; i < t.dims[0]; ++i) {
    float f = 0;
    std::memcpy(&f, t.data.data() + i * 4, 4);
    require(std::isfinite(f) && f > 0, file.path(), "rope_freqs.weight holds {} at {}", f, i);
    factors.push_back(f);
  }
  return {{"rope_type", "factors"}, {"factors", factors}};
}

Json rope_scaling(const GgufFile& file, const std::string& prefix, int64_t head_dim) {
  if (const GgufTensor* t = find_tensor(file, "rope_freqs.weight")) return rope_factors(file, *t, head_dim);
  const std::string key = prefix + "rope.scaling.";
  const double factor = file.number(key + "factor", file.number(prefix + "rope.scale_linear", 1.0));
  const std::string type = file.string(key + "type", factor == 1.0 ? "none" : "linear");
  if (type == "none" || (type == "linear" && factor == 1.0)) return nullptr;
  require(factor > 0 && std::isfinite(factor), file.path(), "{}factor is {}", key, factor);
  if (type == "linear") return {{"rope_type", "linear"}, {"factor", factor}};
  require(type == "yarn", file.path(),
          "{}type is \"{}\"; none, linear, yarn and explicit frequencies can be used", key, type);
  Json yarn = {{"rope_type", "yarn"}, {"factor", factor}};
  if (file.find(key + "original_context_length") != nullptr)
    yarn["original_max_position_embeddings"] = file.integer(key + "original_context_length");
  if (file.find(key + "attn_factor") != nullptr)
    yarn["attention_factor"] =
        file.number(key + "attn_factor", 1) * (0.1 * std::log(std::max(factor, 1.0)) + 1);
  if (file.find(key + "yarn_beta_fast") != nullptr)
    yarn["beta_fast"] = file.number(key + "yarn_beta_fast", 32);
  if (file.find(key + "yarn_beta_slow") != nullptr)
    yarn["beta_slow"] = file.number(key + "yarn_beta_slow", 1);
  return yarn;
}

Json make_config(const GgufFile& file, const Architecture& architecture) {
  const std::string prefix = std::string(architecture.name) + ".";
  const auto positive = [&](const std::string& key) {
    const int64_t v = file.integer(prefix + key);
    require(v > 0 && v <= (int64_t{1} << 31), file.path(), "{}{} is {}", prefix, key, v);
    return v;
  };
  require(file.integer(prefix + "expert_count", 0) == 0, file.path(),
          "is a mixture of experts, which cannot be used here");
  const GgufTensor* embedding = find_tensor(file, "token_embd.weight");
  require(
      embedding != nullptr && embedding->dims.size() == 2, file.path(),
      "has no matrix token_embd.weight; is it a vocabulary without weights, or one part of a split file?");

  Json c;
  c["architectures"] = Json::array({architecture.class_name});
  c["model_type"] = architecture.model_type;
  const int64_t width = positive("embedding_length"), heads = positive("attention.head_count");
  require(embedding->dims[0] == width, file.path(),
          "token_embd.weight is {} wide but {}embedding_length is {}", embedding->dims[0], prefix, width);
  c["vocab_size"] = embedding->dims[1];
  c["hidden_size"] = width;
  c["intermediate_size"] = positive("feed_forward_length");
  c["num_hidden_layers"] = positive("block_count");
  c["num_attention_heads"] = heads;
  const int64_t kv_heads = file.integer(prefix + "attention.head_count_kv", heads);
  require(kv_heads > 0 && heads % kv_heads == 0, file.path(),
          "{} query heads cannot share {} key/value heads", heads, kv_heads);
  c["num_key_value_heads"] = kv_heads;
  const int64_t head_dim = file.integer(prefix + "attention.key_length", width / heads);
  require(head_dim > 0 && head_dim % 2 == 0 && head_dim <= 65536, file.path(),
          "heads are {} wide; an even width is needed", head_dim);
  require(file.integer(prefix + "attention.value_length", head_dim) == head_dim, file.path(),
          "keys and values of different widths cannot be used");
  require(file.integer(prefix + "rope.dimension_count", head_dim) == head_dim, file.path(),
          "rotary positions over {} of {} dimensions cannot be used",
          file.integer(prefix + "rope.dimension_count", 0), head_dim);
  c["head_dim"] = head_dim;
  c["hidden_act"] = "silu";
  c["max_position_embeddings"] = positive("context_length");
  const double eps = file.number(prefix + "attention.layer_norm_rms_epsilon", -1);
  require(eps >= 0, file.path(), "has no {}attention.layer_norm_rms_epsilon", prefix);
  // Stored as f32: 1e-5 comes as 9.999999747378752e-06; the shortest decimal that means the same f32 is what
  // was meant.
  c["rms_norm_eps"] = std::stod(fmt::format("{}", static_cast<float>(eps)));
  const double theta = file.number(prefix + "rope.freq_base", 10000.0);
  require(std::isfinite(theta) && theta > 0, file.path(), "{}rope.freq_base is {}", prefix, theta);
  c["rope_theta"] = theta;
  c["rope_scaling"] = rope_scaling(file, prefix, head_dim);
  if (const int64_t window = file.integer(prefix + "attention.sliding_window", 0); window > 0) {
    c["sliding_window"] = window;
    if (c["model_type"] == "llama") {  // the same tensors, but only Mistral's class slides
      c["model_type"] = "mistral";
      c["architectures"] = Json::array({"MistralForCausalLM"});
    }
  }
  c["tie_word_embeddings"] = find_tensor(file, "output.weight") == nullptr;
  c["attention_bias"] = find_tensor(file, "blk.0.attn_q.bias") != nullptr;
  c["mlp_bias"] = find_tensor(file, "blk.0.ffn_up.bias") != nullptr;
  for (const NamePair& id : {NamePair{"tokenizer.ggml.bos_token_id", "bos_token_id"},
                             NamePair{"tokenizer.ggml.eos_token_id", "eos_token_id"},
                             NamePair{"tokenizer.ggml.padding_token_id", "pad_token_id"}})
    if (file.find(id.gguf) != nullptr) c[id.hugging_face] = file.integer(id.gguf);
  return c;
}

}  // namespace

ModelFiles open_gguf_model(const std::string& path) {
  GgufFile file = GgufFile::open(path);
  const std::string name = file.string("general.architecture");
  const Architecture* architecture = nullptr;
  std::string known;
  for (const Architecture& a : kArchitectures) {
    known += (known.empty() ? "" : ", ") + std::string(a.name);
    if (name == a.name) architecture = &a;
  }
  require(architecture != nullptr, path, "is of the architecture \"{}\"; GGUF files of {} can be read", name,
          known);
  require(file.integer("split.count", 0) <= 1, path,
          "is one part of a split GGUF; join the parts first (llama-gguf-split --merge)");
  ModelFiles files;
  files.path = path;
  files.container = "gguf";
  files.config = make_config(file, *architecture);
  files.files = {path};
  files.weights = std::make_shared<GgufSource>(std::move(file), architecture->interleaved,
                                               files.config["num_attention_heads"].get<int64_t>(),
                                               files.config["num_key_value_heads"].get<int64_t>());
  return files;
}

}  // namespace nibble::io
