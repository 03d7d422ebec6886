// llama2.c's first checkpoint layout: int32 dim, hidden, layers, heads, kv_heads, vocab (negative: an own
// head), positions; then F32 tensors, all layers of one kind together. Source: karpathy/llama2.c, run.c
// (memory_map_weights). Rotary pairs are neighbours there, as in GGUF: rows of q and k come out in Hugging
// Face's order.
#include <cstring>
#include <map>

#include "base/error.h"
#include "base/mmap.h"
#include "io/sources.h"

namespace nibble::io {
namespace {

constexpr uint32_t kLaterMagic = 0x616B3432;  // "ak42": versions 1 and 2

struct Placed {
  Shape shape;
  int64_t offset;  // in values, behind the header
  int64_t heads;   // > 0: interleaved
};

class Llama2cSource : public WeightSource {
 public:
  Llama2cSource(std::shared_ptr<const MappedFile> map,
                const std::vector<std::pair<std::string, Placed>>& tensors)
      : map_(std::move(map)) {
    for (const auto& [name, placed] : tensors) {
      list_.push_back({name, placed.shape, "F32", placed.shape.numel() * 4});
      by_name_.emplace(name, placed);
    }
  }
  bool has(const std::string& name) const override { return by_name_.contains(name); }
  std::vector<WeightInfo> list() const override { return list_; }
  quant::Weight read(const std::string& name) const override {
    const auto it = by_name_.find(name);
    if (it == by_name_.end()) fail_missing(map_->path(), name, list_);
    quant::Weight w =
        quant::dense_weight(Tensor::borrow(bytes(it->second).data(), it->second.shape, kF32, map_));
    w.interleaved_heads = it->second.heads;
    return w;
  }
  void forget(const std::string& name) const override {
    if (const auto it = by_name_.find(name); it != by_name_.end()) map_->forget(bytes(it->second));
  }

 private:
  std::span<const std::byte> bytes(const Placed& p) const {
    return map_->bytes().subspan(static_cast<size_t>(28 + p.offset * 4),
                                 static_cast<size_t>(p.shape.numel() * 4));
  }
  std::shared_ptr<const MappedFile> map_;
  std::map<std::string, Placed> by_name_;
  std::vector<WeightInfo> list_;
};

// Places tensors one after the other; the total stays exact because sizes are checked before they are
// multiplied.
class Layout {
 public:
  explicit Layout(const std::string& path) : path_(path) {}
  // One tensor for each layer (or one alone, layers = 0); `name` has {} where the layer's number goes.
  void add(std::string_view name, const Shape& shape, int64_t layers = 0, int64_t heads = 0) {
    int64_t size = 1;
    bool over = false;
    for (int i = 0; i < shape.rank(); ++i) over |= __builtin_mul_overflow(size, shape[i], &size);
    const int64_t count = layers == 0 ? 1 : layers;
    int64_t all = 0, end = 0;
    over |= __builtin_mul_overflow(size, count, &all) || __builtin_add_overflow(values_, all, &end);
    require(!over && end < (int64_t{1} << 58), path_,
            "claims tensors of impossible size {}; is this a llama2.c file?", shape.str());
    if (!name.empty()) pending_.push_back({std::string(name), {shape, values_, heads}, count, layers > 0});
    values_ = end;
  }
  int64_t values() const { return values_; }
  // Only once the file is known to be as long as all of it: the number of layers is the header's word.
  std::vector<std::pair<std::string, Placed>> tensors() const {
    std::vector<std::pair<std::string, Placed>> out;
    for (const Pending& p : pending_)
      for (int64_t i = 0; i < p.count; ++i) {
        Placed placed = p.placed;
        placed.offset += i * p.placed.shape.numel();
        out.emplace_back(p.layered ? fmt::format("model.layers.{}.{}", i, p.name) : p.name, placed);
      }
    return out;
  }

