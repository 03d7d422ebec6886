// The measures of a study over the tiny random LLaMA: values against the functions they stand on, and
// messages.
#include "study/measures.h"

#include <gmock/gmock.h>

#include <filesystem>

#include "backend/kernel_slot.h"
#include "base/error.h"
#include "base/file.h"
#include "eval/answers.h"
#include "eval/choice_data.h"
#include "eval/rouge.h"
#include "study/runner.h"

namespace nibble::study {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

class Measures : public testing::Test {
 protected:
  void SetUp() override {
    backend::register_cpu_kernels();
    out_ = (fs::temp_directory_path() / fmt::format("nibble-measures-{}", ::getpid())).string();
    fs::remove_all(out_);
    for (const char* folder : {"/tokenizer", "/mmlu/dev", "/mmlu/test"})
      fs::create_directories(out_ + folder);
    // The study's tokenizer and the letters of answers.
    Json tokenizer =
        parse_json(read_file(NIBBLE_SOURCE_DIR "/tests/goldens/study/tokenizer.json"), "tokenizer");
    Json& vocab = tokenizer["model"]["vocab"];
    for (const char* letter : {"A", "B", "C", "D", "E", ":", ".", "?"}) {
      const auto id = static_cast<int64_t>(vocab.size());
      vocab[letter] = id;
    }
    write_file_atomic(out_ + "/tokenizer/tokenizer.json", tokenizer.dump());
    write_file_atomic(out_ + "/tokenizer/special_tokens_map.json", R"({"eos_token": "</s>"})");
    std::string dev, test;
    for (int i = 0; i < 5; ++i)
      dev += fmt::format("is {} one?,a,b,c,d,{}\n", std::string(1, 'a' + i), "ABCDA"[i]);
    for (int i = 0; i < 7; ++i)
      test += fmt::format("was {} two?,e,f,g,h,{}\n", std::string(1, 'h' + i), "ABCDDCB"[i]);
    for (const char* subject : {"anatomy", "virology"}) {
      write_file_atomic(fmt::format("{}/mmlu/dev/{}_dev.csv", out_, subject), dev);
      write_file_atomic(fmt::format("{}/mmlu/test/{}_test.csv", out_, subject), test);
    }
    write_file_atomic(
        out_ + "/prompts.jsonl",
        R"({"subject": "anatomy", "input": "was a two? A. b B. c C. d D. e Answer:", "output": "B"})"
        "\n");
    write_file_atomic(out_ + "/pairs.jsonl",
                      "{\"prompt\": \"a b c\", \"completion\": \"d e\"}\n{\"prompt\": \"b c d\", "
                      "\"completion\": \"x y\"}\n");
  }
  void TearDown() override { fs::remove_all(out_); }

