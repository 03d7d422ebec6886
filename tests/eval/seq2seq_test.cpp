// Answers of an encoder–decoder: the source read once, the decoder with its caches; those of Transformers.
#include <gmock/gmock.h>
#include <unistd.h>

#include <fstream>

#include "base/file.h"
#include "eval/answers.h"
#include "eval/generate.h"
#include "eval/perplexity.h"
#include "nn/lora.h"
#include "tests/eval/support.h"

namespace nibble::eval {
namespace {

using testing::HasSubstr;
const std::string kT5Goldens = NIBBLE_SOURCE_DIR "/tests/goldens/t5/";

class EncoderDecoder : public testing::TestWithParam<const char*> {
 protected:
  EncoderDecoder()
      : directory_(testing::TempDir() + fmt::format("t5_answers_{}_{}", GetParam(), ::getpid())),
        cases_(parse_json(read_file(kT5Goldens + "cases.json"), "cases.json")) {
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
    for (const char* name : {"config.json", "model.safetensors"})
      std::filesystem::copy_file(kT5Goldens + GetParam() + "/" + name, directory_ + "/" + name);
    Json vocab = {{"<pad>", 0}, {"</s>", 1}, {"<unk>", 2}};
    for (int i = 3; i < 96; ++i) vocab[fmt::format("w{}", i)] = i;
    write_file_atomic(directory_ + "/tokenizer.json",
                      Json{{"model", {{"type", "WordLevel"}, {"vocab", vocab}, {"unk_token", "<unk>"}}},
                           {"pre_tokenizer", {{"type", "WhitespaceSplit"}}}}
                          .dump());
    write_file_atomic(directory_ + "/tokenizer_config.json", Json{{"eos_token", "</s>"}}.dump());
    loaded_ = std::make_unique<Loaded>(directory_);
    nn::attach_adapter([&](const nn::LinearVisitor& v) { loaded_->model->visit_linears(v); },
                       io::read_adapter(kT5Goldens + GetParam() + "/adapter"), 0, host_allocator());
    loaded_->context.adapters = {{0, int64_t{1} << 40, 0}};
  }
  ~EncoderDecoder() override { std::filesystem::remove_all(directory_); }
  Generator generator() const { return Generator(loaded_->context, *loaded_->model, *loaded_->tokenizer); }
  std::vector<std::vector<int32_t>> sources() const {
    return cases_["sources"].get<std::vector<std::vector<int32_t>>>();
  }

  std::string directory_;
  Json cases_;
  std::unique_ptr<Loaded> loaded_;
};

TEST_P(EncoderDecoder, AnswersGreedilyAsTransformersDoes) {
  GenerateOptions options;
  options.sampling.temperature = 0;
  options.max_new_tokens = 12;
  options.stop_ids = {1};
  const auto expected = cases_["cases"][GetParam()]["generated"]
                            .get<std::vector<std::vector<int32_t>>>();  // from the start token on
  for (const int64_t batch : {1, 2, 16}) {
    options.batch = batch;
    const auto answers = generator().run(sources(), options);
    for (size_t i = 0; i < expected.size(); ++i) {
      if (sources()[i].back() != 1)
        continue;  // Transformers reads it without the end token that it gets here
      std::vector<int32_t> ids(expected[i].begin() + 1, expected[i].end());
      const bool ends = ids.back() == 1;
      if (ends) ids.pop_back();
      EXPECT_EQ(answers[i].ids, ids) << "batch " << batch << ", source " << i;
      EXPECT_EQ(answers[i].finish, ends ? Finish::kStop : Finish::kLength);
    }
  }
  // The end token is put behind a source that lacks it.
  auto bare = sources()[1];
  bare.pop_back();
  EXPECT_EQ(generator().run({bare}, options)[0].ids, generator().run({sources()[1]}, options)[0].ids);
}

TEST_P(EncoderDecoder, DrawsTheSameInABatchAsAlone) {
  GenerateOptions options;
  options.max_new_tokens = 10;
  options.stop_ids = {1};
  Generator one = generator();
  const auto together = generator().run(sources(), options);
  for (size_t i = 0; i < together.size(); ++i)
    EXPECT_EQ(one.run({sources()[i]}, options)[0].ids, together[i].ids) << i;
}

TEST_P(EncoderDecoder, PromptsOfAnswersAreSourcesAndATextAloneHasNoPerplexity) {
  write_file_atomic(directory_ + "/pairs.jsonl", "{\"prompt\": \"w5 w6\", \"completion\": \"w7\"}\n");
  const auto cases = read_answers({.path = directory_ + "/pairs.jsonl"}, loaded_->tokenizer, nullptr,
                                  loaded_->model->config().decoder_start());
  ASSERT_EQ(cases.size(), 1u);
  EXPECT_EQ(cases[0].prompt, (std::vector<int32_t>{5, 6, 1}));
  EXPECT_EQ(cases[0].reference, "w7");
  EXPECT_THAT(message_of([&] {
                perplexity(loaded_->context, *loaded_->model, {{5, 6, 7}}, {});
              }),
              HasSubstr("is an encoder–decoder: it writes after reading a source"));
  EXPECT_THAT(message_of([&] { generator().run(std::vector<std::vector<int32_t>>(1), {}); }),
              HasSubstr("prompt 1 is empty"));
}

INSTANTIATE_TEST_SUITE_P(Cases, EncoderDecoder, testing::Values("v1_0", "v1_1", "tied_unscaled"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace nibble::eval
