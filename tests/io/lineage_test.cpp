// Which adapters belong to which weights: by hash, and through what quantized weights say they were made
// from.
#include <gmock/gmock.h>

#include "io/bnb_checkpoint.h"
#include "io/peft_adapter.h"
#include "io/safetensors.h"
#include "tests/io/support.h"

namespace nibble::io {
namespace {

using ::testing::ElementsAre;

const std::string kTiny = golden("tiny_llama");

// A checkpoint of one tensor that names its sources.
ModelFiles made_from(const std::string& directory, const std::vector<std::string>& sources, float value = 1) {
  CheckpointItem item;
  item.name = "model.norm.weight";
  item.shape = {2};
  item.format = nullptr;
  item.dtype = kF32;
  item.make = [value] { return quant::dense_weight(f32_tensor({2}, {value, 2})); };
  write_bnb_checkpoint(directory, {item}, {{"model_type", "llama"}}, {{}, sources}, {});
  return open_model(directory);
}

std::string verdict(const Json& manifest, const ModelFiles& files) {
  AdapterFile adapter;
  adapter.manifest = manifest;
  return error_of([&] { require_same_base(adapter, "the adapter", files); });
}

TEST(Lineage, IsRecordedInTheWeights) {
  const TempDir dir;
  const ModelFiles source = open_model(kTiny);
  EXPECT_THAT(source.lineage(), ElementsAre(source.hash()));
  const ModelFiles once = made_from(dir / "once", source.lineage());
  EXPECT_THAT(once.sources, ElementsAre(source.hash()));
  const ModelFiles twice = made_from(dir / "twice", once.lineage(), 3);
  EXPECT_THAT(twice.sources, ElementsAre(once.hash(), source.hash()));
  EXPECT_THAT(twice.lineage(), ElementsAre(twice.hash(), once.hash(), source.hash()));
}

TEST(Lineage, WhatIsNoHashIsLetGo) {
  const TempDir dir;
  put_file(dir / "config.json", "{}");
  const std::string hash(32, 'a');
  write_safetensors(dir / "model.safetensors", {{"model.norm.weight", f32_tensor({1}, {1})}},
                    {{kSourcesKey, "short " + hash + " " + std::string(33, 'b') + "  "}});
  EXPECT_THAT(open_model(dir.path()).sources, ElementsAre(hash));
}

TEST(Lineage, AnAdapterFitsTheSameWeightsHoweverTheyAreRounded) {
  const TempDir dir;
  const ModelFiles source = open_model(kTiny);
  const ModelFiles quantized = made_from(dir / "a", source.lineage()),
                   other = made_from(dir / "b", source.lineage(), 5);
  const ModelFiles stranger = made_from(dir / "c", {std::string(32, '0')}, 7);
  const Json on_source = {{"base_hash", source.hash()}, {"base_sources", Json::array()}};
  const Json on_quantized = {{"base_hash", quantized.hash()}, {"base_sources", quantized.sources}};
  for (const ModelFiles* files : {&source, &quantized, &other}) {
    EXPECT_EQ(verdict(on_source, *files), "no error");
    EXPECT_EQ(verdict(on_quantized, *files), "no error");
    EXPECT_EQ(verdict(nullptr, *files), "no error") << "PEFT's own";
    EXPECT_EQ(verdict({{"something", 1}}, *files), "no error");
  }
  for (const Json& manifest : {on_source, on_quantized})
    EXPECT_THAT(verdict(manifest, stranger),
                ::testing::AllOf(
                    ::testing::HasSubstr("[the adapter] this adapter was trained on other weights: its "
                                         "manifest names base " +
                                         manifest["base_hash"].get<std::string>()),
                    ::testing::HasSubstr(stranger.hash() + " (made from 00000000000000000000000000000000)")));
  EXPECT_THAT(verdict({{"base_hash", 5}}, source), ::testing::HasSubstr("[the adapter]"));
  EXPECT_THAT(verdict({{"base_hash", "x"}, {"base_sources", "y"}}, source),
              ::testing::HasSubstr("[the adapter]"));
}

}  // namespace
}  // namespace nibble::io