  train::Recipe recipe() const {
    train::Recipe r;
    for (const auto& [key, value] :
         {std::pair<const char*, std::string>{"model", NIBBLE_SOURCE_DIR "/tests/goldens/tiny_llama"},
          {"tokenizer", out_ + "/tokenizer"},
          {"dtype", "f32"},
          {"quantize", "none"}})
      train::set_field(r, key, value);
    train::settle_base(r);
    return r;
  }
  double measure(const std::string& kind, Json options) {
    const MeasureKind& k = measure_kind(kind);
    k.check(options, "measure");
    Subject subject(recipe(), "", std::nullopt);
    return k.measure(subject, options);
  }
  std::string refused(const std::string& kind, const Json& options) {
    try {
      measure(kind, options);
    } catch (const UsageError& e) {
      return e.what();
    }
    return "no error";
  }
  std::string out_;
};

TEST_F(Measures, MmluIsWhatTheQuestionsSay) {
  Subject subject(recipe(), "", std::nullopt);
  const auto subjects = eval::read_mmlu(out_ + "/mmlu", "test", 2, {}, 0);
  eval::ChoiceOptions options;
  const auto answers =
      eval::answer_choices(subject.context(), subject.model(), subject.tokenizer(), subjects, options);
  eval::ChoiceScore all;
  for (size_t i = 0; i < 2; ++i) all.add(eval::score_choices(subjects[i], answers[i], options));
  EXPECT_EQ(all.questions, 14);
  const Json common = {{"data", out_ + "/mmlu"}, {"shots", 2}};
  EXPECT_DOUBLE_EQ(measure("mmlu", common), 100 * all.accuracy());
  Json loss = common;
  loss["value"] = "loss";
  EXPECT_DOUBLE_EQ(measure("mmlu", loss), all.loss());
  Json one = common;
  one["subjects"] = {"virology"};
  one["value"] = "subject_mean";
  EXPECT_DOUBLE_EQ(measure("mmlu", one),
                   100 * eval::score_choices(subjects[1], answers[1], options).accuracy());
  // The reference's file of whole prompts and its loss over letter and end.
  const double reference =
      measure("mmlu", {{"data", out_ + "/prompts.jsonl"}, {"value", "loss"}, {"reference_loss", true}});
  EXPECT_GT(reference, 0);
  EXPECT_NE(reference, measure("mmlu", {{"data", out_ + "/prompts.jsonl"}, {"value", "loss"}}));
}

TEST_F(Measures, ChoiceReadsAnyFileOfQuestions) {
  write_file_atomic(out_ + "/questions.jsonl",
                    "{\"question\": \"is a b?\", \"choices\": [\"c\", \"d\"], \"answer\": 0}\n"
                    "{\"question\": \"is b b?\", \"choices\": [\"c\", \"d\"], \"answer\": 1}\n");
  const double value = measure("choice", {{"data", out_ + "/questions.jsonl"}});
  EXPECT_TRUE(value == 0 || value == 50 || value == 100) << value;
}

TEST_F(Measures, MatchAndRougeCompareWhatTheModelWrites) {
  Subject subject(recipe(), "", std::nullopt);
  const auto cases =
      eval::read_answers({.path = out_ + "/pairs.jsonl"}, subject.shared_tokenizer(), subject.chat());
  ASSERT_EQ(cases.size(), 2u);
  EXPECT_EQ(cases[0].question, "a b c");
  EXPECT_EQ(cases[1].reference, "x y");
  eval::GenerateOptions how;
  how.sampling.temperature = 0;
  how.max_new_tokens = 5;
  how.stop_ids = subject.stop_ids();
  const auto answers = eval::answer_all(subject.context(), subject.model(), subject.tokenizer(), cases, how);
  const Json options = {{"data", out_ + "/pairs.jsonl"}, {"max_new_tokens", 5}};
  EXPECT_EQ(measure("match", options), 0);
  double sum = 0;
  for (size_t i = 0; i < 2; ++i) sum += eval::rouge(answers[i], cases[i].reference, true).l.f;
  EXPECT_DOUBLE_EQ(measure("rouge", options), 100 * sum / 2);
  // Its own answers as references are all right.
  std::string own;
  for (size_t i = 0; i < 2; ++i)
    own += Json{{"prompt", cases[i].question}, {"completion", answers[i]}}.dump() + "\n";
  write_file_atomic(out_ + "/own.jsonl", own);
  EXPECT_EQ(measure("match", {{"data", out_ + "/own.jsonl"}, {"max_new_tokens", 5}}), 100);
  EXPECT_EQ(measure("match", {{"data", out_ + "/own.jsonl"}, {"max_new_tokens", 5}, {"limit", 1}}), 100);
  // One record in two, in three: the first, the third; the first.
  write_file_atomic(out_ + "/third.jsonl", own.substr(0, own.find('\n') + 1) +
                                               "{\"prompt\": \"c\", \"completion\": \"x y\"}\n" +
                                               own.substr(own.find('\n') + 1));
  const auto share = [&](int64_t every) {
    return measure("match", {{"data", out_ + "/third.jsonl"}, {"max_new_tokens", 5}, {"every", every}});
  };
  EXPECT_DOUBLE_EQ(share(1), 200.0 / 3);
  EXPECT_EQ(share(2), 100);
  EXPECT_EQ(share(3), 100);
}

TEST_F(Measures, BadOptionsAreNamedBeforeAnythingRuns) {
  const std::string data = out_ + "/mmlu";
  EXPECT_THAT(refused("mmlu", Json::object()), HasSubstr("needs the option \"data\""));
  EXPECT_THAT(refused("mmlu", {{"data", data}, {"shot", 5}}),
              HasSubstr("unknown option \"shot\"; did you mean \"shots\"?"));
  EXPECT_THAT(refused("mmlu", {{"data", data}, {"shots", 6}}), HasSubstr("shots is 6; expected 0 to 5"));
  EXPECT_THAT(refused("mmlu", {{"data", data}, {"split", "train"}}),
              HasSubstr("split is \"train\"; expected one of test, val, dev"));
  EXPECT_THAT(refused("mmlu", {{"data", data}, {"value", "f1"}}),
              HasSubstr("value is \"f1\"; expected one of accuracy, subject_mean, loss"));
  EXPECT_THAT(refused("choice", {{"data", data}, {"limit", -1}}),
              HasSubstr("limit is -1; expected a number from 0 up"));
  EXPECT_THAT(refused("choice", {{"data", data}, {"shots", 2}}),
              HasSubstr("needs the option \"shots_from\""));
  EXPECT_THAT(refused("rouge", {{"data", data}, {"score", "lsum"}}),
              HasSubstr("score is \"lsum\"; expected one of l, 1, 2"));
  EXPECT_THAT(refused("match", {{"data", data}, {"stem", true}}), HasSubstr("unknown option \"stem\""));
  EXPECT_THAT(refused("ppl", {{"file", "x"}, {"skip", -2}}), HasSubstr("skip is -2"));
  EXPECT_THROW(measure("mmlu", {{"data", data}, {"subjects", {"anatom"}}}), Error);
  EXPECT_THROW(measure("mmlu", {{"data", 3}}), Error);
}

TEST_F(Measures, RecordsWithoutAnAnswerAreRefused) {
  Subject subject(recipe(), "", std::nullopt);
  const auto message = [&](const std::string& lines) {
    write_file_atomic(out_ + "/bad.jsonl", lines);
    try {
      eval::read_answers({.path = out_ + "/bad.jsonl"}, subject.shared_tokenizer(), subject.chat());
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(message("{\"text\": \"a b c\"}\n"),
              HasSubstr("bad.jsonl:1] has no question and answer to compare"));
  EXPECT_THAT(message("{\"prompt\": \"a\", \"completion\": \"\"}\n"),
              HasSubstr("has no question and answer"));
  EXPECT_THAT(message("{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n"),
              HasSubstr("should end with the assistant's reference answer"));
}

}  // namespace
}  // namespace nibble::study
