#include "train/optimizer.h"

#include <algorithm>
#include <cmath>

#include "backend/kernels/elementwise.h"
#include "backend/kernels/optimizer.h"
#include "base/reduce.h"

namespace nibble::train {
namespace {

int64_t align(int64_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

OptimizerOptions optimizer_named(const std::string& name) {
  OptimizerOptions options;
  std::string rest = name;
  if (rest.starts_with("paged_")) {
    options.paged = true;
    rest = rest.substr(6);
  }
  if (rest == "adamw")
    options.kind = OptimizerKind::kAdamW;
  else if (rest == "adamw_8bit")
    options.kind = OptimizerKind::kAdamW8bit;
  else if (rest == "sgd" && !options.paged)
    options.kind = OptimizerKind::kSgd;
  else if (rest == "lion" && !options.paged)
    options.kind = OptimizerKind::kLion;
  else
    throw UsageError("optim", fmt::format("there is no optimizer \"{}\"", name));
  return options;
}

const std::vector<Optimizer::Slot>& Optimizer::slots(size_t parameter) const {
  static const std::vector<Slot> adam = {{"exp_avg", kF32, 1}, {"exp_avg_sq", kF32, 1}};
  static const std::vector<Slot> adam8 = {{"exp_avg", kU8, 1},
                                          {"exp_avg.absmax", kF32, kBlock},
                                          {"exp_avg_sq", kU8, 1},
                                          {"exp_avg_sq.absmax", kF32, kBlock}};
  static const std::vector<Slot> sgd = {{"momentum", kF32, 1}};
  static const std::vector<Slot> lion = {{"exp_avg", kF32, 1}};
  static const std::vector<Slot> none;
  switch (options_.kind) {
    case OptimizerKind::kAdamW8bit:
      return parameters_[parameter]->variable.value().numel() < kSmall ? adam : adam8;
    case OptimizerKind::kSgd:
      return options_.momentum != 0 ? sgd : none;
    case OptimizerKind::kLion:
      return lion;
    case OptimizerKind::kAdamW:
      break;
  }
  return adam;
}

int64_t Optimizer::slot_bytes(const Slot& slot, int64_t values) {
  return (values + slot.per - 1) / slot.per * dtype_bytes(slot.dtype);
}

int64_t Optimizer::chunk_bytes(size_t parameter, int64_t values) const {
  int64_t bytes = 0;
  for (const Slot& slot : slots(parameter)) bytes += align(slot_bytes(slot, values));
  return bytes;
}

Optimizer::Optimizer(std::vector<autograd::Parameter*> parameters, OptimizerOptions options,
                     Allocator& allocator)
    : parameters_(std::move(parameters)), options_(std::move(options)) {
  lay_out();
  const MemoryGroup group(allocator, "optimizer");
  if (!paged_)
    store_ = make_resident_store(allocator, pages_, page_bytes_);
  else if (allocator.device() == Device::kMeta)
    store_ = make_resident_store(allocator, kPageBuffers, page_bytes_);
  else
    store_ = make_paged_store(allocator, options_.page_file, pages_, page_bytes_);
}

void Optimizer::lay_out() {
  int64_t total = 0, largest = 0;
  for (size_t p = 0; p < parameters_.size(); ++p) {
    const int64_t n = parameters_[p]->variable.value().numel();
    for (int64_t begin = 0; begin < n; begin += kChunk) {
      const int64_t end = std::min(begin + kChunk, n);
      chunks_.push_back({p, begin, end, 0, 0});
      total += chunk_bytes(p, end - begin);
      largest = std::max(largest, chunk_bytes(p, end - begin));
    }
  }
  paged_ = options_.paged && total > options_.paged_memory;
  const int64_t limit = paged_ ? std::max(options_.paged_memory / kPageBuffers / 64 * 64, largest) : total;
  int64_t page = 0, used = 0;
  for (Chunk& chunk : chunks_) {
    const int64_t bytes = chunk_bytes(chunk.parameter, chunk.end - chunk.begin);
    if (used + bytes > limit) {
      ++page;
      used = 0;
    }
    chunk.page = page;
    chunk.offset = used;
    used += bytes;
    page_bytes_ = std::max(page_bytes_, used);
  }
  pages_ = chunks_.empty() ? 0 : page + 1;
}

void Optimizer::step(backend::Stream& stream, int64_t step, double learning_rate, double grad_scale) {
  size_t next = 0;
  store_->pass([&](int64_t page, const std::shared_ptr<Buffer>& memory) {
    for (; next < chunks_.size() && chunks_[next].page == page; ++next) {
      const Chunk& chunk = chunks_[next];
      std::vector<Tensor> state;
      int64_t offset = chunk.offset;
      for (const Slot& slot : slots(chunk.parameter)) {
        const int64_t bytes = slot_bytes(slot, chunk.end - chunk.begin);
        state.emplace_back(memory, Shape{bytes / dtype_bytes(slot.dtype)}, slot.dtype, offset);
        offset += align(bytes);
      }
      update(stream, chunk, state, step, learning_rate, grad_scale);
    }
  });
}

void Optimizer::update(backend::Stream& stream, const Chunk& chunk, const std::vector<Tensor>& state,
                       int64_t step, double learning_rate, double grad_scale) {
  autograd::Parameter& parameter = *parameters_[chunk.parameter];
  const int64_t n = parameter.variable.value().numel();
  Tensor p = parameter.variable.value().reshape({n}).rows(chunk.begin, chunk.end);
  const Tensor g = parameter.grad().reshape({n}).rows(chunk.begin, chunk.end);
  const auto lr = static_cast<float>(learning_rate), scale = static_cast<float>(grad_scale);
  const auto beta1 = static_cast<float>(options_.beta1), beta2 = static_cast<float>(options_.beta2);
  const auto decay = static_cast<float>(options_.weight_decay);
  std::vector<Tensor> s = state;    // kernels write through these views
  if (s.empty()) s.emplace_back();  // sgd without momentum keeps nothing
  switch (options_.kind) {
    case OptimizerKind::kAdamW:
    case OptimizerKind::kAdamW8bit: {
      const backend::AdamArgs args{lr,    beta1, beta2, static_cast<float>(options_.epsilon),
                                   decay, scale, step};
      if (s.size() == 2)
        backend::adamw(stream, p, g, s[0], s[1], args);
      else
        backend::adamw_8bit(stream, p, g, s[0], s[1], s[2], s[3], args);
      return;
    }
    case OptimizerKind::kSgd:
      backend::sgd(stream, p, g, s[0], {lr, static_cast<float>(options_.momentum), decay, scale});
      return;
    case OptimizerKind::kLion:
      backend::lion(stream, p, g, s[0], {lr, beta1, beta2, decay, scale});
      return;
  }
}

std::vector<Optimizer::StateTensor> Optimizer::state_layout() const {
  std::vector<StateTensor> tensors;
  for (size_t p = 0; p < parameters_.size(); ++p) {
    const int64_t n = parameters_[p]->variable.value().numel();
    for (const Slot& slot : slots(p))
      tensors.push_back({parameters_[p]->name + "/" + slot.name, slot.dtype,
                         Shape{slot_bytes(slot, n) / dtype_bytes(slot.dtype)}});
  }
  return tensors;
}

void Optimizer::visit_parts(
    const std::function<void(const StateTensor&, bool first, int64_t offset, int64_t bytes)>& body) const {
  const std::vector<StateTensor> tensors = state_layout();
  size_t tensor = 0, first = 0;
  for (size_t p = 0; p < parameters_.size(); ++p) {
    size_t last = first;
    while (last < chunks_.size() && chunks_[last].parameter == p) ++last;
    for (size_t s = 0; s < slots(p).size(); ++s, ++tensor)
      for (size_t c = first; c < last; ++c) {
        const int64_t values = chunks_[c].end - chunks_[c].begin;
        int64_t offset = chunks_[c].page * page_bytes_ + chunks_[c].offset;
        for (size_t before = 0; before < s; ++before) offset += align(slot_bytes(slots(p)[before], values));
        body(tensors[tensor], c == first, offset, slot_bytes(slots(p)[s], values));
      }
    first = last;
  }
}

void Optimizer::write_state(const std::function<void(std::span<const std::byte>)>& sink) {
  std::vector<std::byte> piece;
  visit_parts([&](const StateTensor&, bool, int64_t offset, int64_t bytes) {
    piece.resize(static_cast<size_t>(bytes));
    store_->read(offset, piece);
    sink(piece);
  });
}

void Optimizer::read_state(const std::function<std::span<const std::byte>(const StateTensor&)>& source) {
  std::span<const std::byte> rest;
  visit_parts([&](const StateTensor& tensor, bool first, int64_t offset, int64_t bytes) {
    if (first) {
      rest = source(tensor);
      const int64_t expected = tensor.shape.numel() * dtype_bytes(tensor.dtype);
      require(static_cast<int64_t>(rest.size()) == expected, "optimizer state",
              "{} has {} bytes where this run needs {}", tensor.name, rest.size(), expected);
    }
    store_->write(offset, rest.first(static_cast<size_t>(bytes)));
    rest = rest.subspan(static_cast<size_t>(bytes));
  });
}

double global_norm(backend::Stream& stream, const std::vector<autograd::Parameter*>& parameters,
                   Tensor& scratch) {
  std::vector<double> sums;
  sums.reserve(parameters.size());
  for (autograd::Parameter* parameter : parameters) {
    backend::sum_of_squares(stream, parameter->grad(), scratch);
    sums.push_back(stream.device() == Device::kMeta ? 0.0 : static_cast<double>(scratch.data<float>()[0]));
  }
  return std::sqrt(tree_sum<double>(sums));
}

double clip_factor(double norm, double max_norm) {
  return max_norm > 0 ? std::min(1.0, max_norm / (norm + 1e-6)) : 1.0;
}

}  // namespace nibble::train
