// A vocabulary as a tokenizer.json of the `tokenizers` package.
#pragma once
#include <string>

#include "text/loaders.h"

namespace nibble::text {

// Writes the document into `json` and returns "", or says why this vocabulary has no such form that would
// give the same ids.
std::string tokenizer_json(const VocabSource& source, std::string& json);

// A token as the document spells it: an added one as it stands in texts.
std::string spelled(const VocabSource& source, int32_t id);

}  // namespace nibble::text
