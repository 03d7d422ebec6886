// The recipe and the hashes in a run's manifest.
#include "train/manifest.h"
#include "tests/fuzz/fuzz.h"

FUZZ_TARGET(manifest) {
  static const std::string directory = nibble::fuzz::scratch_directory("manifest");
  nibble::fuzz::put(directory + "/" + nibble::train::kManifestFile, bytes);
  const nibble::Json manifest = nibble::train::read_manifest(directory);
  (void)nibble::train::manifest_differences(manifest, nibble::Json::object());
  (void)nibble::train::manifest_differences(nibble::Json::object(), manifest);
  (void)nibble::train::recipe_from_json(manifest["recipe"], "fuzz");
}
