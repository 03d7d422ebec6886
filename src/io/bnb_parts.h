// A quantized weight put together from the tensors that bitsandbytes stores it in (bnb_checkpoint.h lists
// them).
#pragma once
#include <functional>
#include <string>

#include "quant/weight.h"

namespace nibble::io {

// How the parts are found: typed, as the file says, or as raw bytes (U8). Undefined when there is none of
// that name.
struct BnbParts {
  std::function<Tensor(const std::string&name)> tensor, bytes;
};

// `name` is "….weight", `state` the name of its quant_state tensor. Errors: Error{where} naming the part that
// lies.
quant::Weight read_bnb4(const BnbParts& parts, const std::string& name, const std::string& state,
                        const std::string& where);
// LLM.int8: "….weight" I8 and "….SCB".
quant::Weight read_bnb8(const BnbParts& parts, const std::string& name, const std::string& where);

// The JSON of a doubly or singly quantized weight's quant_state tensor, padded with blanks to a multiple of 8
// bytes.
std::string bnb_quant_state(const quant::Weight& w);

}  // namespace nibble::io
