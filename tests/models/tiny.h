// The tiny LLaMA of tests/goldens/tiny_llama: loading it, running it, comparing tensors.
#pragma once
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <sstream>

#include "autograd/recompute.h"
#include "backend/kernel_slot.h"
#include "io/safetensors.h"
#include "models/model.h"

namespace nibble::models::test {

inline const std::string kTiny = std::string(NIBBLE_SOURCE_DIR) + "/tests/goldens/tiny_llama";
inline constexpr const char* kPrefix = "base_model.model.";

inline Json read_json(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return parse_json(text.str(), path);
}

inline nn::LoadOptions options_of(DType dense, const std::string& quantize = "none",
                                  bool double_quant = false) {
  nn::LoadOptions o;
  o.quantize = quant::parse_quantize(quantize, double_quant, 64);
  o.dense_dtype = dense;
  return o;
}

// A model with everything it needs to run.
struct Loaded {
  explicit Loaded(const io::ModelFiles& files, DType compute = kF32,
                  const nn::LoadOptions& options = options_of(kF32),
                  std::shared_ptr<Allocator> memory = make_host_allocator())
      : allocator(std::move(memory)), stream(*allocator), cx(stream, *allocator, compute) {
    backend::register_cpu_kernels();
    model = load_model(files, stream, options);
  }
  std::function<void(const nn::LinearVisitor&)> visit() {
    return [this](const nn::LinearVisitor& v) { model->visit_linears(v); };
  }
  // From here on the adapter `id` is in force for every token.
  void use(int id) { cx.adapters = {{0, int64_t{1} << 40, id}}; }

  std::shared_ptr<Allocator> allocator;
  backend::Stream stream;
  autograd::Context cx;
  std::unique_ptr<Model> model;
};

inline std::vector<float> to_vector(const Tensor& t) {
  std::vector<float> v(static_cast<size_t>(t.numel()));
  if (t.numel() > 0) quant::decode_rows(quant::dense_weight(t.reshape({1, t.numel()})), 0, 1, v.data());
  return v;
}

inline double max_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    worst = std::max(worst, std::isfinite(a[i]) ? std::abs(double{a[i]} - double{b[i]}) : 1e30);
  return worst;
}

// ‖a - b‖ / ‖b‖
inline double relative_norm(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double error = 0, norm = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    error += (double{a[i]} - double{b[i]}) * (double{a[i]} - double{b[i]});
    norm += double{b[i]} * double{b[i]};
  }
  return std::sqrt(error / norm);
}

// The adapter of the goldens, in the order of the model's own names.
inline io::AdapterFile tiny_adapter() {
  const Json json = read_json(kTiny + "/adapter/adapter_config.json");
  io::AdapterFile file;
  file.config.r = json["r"].get<int64_t>();
  file.config.lora_alpha = json["lora_alpha"].get<double>();
  file.config.target_modules = json["target_modules"].get<std::vector<std::string>>();
  const auto tensors = io::SafetensorsFile::open(kTiny + "/adapter/adapter_model.safetensors");
  const std::string a_end = ".lora_A.weight";
  for (const auto& entry : tensors.entries) {
    if (!entry.name.ends_with(a_end)) continue;
    const std::string path = entry.name.substr(0, entry.name.size() - a_end.size());
    file.pairs.push_back({path.substr(std::string(kPrefix).size()), tensors.tensor(entry.name),
                          tensors.tensor(path + ".lora_B.weight")});
  }
  return file;
}

// The weights of another source and, beside them, the bias vectors of the variants that have them.
class WithBiases : public io::WeightSource {
 public:
  // only_qkv: Qwen2 has none elsewhere.
  WithBiases(std::shared_ptr<const io::WeightSource> weights, bool only_qkv)
      : weights_(std::move(weights)),
        biases_(io::SafetensorsFile::open(kTiny + "/biases.safetensors")),
        only_qkv_(only_qkv) {}
  bool has(const std::string& name) const override { return is_bias(name) || weights_->has(name); }
  quant::Weight read(const std::string& name) const override {
    return is_bias(name) ? quant::dense_weight(biases_.tensor(name)) : weights_->read(name);
  }
  std::vector<io::WeightInfo> list() const override { return weights_->list(); }

 private:
  bool is_bias(const std::string& name) const {
    if (biases_.find(name) == nullptr) return false;
    return !only_qkv_ || name.ends_with("q_proj.bias") || name.ends_with("k_proj.bias") ||
           name.ends_with("v_proj.bias");
  }
  std::shared_ptr<const io::WeightSource> weights_;
  io::SafetensorsFile biases_;
  bool only_qkv_;
};

