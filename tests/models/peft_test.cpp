// Adapters over a checkpoint that `nibble quantize` wrote: what PEFT computes is what nibble computes,
// whoever wrote the adapter, and quantizing the same model on loading gives the same again.
#include "tests/models/tiny.h"

namespace nibble::models::test {
namespace {

const std::string kPeft = std::string(NIBBLE_SOURCE_DIR) + "/tests/goldens/peft";

class OverACheckpoint : public testing::TestWithParam<const char*> {};

TEST_P(OverACheckpoint, LogitsEqualPeft) {
  const auto golden = io::SafetensorsFile::open(kPeft + "/logits.safetensors");
  const Tensor stored = golden.tensor("ids");
  const std::vector<int32_t> ids(stored.data<int32_t>(), stored.data<int32_t>() + stored.numel());
  const std::vector<float> base = to_vector(golden.tensor("base")),
                           tuned = to_vector(golden.tensor(GetParam()));
  ASSERT_GT(max_difference(tuned, base), 0.1) << "the adapter does something";
  const io::AdapterFile adapter = io::read_adapter(kPeft + "/" + GetParam());
  struct Way {
    std::string model;
    nn::LoadOptions options;
  };
  for (const Way& way :
       {Way{kPeft + "/checkpoint", options_of(kF32, "stored")}, Way{kTiny, options_of(kF32, "nf4", true)}}) {
    SCOPED_TRACE(way.model);
    Loaded run(io::open_model(way.model), kF32, way.options);
    nn::attach_adapter(run.visit(), adapter, 0, *run.allocator);
    const auto logits = [&] { return logits_of(run, ids, {static_cast<int32_t>(ids.size())}); };
    const double without = max_difference(logits(), base);
    run.use(0);
    const double with = max_difference(logits(), tuned);
    RecordProperty("worst", fmt::format("{:.2e} {:.2e}", without, with));
    EXPECT_LT(without, 1e-4);
    EXPECT_LT(with, 1e-4);
  }
}

INSTANTIATE_TEST_SUITE_P(Adapters, OverACheckpoint, testing::Values("by_nibble", "by_peft"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace nibble::models::test
