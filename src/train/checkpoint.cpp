#include "train/checkpoint.h"

#include <cstring>

#include "base/json.h"
#include "io/safetensors.h"
#include "io/train_state.h"

namespace nibble::train {
namespace {

constexpr const char* kOptimizerFile = "/optimizer.safetensors";

void write_optimizer(const std::string& path, Optimizer& optimizer) {
  std::vector<io::SafetensorsWriter::Declared> declared;
  for (const auto& tensor : optimizer.state_layout())
    declared.push_back({tensor.name, tensor.dtype, tensor.shape});
  io::SafetensorsWriter writer(path, declared, {});
  optimizer.write_state([&](std::span<const std::byte> bytes) { writer.write(bytes); });
  writer.commit();
}

}  // namespace

void save_state(const std::string& run_directory, const RunState& state,
                const std::vector<autograd::Parameter*>& parameters, Optimizer& optimizer,
                const std::function<void(const std::string& directory)>& also) {
  io::TrainState file;
  file.step = state.step;
  for (const autograd::Parameter* parameter : parameters)
    file.tensors.emplace_back(parameter->name, parameter->variable.value());
  file.scalars = {{"updates", state.updates},
                  {"tokens", state.tokens},
                  {"trained_tokens", state.trained_tokens},
                  {"best_step", state.best_step},
                  {"best_loss", state.best_loss}};
  io::write_checkpoint(run_directory, file, [&](const std::string& directory) {
    write_optimizer(directory + kOptimizerFile, optimizer);
    if (also) also(directory);
  });
}

RunState load_state(const std::string& checkpoint, const std::vector<autograd::Parameter*>& parameters,
                    Optimizer& optimizer) {
  const io::TrainState file = io::read_checkpoint(checkpoint);
  RunState state;
  state.step = file.step;
  state.updates = json_get<int64_t>(file.scalars, "updates", checkpoint);
  state.tokens = json_get<int64_t>(file.scalars, "tokens", checkpoint);
  state.trained_tokens = json_get<int64_t>(file.scalars, "trained_tokens", checkpoint);
  state.best_step = json_get<int64_t>(file.scalars, "best_step", checkpoint);
  state.best_loss = json_get<double>(file.scalars, "best_loss", checkpoint);
  require(state.step >= 0 && state.updates >= 0 && state.updates <= state.step, checkpoint,
          "counts {} updates in {} steps", state.updates, state.step);
  for (autograd::Parameter* parameter : parameters) {
    const Tensor& value = parameter->variable.value();
    const Tensor& saved = file.tensor(parameter->name);
    require(saved.dtype() == kF32 && saved.shape() == value.shape(), checkpoint,
            "{} is {} {} where this run has f32 {}", parameter->name, dtype_name(saved.dtype()),
            saved.shape().str(), value.shape().str());
    std::memcpy(value.raw(), saved.raw(), static_cast<size_t>(value.bytes()));
  }
  const std::string path = checkpoint + kOptimizerFile;
  const auto saved = io::SafetensorsFile::open(path);
  optimizer.read_state([&](const Optimizer::StateTensor& tensor) {
    const io::SafetensorsEntry* entry = saved.find(tensor.name);
    require(entry != nullptr, path, "lacks {}: it is the checkpoint of another run, or damaged", tensor.name);
    return entry->data;
  });
  return state;
}

}  // namespace nibble::train