// A batch as one packed stream with its labels: rows[i] is the position that predicts labels[i].
struct Batch {
  std::vector<int32_t> ids, lengths, rows, labels;
};
inline Batch batch_of(const Json& sequences, const Json& all_labels) {
  Batch b;
  for (size_t s = 0; s < sequences.size(); ++s) {
    const auto begin = static_cast<int32_t>(b.ids.size());
    for (const auto& id : sequences[s]) b.ids.push_back(id.get<int32_t>());
    b.lengths.push_back(static_cast<int32_t>(sequences[s].size()));
    for (size_t i = 1; i < all_labels[s].size(); ++i) {
      const int32_t label = all_labels[s][i].get<int32_t>();
      if (label < 0) continue;
      b.rows.push_back(begin + static_cast<int32_t>(i) - 1);
      b.labels.push_back(label);
    }
  }
  return b;
}

inline Tensor i32(const std::vector<int32_t>& v, Allocator& allocator) {
  Tensor t = Tensor::empty(allocator, {static_cast<int64_t>(v.size())}, kI32, "labels");
  if (t.raw() != nullptr) std::copy(v.begin(), v.end(), t.data<int32_t>());
  return t;
}

inline std::vector<float> logits_of(Loaded& run, const std::vector<int32_t>& ids,
                                    const std::vector<int32_t>& lengths) {
  const nn::SequenceInput input = nn::packed_input(*run.allocator, ids, lengths);
  return to_vector(run.model->logits(run.cx, run.model->forward(run.cx, input, nullptr), Tensor()));
}

inline std::vector<autograd::Parameter*> adapter_parameters(Loaded& run, int id) {
  std::vector<autograd::Parameter*> all;
  run.model->visit_linears([&](nn::Linear& linear) {
    if (nn::LoraPair* pair = linear.adapter(id)) {
      all.push_back(&pair->a);
      all.push_back(&pair->b);
    }
  });
  return all;
}

// Forward and backward of a batch in `cx` (the run's own, or one with another allocator): the mean loss over
// its labels; gradients are left in the parameters.
inline float loss_and_gradients(Loaded& run, const Batch& batch, autograd::Context& cx,
                                int64_t chunk_rows = 7) {
  const nn::SequenceInput input = nn::packed_input(*run.allocator, batch.ids, batch.lengths);
  const Tensor rows = i32(batch.rows, *run.allocator), labels = i32(batch.labels, *run.allocator);
  Tensor dy = Tensor::empty(*run.allocator, {1}, kF32, "dy");
  if (dy.raw() != nullptr) *dy.data<float>() = 1;

  autograd::Tape tape;
  cx.set_tape(&tape);
  const Variable h = run.model->forward(cx, input, nullptr);
  const auto head = run.model->head(cx, input.tokens());
  const float weight = 1.0f / static_cast<float>(std::max<size_t>(batch.rows.size(), 1));
  const Variable loss = ops::head_cross_entropy(cx, h, head, rows, labels, weight, chunk_rows).loss;
  tape.backward(cx, loss, dy);
  cx.set_tape(nullptr);
  return loss.value().raw() == nullptr ? 0 : *loss.value().data<float>();
}
// Loss and every gradient of one step, and what it allocated.
struct Step {
  float loss = 0;
  std::vector<std::vector<float>> gradients;
  std::vector<Ledger::Event> events;
  bool operator==(const Step& o) const { return loss == o.loss && gradients == o.gradients; }
};

// `step` run once so that the stream's scratch is grown, and once more that is recorded.
template <class F>
Step record_step(Allocator& memory, const std::vector<autograd::Parameter*>& parameters, const F& step) {
  for (autograd::Parameter* p : parameters) autograd::allocate_grad(*p, memory);
  step();
  for (autograd::Parameter* p : parameters) autograd::clear_grad(*p);
  memory.ledger().start_recording();
  Step s;
  s.loss = step();
  s.events = memory.ledger().stop_recording();
  if (memory.device() == Device::kCpu)
    for (autograd::Parameter* p : parameters) s.gradients.push_back(to_vector(p->grad()));
  return s;
}

inline void expect_same_allocations(const Step& a, const Step& b) {
  ASSERT_EQ(a.events.size(), b.events.size());
  for (size_t i = 0; i < a.events.size(); ++i) {
    ASSERT_EQ(a.events[i].bytes, b.events[i].bytes) << "event " << i;
    ASSERT_EQ(a.events[i].release, b.events[i].release) << "event " << i;
  }
}

inline float loss_and_gradients(Loaded& run, const Batch& batch) {
  return loss_and_gradients(run, batch, run.cx);
}

}  // namespace nibble::models::test
