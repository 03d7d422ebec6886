// What a run was made of: hashes of the base, tokenizer, template and data, and the whole recipe. It stands
// in the run directory as nibble_manifest.json from the start ("status": "running") and says "finished" when
// the adapter is final.
#pragma once
#include <string>
#include <vector>

#include "base/json.h"
#include "train/prepare.h"

namespace nibble::train {

inline constexpr const char* kManifestFile = "nibble_manifest.json";

Json make_manifest(const Prepared& prepared);

// What differs between the manifest of a run and what would go on from it, in words ("learning_rate was
// 0.0002, is 0.001"); empty when nothing forbids it. Keys that are free on resume do not count.
std::vector<std::string> manifest_differences(const Json& then, const Json& now);

// Null when the directory has none. Errors: Error{path} for a file that is no manifest.
Json read_manifest(const std::string& directory);
void write_manifest(const std::string& directory, const Json& manifest);

}  // namespace nibble::train
