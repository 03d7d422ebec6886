// The model families, one row each: the names that config.json may carry and the function that loads it.
#pragma once
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "models/model.h"

namespace nibble::models {

using LoadFunction = std::unique_ptr<Model> (*)(const io::ModelFiles&, backend::Stream&,
                                                const nn::LoadOptions&);

struct Family {
  std::string_view architecture;  // of "architectures"
  std::string_view model_type;    // of "model_type", for a config without architectures
  LoadFunction load;
  std::string_view classifier = {};  // an encoder: its architecture with a head for whole sequences
};

std::span<const Family> families();
// The row that a config.json names. Errors: Error{where} naming an unknown architecture and the known ones.
const Family& family_of(const Json& config, const std::string& where);

}  // namespace nibble::models
