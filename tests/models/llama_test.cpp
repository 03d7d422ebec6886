#include "tests/models/tiny.h"

namespace nibble::models::test {
namespace {

TEST(Llama, LogitsEqualTransformers) {
  const Json cases = read_json(kTiny + "/cases.json");
  const Batch batch = batch_of(cases["sequences"], cases["labels"]);
  const auto golden = io::SafetensorsFile::open(kTiny + "/dense.safetensors");
  Loaded run(io::open_model(kTiny));
  const double worst = max_difference(logits_of(run, batch.ids, batch.lengths), to_vector(golden.tensor("logits.base")));
  RecordProperty("worst", std::to_string(worst));
  EXPECT_LT(worst, 1e-4);
}

}  // namespace
}  // namespace nibble::models::test
