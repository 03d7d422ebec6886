// A study of classifiers: each data set brings the task that it is measured on.
#include <gmock/gmock.h>

#include "backend/kernel_slot.h"
#include "base/error.h"
#include "base/file.h"
#include "eval/glue.h"
#include "study/measures.h"
#include "study/runner.h"
#include "tests/train/classifier.h"

namespace nibble::study {
namespace {

using testing::HasSubstr;
using train::TempDir;
using train::TinyEncoder;

class GlueStudy : public testing::Test {
 protected:
  GlueStudy() : encoder_(dir_.path) {
    backend::register_cpu_kernels();
    encoder_.sentiments("train.tsv", 240, 1);
    encoder_.sentiments("dev.tsv", 100, 2);
    encoder_.sentiments("other.tsv", 60, 3);
  }
  std::string yaml(const std::string& second) const {
    return R"(
study: glue
needs: {model: an encoder, files: where}
models: [{name: tiny, path: "${model}", dtype: f32}]
data:
  - name: dev
    data: [{path: "${files}/train.tsv", format: "glue:sst2"}]
    measure: {data: "${files}/dev.tsv"}
  - name: other
    data: [{path: "${files}/train.tsv", format: "glue:sst2"}]
    measure: )" +
           second + R"(
variants: [{name: adapters, quantize: nf4}, {name: full, method: full, quantize: none}]
train: {max_steps: 120, lora_r: 4, learning_rate: 0.003, per_device_train_batch_size: 16, eval_fraction: 0}
seeds: [1]
measures: [{kind: glue, better: higher, task: sst2}]
)";
  }
  Spec spec(const std::string& second = "{data: \"${files}/other.tsv\", every: 3}") const {
    return parse_spec(yaml(second), "glue.yaml", {{"model", encoder_.model()}, {"files", dir_.path}});
  }
  StudyResults run() const { return run_study(spec(), {.out = dir_.path + "/study", .progress = {}}); }

  TempDir dir_;
  TinyEncoder encoder_;
};

TEST_F(GlueStudy, MeasuresEachDataSetOnItsOwnFile) {
  const StudyResults results = run();
  ASSERT_EQ(results.cells.size(), 4u);
  for (const Cell& cell : results.cells) {
    ASSERT_NE(results.find(cell), nullptr) << results.by_key.at(cell.key).error;
    const double value = results.find(cell)->value, texts = cell.data == 0 ? 100 : 20;
    EXPECT_GT(value, 70) << cell.label;
    EXPECT_NEAR(value * texts / 100, std::round(value * texts / 100), 1e-9) << "of so many texts";
  }
  EXPECT_EQ(run().ran, 0);
  // Other training texts are another result, and what they are measured on too.
  encoder_.sentiments("other.tsv", 60, 4);
  EXPECT_EQ(run().ran, 2);
  encoder_.sentiments("train.tsv", 240, 5);
  EXPECT_EQ(run().ran, 4);
}

TEST_F(GlueStudy, OptionsOfADataSetAreCheckedBeforeAnythingRuns) {
  const auto message = [&](const std::string& second) {
    try {
      run_study(spec(second), {.out = dir_.path + "/study", .progress = {}});
    } catch (const UsageError& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(message("{}"), HasSubstr("needs the option \"data\""));
  EXPECT_THAT(message("{data: x, task: sst3}"), HasSubstr("\"sst3\" is not a task of GLUE"));
  EXPECT_THAT(message("{data: x, splt: dev}"), HasSubstr("unknown option \"splt\"; did you mean \"split\"?"));
  EXPECT_THAT(message("{data: x, every: 0}"), HasSubstr("every is 0; expected a number from 1 up"));
  EXPECT_THAT(message("dev"), HasSubstr("measure of data \"other\" should be a map of options"));
}

TEST_F(GlueStudy, AFileThatIsMissingFailsItsCellsAlone) {
  const StudyResults results =
      run_study(spec("{data: \"${files}/gone.tsv\"}"), {.out = dir_.path + "/study", .progress = {}});
  EXPECT_EQ(results.failed, 2);
  for (const Cell& cell : results.cells)
    EXPECT_EQ(results.find(cell) == nullptr, cell.data == 1) << cell.label;
}

}  // namespace
}  // namespace nibble::study
