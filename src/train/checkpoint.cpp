#include "train/checkpoint.h"

#include <cstring>

#include "base/file.h"
#include "base/json.h"
#include "io/safetensors.h"

namespace nibble::train {
namespace {

const io::SafetensorsEntry& entry_of(const io::SafetensorsFile& file, const std::string& name, const std::string& path) {
  const io::SafetensorsEntry* entry = file.find(name);
  require(entry != nullptr, path, "lacks {}: it is the checkpoint of another run, or damaged", name);
  return *entry;
}

}  // namespace

void write_state(const std::string& directory, const RunState& state, const std::vector<autograd::Parameter*>& parameters,
                 Optimizer& optimizer) {
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const autograd::Parameter* parameter : parameters) tensors.emplace_back(parameter->name, parameter->variable.value());
  io::write_safetensors(directory + "/parameters.safetensors", tensors, {});

  std::vector<io::SafetensorsWriter::Declared> declared;
  for (const auto& tensor : optimizer.state_layout()) declared.push_back({tensor.name, tensor.dtype, tensor.shape});
  io::SafetensorsWriter writer(directory + "/optimizer.safetensors", declared, {});
  optimizer.write_state([&](std::span<const std::byte> bytes) { writer.write(bytes); });
  writer.commit();

  const Json json = {{"format", 1},
                     {"step", state.step},
                     {"updates", state.updates},
                     {"tokens", state.tokens},
                     {"trained_tokens", state.trained_tokens},
                     {"best_step", state.best_step},
                     {"best_loss", state.best_loss}};
  write_file_atomic(directory + "/state.json", json.dump(2) + "\n");
}

RunState read_state(const std::string& directory, const std::vector<autograd::Parameter*>& parameters, Optimizer& optimizer) {
  const std::string state_path = directory + "/state.json";
  const Json json = parse_json(read_file(state_path, 1 << 20), state_path);
  require(json.is_object() && json.value("format", 0) == 1, state_path, "is not the state of a run of this version");
  RunState state;
  state.step = json_get<int64_t>(json, "step", state_path);
  state.updates = json_get<int64_t>(json, "updates", state_path);
  state.tokens = json_get<int64_t>(json, "tokens", state_path);
  state.trained_tokens = json_get<int64_t>(json, "trained_tokens", state_path);
  state.best_step = json_get<int64_t>(json, "best_step", state_path);
  state.best_loss = json_get<double>(json, "best_loss", state_path);
  require(state.step >= 0 && state.updates >= 0 && state.updates <= state.step, state_path, "counts {} updates in {} steps", state.updates,
          state.step);

  const std::string parameter_path = directory + "/parameters.safetensors";
  const auto file = io::SafetensorsFile::open(parameter_path);
  for (autograd::Parameter* parameter : parameters) {
    const Tensor& value = parameter->variable.value();
    const io::SafetensorsEntry& entry = entry_of(file, parameter->name, parameter_path);
    require(entry.dtype == "F32" && entry.shape == value.shape(), parameter_path, "{} is {} {} where this run has F32 {}", parameter->name,
            entry.dtype, entry.shape.str(), value.shape().str());
    std::memcpy(value.raw(), entry.data.data(), entry.data.size());
  }

  const std::string optimizer_path = directory + "/optimizer.safetensors";
  const auto saved = io::SafetensorsFile::open(optimizer_path);
  optimizer.read_state([&](const Optimizer::StateTensor& tensor) { return entry_of(saved, tensor.name, optimizer_path).data; });
  return state;
}

}  // namespace nibble::train
