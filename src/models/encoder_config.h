// The keys of config.json that BERT and RoBERTa share.
#pragma once
#include "models/gpt.h"

namespace nibble::models {

// Blocks, sizes, names below `prefix` ("bert.") and dropout; positions and head are the family's own.
// attention_probs_dropout_prob is not applied: attention never holds its probabilities.
// Errors: Error{"config.json"}; a decoder, and positions that are not absolute, are named as unsupported.
GptConfig read_encoder_config(const Json& json, const std::string& prefix);

// Is the architecture one with a head for whole sequences?
bool has_sequence_head(const Json& json);

}  // namespace nibble::models
