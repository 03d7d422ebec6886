// nibble train on a task of GLUE and nibble eval glue from outside, on a tiny BERT.
#include "base/json.h"
#include "tests/cli/run_program.h"
#include "tests/train/classifier.h"

#include <gmock/gmock.h>

namespace nibble::cli {
namespace {

using ::testing::HasSubstr;
using train::TempDir;
using train::TinyEncoder;

TEST(GlueProgram, TrainsAndScores) {
  const TempDir dir;
  const TinyEncoder encoder(dir.path);
  const std::string data = encoder.sentiments("train.tsv", 240, 1),
                    held = encoder.sentiments("dev.tsv", 100, 2), run = dir.path + "/run";
  const Ran trained =
      run_program({"train", "--quiet", "model=" + encoder.model(),
                   "data=[{path: " + data + ", format: glue:sst2}]", "out=" + run, "dtype=f32", "lora_r=4",
                   "learning_rate=0.003", "max_steps=120", "per_device_train_batch_size=16"});
  ASSERT_EQ(trained.code, 0) << trained.err;

  const auto scored = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"eval", "glue", "--model", encoder.model(), "--dtype", "f32", "--quantize",
                               "nf4", "--double-quant"});
    return run_program(more);
  };
  const std::string predictions = dir.path + "/predictions.jsonl";
  const Ran ran =
      scored({"--adapter", run, "--task", "sst2", "--data", held, "--json", "--predictions", predictions});
  ASSERT_EQ(ran.code, 0) << ran.err;
  const Json json = Json::parse(ran.out);
  EXPECT_EQ(json["task"], "sst2");
  EXPECT_EQ(json["files"][0]["examples"], 100);
  EXPECT_GT(json["score"].get<double>(), 0.85);
  EXPECT_EQ(json["score"], json["files"][0]["scores"]["accuracy"]);

  // The lines say what the score says.
  const std::string lines = read_file(predictions);
  int64_t right = 0, count = 0;
  for (size_t at = 0; at < lines.size(); ++count) {
    const size_t end = lines.find('\n', at);
    const Json line = Json::parse(lines.substr(at, end - at));
    right += line["prediction"] == line["label"];
    ASSERT_EQ(line["logits"].size(), 2u);
    const bool positive = line["logits"][1].get<double>() > line["logits"][0].get<double>();
    EXPECT_EQ(line["prediction"], positive ? "positive" : "negative");
    at = end + 1;
  }
  EXPECT_EQ(count, 100);
  EXPECT_NEAR(static_cast<double>(right) / 100, json["score"].get<double>(), 1e-12);

  const Ran folder = scored({"--adapter", run, "--task", "SST-2", "--data", dir.path, "--limit", "10"});
  EXPECT_THAT(folder.out, HasSubstr("dev.tsv  10 examples   accuracy "));

  // What cannot be scored.
  const auto refused = [&](const std::vector<std::string>& arguments) {
    const Ran r = scored(arguments);
    EXPECT_EQ(r.code == 0, false);
    return r.err;
  };
  EXPECT_THAT(refused({"--task", "sst2", "--data", held}), HasSubstr("has no head for whole texts"));
  EXPECT_THAT(refused({"--adapter", run, "--task", "mnli", "--data", held}),
              HasSubstr("head has 2 labels, mnli has 3"));
  EXPECT_THAT(refused({"--adapter", run, "--task", "sst2", "--data",
                       encoder.write("empty.tsv", "sentence\tlabel\n")}),
              HasSubstr("is an empty split of sst2"));
  EXPECT_THAT(refused({"--adapter", run, "--task", "sst2", "--data",
                       encoder.write("bad.tsv", "sentence\tlabel\nw7\t3\n")}),
              HasSubstr("label 3 is outside the range of sst2"));
  EXPECT_THAT(refused({"--adapter", run, "--task", "sst2", "--data",
                       encoder.write("test.tsv", "index\tsentence\n0\tw7\n")}),
              HasSubstr("has no label; such a split of sst2 cannot be scored"));
  EXPECT_THAT(refused({"--adapter", run, "--task", "sst3", "--data", held}),
              HasSubstr("\"sst3\" is not a task of GLUE"));
  EXPECT_THAT(refused({"--adapter", run, "--task", "sst2", "--data", dir.path, "--split", "test2"}),
              HasSubstr("is no split"));
}

}  // namespace
}  // namespace nibble::cli