 private:
  struct Pending {
    std::string name;
    Placed placed;
    int64_t count;
    bool layered;
  };
  const std::string& path_;
  std::vector<Pending> pending_;
  int64_t values_ = 0;
};

}  // namespace

ModelFiles open_llama2c(const std::string& path) {
  auto map = MappedFile::open(path);
  const auto bytes = map->bytes();
  require(bytes.size() >= 28, path,
          "is {} bytes long, too short for a llama2.c checkpoint (28 bytes of header)", bytes.size());
  uint32_t magic = 0;
  std::memcpy(&magic, bytes.data(), 4);
  require(magic != kLaterMagic, path,
          "is a llama2.c checkpoint of version 1 or later; export it with --version 0");
  int32_t header[7];
  std::memcpy(header, bytes.data(), sizeof header);
  constexpr const char* kNames[] = {"dim",        "hidden_dim", "n_layers", "n_heads",
                                    "n_kv_heads", "vocab_size", "seq_len"};
  const bool tied = header[5] > 0;
  if (header[5] < 0 && header[5] != INT32_MIN) header[5] = -header[5];
  for (int i = 0; i < 7; ++i)
    require(header[i] > 0, path, "its header says {} = {}; is this a llama2.c checkpoint?", kNames[i],
            header[i]);
  const int64_t dim = header[0], hidden = header[1], layers = header[2], heads = header[3],
                kv_heads = header[4], vocab = header[5], positions = header[6];
  require(dim % heads == 0 && dim / heads % 2 == 0 && heads % kv_heads == 0, path,
          "its header says dim = {}, n_heads = {}, n_kv_heads = {}, which do not go together; is this a "
          "llama2.c checkpoint?",
          dim, heads, kv_heads);
  const int64_t head_dim = dim / heads, kv_dim = head_dim * kv_heads;

  Layout layout(path);
  layout.add("model.embed_tokens.weight", {vocab, dim});
  layout.add("input_layernorm.weight", {dim}, layers);
  layout.add("self_attn.q_proj.weight", {dim, dim}, layers, heads);
  layout.add("self_attn.k_proj.weight", {kv_dim, dim}, layers, kv_heads);
  layout.add("self_attn.v_proj.weight", {kv_dim, dim}, layers);
  layout.add("self_attn.o_proj.weight", {dim, dim}, layers);
  layout.add("post_attention_layernorm.weight", {dim}, layers);
  layout.add("mlp.gate_proj.weight", {hidden, dim}, layers);
  layout.add("mlp.down_proj.weight", {dim, hidden}, layers);
  layout.add("mlp.up_proj.weight", {hidden, dim}, layers);
  layout.add("model.norm.weight", {dim});
  layout.add("", {positions, head_dim});  // cosines and sines of the rotation, made again from the config
  if (!tied) layout.add("lm_head.weight", {vocab, dim});
  require(static_cast<int64_t>(bytes.size()) == 28 + layout.values() * 4, path,
          "is {} bytes long but its header (dim {}, hidden {}, {} layers, {} heads, {} kv heads, vocabulary "
          "{}, {} positions) "
          "needs {}; is it cut off, or no llama2.c checkpoint?",
          bytes.size(), dim, hidden, layers, heads, kv_heads, vocab, positions, 28 + layout.values() * 4);

  ModelFiles files;
  files.path = path;
  files.container = "llama2.c";
  files.files = {path};
  files.config = {{"architectures", Json::array({"LlamaForCausalLM"})},
                  {"model_type", "llama"},
                  {"vocab_size", vocab},
                  {"hidden_size", dim},
                  {"intermediate_size", hidden},
                  {"num_hidden_layers", layers},
                  {"num_attention_heads", heads},
                  {"num_key_value_heads", kv_heads},
                  {"head_dim", head_dim},
                  {"hidden_act", "silu"},
                  {"max_position_embeddings", positions},
                  {"rms_norm_eps", 1e-5},
                  {"rope_theta", 10000.0},
                  {"rope_scaling", nullptr},
                  {"tie_word_embeddings", tied},
                  {"attention_bias", false},
                  {"mlp_bias", false},
                  {"bos_token_id", 1},
                  {"eos_token_id", 2}};
  files.weights = std::make_shared<Llama2cSource>(std::move(map), layout.tensors());
  return files;
}

}  // namespace nibble::io
