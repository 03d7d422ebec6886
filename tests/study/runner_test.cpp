// A study over the tiny random LLaMA: cells run once, go on after a stop, and fail alone.
#include "study/runner.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

#include "backend/kernel_slot.h"
#include "base/error.h"
#include "base/file.h"
#include "base/process.h"

namespace nibble::study {
namespace {

using testing::HasSubstr;

class Runner : public testing::Test {
 protected:
  void SetUp() override {
    backend::register_cpu_kernels();
    out_ = (std::filesystem::temp_directory_path() / fmt::format("nibble-study-{}", ::getpid())).string();
    std::filesystem::remove_all(out_);
    std::filesystem::create_directories(out_);
    write_file_atomic(out_ + "/text.txt", "a b c d e f g h i j k l m n o p a b c d e f g h");
    write_file_atomic(out_ + "/data.jsonl",
                      "{\"text\": \"a b c d e f\"}\n{\"text\": \"b c d e f g\"}\n{\"text\": \"c d e f g "
                      "h\"}\n{\"text\": \"d e f g h i\"}\n");
  }
  void TearDown() override {
    set_interrupted(false);
    std::filesystem::remove_all(out_);
  }
  StudyResults run(const std::string& yaml) {
    const Spec spec = parse_spec(yaml, "test.yaml",
                                 {{"model", NIBBLE_SOURCE_DIR "/tests/goldens/tiny_llama"},
                                  {"tokenizer", NIBBLE_SOURCE_DIR "/tests/goldens/study"},
                                  {"files", out_}});
    return run_study(spec, {.out = out_ + "/run", .progress = {}});
  }
  std::string out_;
};

const std::string kNeeds = "needs: {model: a model, tokenizer: its words, files: where}\n";
const std::string kPerplexity = "study: s\n" + kNeeds + R"(
models: [{name: tiny, path: "${model}", tokenizer: "${tokenizer}", dtype: f32}]
variants: [{name: f32, quantize: none}, {name: nf4, quantize: nf4}]
measures: [{kind: ppl, file: "${files}/text.txt", context: 16}]
)";

TEST_F(Runner, RunsEachCellOnceAndGoesOnWhereItWasStopped) {
  const StudyResults first = run(kPerplexity);
  EXPECT_EQ(first.ran, 2);
  EXPECT_EQ(first.failed, 0);
  const CellResult* dense = first.find(first.cells[0]);
  const CellResult* nf4 = first.find(first.cells[1]);
  ASSERT_TRUE(dense != nullptr && nf4 != nullptr);
  EXPECT_NE(dense->value, nf4->value);
  EXPECT_DOUBLE_EQ(dense->bits_per_weight, 32);
  EXPECT_LT(nf4->bits_per_weight, 32);

  // Killed in the middle of writing the second result: the first is kept, the second runs again to the same
  // value.
  const std::string log = out_ + "/run/results.jsonl", whole = read_file(log);
  write_file_atomic(log, whole.substr(0, whole.size() - 7));
  const StudyResults again = run(kPerplexity);
  EXPECT_EQ(again.reused, 1);
  EXPECT_EQ(again.ran, 1);
  EXPECT_EQ(again.find(again.cells[1])->value, nf4->value);

  // Another text is another result.
  write_file_atomic(out_ + "/text.txt", "h g f e d c b a h g f e d c b a");
  EXPECT_EQ(run(kPerplexity).ran, 2);
}

TEST_F(Runner, ACellThatFailsLeavesTheOthersAlone) {
  std::string yaml = kPerplexity;
  yaml.replace(yaml.find("models: ["), 9, "models: [{name: gone, path: \"${files}/nothing\"}, ");
  const StudyResults results = run(yaml);
  EXPECT_EQ(results.failed, 2);
  EXPECT_EQ(results.ran, 4);
  EXPECT_THAT(results.by_key.at(results.cells[0].key).error, HasSubstr("no such file or directory"));
  EXPECT_NE(results.find(results.cells[2]), nullptr);
  EXPECT_EQ(run(yaml).ran, 2) << "what failed is tried again";
}

TEST_F(Runner, TrainsOverSeedsAndPreparesItsOwnBase) {
  write_file_atomic(out_ + "/config.json",
                    read_file(NIBBLE_SOURCE_DIR "/tests/goldens/tiny_llama/config.json"));
  std::filesystem::copy_file(NIBBLE_SOURCE_DIR "/tests/goldens/study/tokenizer.json",
                             out_ + "/tokenizer.json");
  const std::string yaml = "study: s\n" + kNeeds + R"(
prepare:
  - {name: base, model: "${files}", tokenizer: "${tokenizer}", init: random, method: full, dtype: f32, data: "${files}/data.jsonl", max_steps: 2, eval_fraction: 0}
models: [{name: own, path: prepared/base, tokenizer: "${tokenizer}", dtype: f32}]
variants: [{name: lora, quantize: none}, {name: qlora, quantize: nf4}]
train: {data: "${files}/data.jsonl", eval_data: "${files}/data.jsonl", max_steps: 2, lora_r: 2}
seeds: [1, 2]
measures: [{kind: held_out}, {kind: ppl, file: "${files}/text.txt", context: 16}]
)";
  const StudyResults results = run(yaml);
  for (const Cell& cell : results.cells)
    ASSERT_NE(results.find(cell), nullptr) << results.by_key.at(cell.key).error;
  EXPECT_EQ(results.ran, 8);
  EXPECT_EQ(results.find(results.cells[0])->losses.size(), 2u);
  EXPECT_NE(results.find(results.cells[0])->value, results.find(results.cells[2])->value) << "seeds differ";
  EXPECT_EQ(run(yaml).ran, 0);
}

TEST_F(Runner, AStopKeepsWhatIsFinished) {
  set_interrupted(true);
  EXPECT_THROW(run(kPerplexity), Interrupted);
  set_interrupted(false);
  EXPECT_EQ(run(kPerplexity).ran, 2);
}

TEST_F(Runner, UnknownMeasuresAndOptionsAreRefusedBeforeAnythingRuns) {
  const auto message = [&](const std::string& from, const std::string& to) {
    std::string yaml = kPerplexity;
    yaml.replace(yaml.find(from), from.size(), to);
    try {
      run(yaml);
    } catch (const UsageError& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(message("kind: ppl", "kind: pll"), HasSubstr("no measure of kind \"pll\"; there are ppl"));
  EXPECT_THAT(message("context: 16", "contxt: 16"),
              HasSubstr("unknown option \"contxt\"; did you mean \"context\"?"));
  EXPECT_THAT(message("kind: ppl", "kind: held_out"), HasSubstr("unknown option \"file\""));
}

}  // namespace
}  // namespace nibble::study
