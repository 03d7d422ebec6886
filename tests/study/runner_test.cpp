// A study over the tiny random LLaMA: cells run once, go on after a stop, and fail alone.
#include "study/runner.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

#include "backend/kernel_slot.h"
#include "base/error.h"
#include "base/file.h"
#include "base/process.h"
#include "study/table.h"

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

TEST_F(Runner, ABaseMeasuredAsItIsRunsOnceForAllSeeds) {
  const std::string yaml = "study: s\n" + kNeeds + R"(
models: [{name: tiny, path: "${model}", tokenizer: "${tokenizer}", dtype: f32}]
data: [{name: before, train: false}, {name: after}]
variants: [{name: lora, quantize: none}, {name: qlora, quantize: nf4}, {name: untouched, quantize: nf4, train: false}]
train: {data: "${files}/data.jsonl", eval_fraction: 0, max_steps: 2, lora_r: 2, learning_rate: 0.05}
seeds: [1, 2]
measures: [{kind: ppl, file: "${files}/text.txt", context: 16}]
)";
  const StudyResults results = run(yaml);
  EXPECT_EQ(results.cells.size(), 12u);
  EXPECT_EQ(results.failed, 0);
  // Two bases and two trainings of two; what is not trained is one result under every data set and seed.
  EXPECT_EQ(results.ran, 6);
  const auto value = [&](size_t data, size_t variant, int64_t seed) {
    for (const Cell& cell : results.cells)
      if (cell.data == data && cell.variant == variant && cell.seed == seed) return results.find(cell)->value;
    return 0.0;
  };
  EXPECT_EQ(value(0, 1, 1), value(1, 2, 2));
  EXPECT_NE(value(0, 0, 1), value(1, 0, 1));
  EXPECT_NE(value(1, 0, 1), value(1, 0, 2));
  const Spec spec = parse_spec(yaml, "test.yaml", {{"model", "m"}, {"tokenizer", "t"}, {"files", "f"}});
  const Table table = make_table(spec, results);
  EXPECT_EQ(table.columns[0].rows[0]->count, 1) << "before: no spread to tell of";
  EXPECT_EQ(table.columns[1].rows[0]->count, 2);
  EXPECT_EQ(table.points.size(), 6u);
  EXPECT_EQ(run(yaml).ran, 0);
}

TEST_F(Runner, ABaseThatCannotBeTrainedFailsItsCellsAlone) {
  const std::string yaml = "study: s\n" + kNeeds + R"(
prepare:
  - {name: base, model: "${files}/no-config", tokenizer: "${tokenizer}", init: random, method: full, data: "${files}/data.jsonl", max_steps: 2}
models:
  - {name: own, path: prepared/base, tokenizer: "${tokenizer}", dtype: f32}
  - {name: tiny, path: "${model}", tokenizer: "${tokenizer}", dtype: f32}
variants: [{name: f32, quantize: none}]
measures: [{kind: ppl, file: "${files}/text.txt", context: 16}]
)";
  const StudyResults results = run(yaml);
  EXPECT_EQ(results.failed, 1);
  EXPECT_THAT(results.by_key.at(results.cells[0].key).error, HasSubstr("the base base could not be trained"));
  EXPECT_THAT(results.by_key.at(results.cells[0].key).error, HasSubstr("no-config"));
  EXPECT_NE(results.find(results.cells[1]), nullptr);
}

TEST_F(Runner, ATrainingThatWasKilledGoesOn) {
  const std::string yaml = "study: s\n" + kNeeds + R"(
models: [{name: tiny, path: "${model}", tokenizer: "${tokenizer}", dtype: f32}]
variants: [{name: lora, quantize: none}]
train: {data: "${files}/data.jsonl", eval_data: "${files}/data.jsonl", max_steps: 4, lora_r: 2, save_steps: 1}
measures: [{kind: held_out}]
)";
  const double whole = run(yaml).by_key.begin()->second.value;
  // As after a kill between two steps: the result and the end of the run are gone, a checkpoint is there.
  const std::string runs = out_ + "/run/runs",
                    folder = std::filesystem::directory_iterator(runs)->path().string();
  std::filesystem::remove(out_ + "/run/results.jsonl");
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().filename().string().ends_with("-4")) std::filesystem::remove_all(entry.path());
  Json manifest = parse_json(read_file(folder + "/nibble_manifest.json"), "manifest");
  manifest["status"] = "running";
  write_file_atomic(folder + "/nibble_manifest.json", manifest.dump());
  const StudyResults again = run(yaml);
  EXPECT_EQ(again.failed, 0);
  EXPECT_EQ(again.by_key.begin()->second.value, whole);
}

TEST_F(Runner, AStopKeepsWhatIsFinished) {
  set_interrupted(true);
  try {
    run(kPerplexity);
    ADD_FAILURE() << "not stopped";
  } catch (const Interrupted& e) {
    EXPECT_THAT(e.what(), HasSubstr("interrupted with 0 of 2 results; everything finished is kept in " +
                                    out_ + "/run, the same command goes on"));
  }
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
