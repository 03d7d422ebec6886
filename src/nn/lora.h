// Adapters over a model's Linears: attached, enumerated, saved and loaded by name; models know nothing of
// them.
#pragma once
#include <functional>

#include "io/peft_adapter.h"
#include "nn/linear.h"

namespace nibble::nn {

using LinearVisitor = std::function<void(Linear&)>;

// Does `module` ("model.layers.0.self_attn.q_proj") match PEFT's target_modules: a suffix of the path at a
// dot, a regular expression over the whole path when it is the only entry and has regex characters, or
// "all-linear"?
bool targets_module(const std::vector<std::string>& target_modules, const std::string& module);

// Is this the name of an output head? "all-linear" means all but it, and limits count it apart.
bool is_output_head(const std::string& module);

// Attaches adapter `id` to every matching Linear of `visit`: A ~ U(-1/√in, 1/√in) (Kaiming, a = √5; Philox,
// seeded by name), B = 0. config.target_modules {"all-linear"} means all but the output head. rank_pattern
// and alpha_pattern apply. Returns the number of Linears. Errors: none matched (the known names are listed);
// a rank above both dimensions.
int64_t attach_lora(const std::function<void(const LinearVisitor&)>& visit, const io::AdapterConfig& config,
                    int id, uint64_t seed, Allocator& allocator);

// Attaches an adapter read from a file. `heads` are the Linears that adapters save whole: they take the
// values of the file. Errors: a module the model does not have or a shape that differs (an adapter of another
// model), pairs missing for none, a head whose values are missing.
void attach_adapter(const std::function<void(const LinearVisitor&)>& visit, const io::AdapterFile& file,
                    int id, Allocator& allocator,
                    const std::function<void(const LinearVisitor&)>& heads = {});

// The adapter as a file, in visiting order of modules, and the heads' values.
io::AdapterFile adapter_file(const std::function<void(const LinearVisitor&)>& visit,
                             const io::AdapterConfig& config, int id,
                             const std::function<void(const LinearVisitor&)>& heads = {});

}  // namespace nibble::nn
