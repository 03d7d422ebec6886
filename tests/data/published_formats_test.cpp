// The layouts of the paper's data sets: what is found by looking, what the prompt is, what is learned.
#include <gmock/gmock.h>

#include "data/glue.h"
#include "tests/data/support.h"

namespace nibble::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const std::string kShared = NIBBLE_SOURCE_DIR "/../shared/data/";

Records records_of(std::initializer_list<const char*> rows) {
  Records r;
  for (const char* row : rows) {
    r.records.push_back(parse_json(row, "row"));
    r.sources.push_back("file:" + std::to_string(r.records.size()));
  }
  return r;
}

struct Read {
  std::string format;
  std::vector<Example> examples;
};

Read read(const Records& r, std::string_view name = "auto") {
  const DataFormat& format = choose_format(r, name, "file");
  FormatOptions options{.has_chat_template = false};
  apply_format_argument(name, "file", options);
  return {format.name, format.read(r.records, r.sources, options)};
}
Read read_file(const std::string& path, std::string_view name = "auto") {
  const Records r = read_records(path, name);
  const DataFormat& format = choose_format(r, name, path);
  FormatOptions options{.has_chat_template = false};
  apply_format_argument(name, path, options);
  return {format.name, format.read(r.records, r.sources, options)};
}

// Prompt and what is learned.
std::vector<std::string> parts(const Example& e) {
  EXPECT_EQ(e.segments.size(), 2u);
  EXPECT_FALSE(e.segments[0].train);
  EXPECT_TRUE(e.segments[1].train);
  EXPECT_TRUE(e.end_of_text);
  return {e.segments[0].text, e.segments[1].text};
}

TEST(PublishedFormats, SelfInstructLosesGpt3sEndMark) {
  const Read r =
      read(records_of({R"({"prompt": "Name a colour.\nOutput:", "completion": " Blue<|endoftext|>"})"}));
  EXPECT_EQ(r.format, "self_instruct");
  EXPECT_THAT(parts(r.examples[0]), ElementsAre("Name a colour.\nOutput:", " Blue"));
}

TEST(PublishedFormats, UnnaturalInstructionsCoreAndFull) {
  const char* task =
      R"({"instruction": "i", "instances": [{"instruction_with_input": "p1", "input": "x", "constraints": "None.",
    "output": "a1"}], "reformulations": [{"instruction": "j", "instruction_with_input": "p2", "input": "x", "output": "a2"}]})";
  const Read full = read(records_of({task}));
  EXPECT_EQ(full.format, "unnatural_full");
  ASSERT_EQ(full.examples.size(), 2u);
  EXPECT_THAT(parts(full.examples[1]), ElementsAre("p2", "a2"));
  const Read core = read(records_of({task}), "unnatural_core");
  ASSERT_EQ(core.examples.size(), 1u);
  EXPECT_THAT(parts(core.examples[0]), ElementsAre("p1", "a1"));
  const Read without =
      read(records_of({R"({"instances": [{"instruction_with_input": "p", "output": "a"}]})"}));
  EXPECT_EQ(without.format, "unnatural_core");
  EXPECT_EQ(
      read(
          records_of(
              {R"({"instances": [{"instruction_with_input": "p", "output": "a"}], "reformulations": null})"}))
          .examples.size(),
      1u);
  EXPECT_THAT(failure([] { read(records_of({R"({"instances": [{"input": "p"}]})"}), "unnatural_core"); }),
              HasSubstr("[file:1] has no \"instruction_with_input\""));
}

TEST(PublishedFormats, LongFormAndFlanStandAsTheyAre) {
  const Read longform =
      read(records_of({R"({"input": "Write.", "output": "Long.", "source": "C4", "subset": "c4"})"}));
  EXPECT_EQ(longform.format, "longform");
  EXPECT_THAT(parts(longform.examples[0]), ElementsAre("Write.", "Long."));
  const Read flan = read(
      records_of({R"({"inputs": "Q?", "targets": "A", "task_source": "Flan2021", "task_name": "rte"})"}));
  EXPECT_EQ(flan.format, "flan");
  EXPECT_THAT(parts(flan.examples[0]), ElementsAre("Q?", "A"));
}

TEST(PublishedFormats, Chip2IsSplitAtTheBot) {
  const Read r = read(records_of({R"({"text": "<human>: Hi\nyou\n<bot>: Hello\nthere", "metadata": {}})"}));
  EXPECT_EQ(r.format, "chip2");
  EXPECT_THAT(parts(r.examples[0]), ElementsAre("Hi\nyou", "Hello\nthere"));
  EXPECT_THAT(failure([] { read(records_of({R"({"text": "no bot"})"}), "chip2"); }),
              HasSubstr("no line that begins with"));
}

constexpr const char* kTask =
    R"({"Definition": ["Say the colour "], "Positive Examples": [{"input": "sky", "output": "blue.",
  "explanation": "e"}, {"input": "grass?", "output": "green"}], "Negative Examples": [], "Instances": [{"id": "1", "input": " coal ",
  "output": ["black", "dark"]}, {"id": "2", "input": "snow!", "output": ["white"]}]})";

TEST(PublishedFormats, SuperNaturalInstructionsHaveTkInstructsPrompt) {
  const Read two = read(records_of({kTask}));
  EXPECT_EQ(two.format, "super_ni");
  ASSERT_EQ(two.examples.size(), 2u);
  EXPECT_THAT(
      parts(two.examples[0]),
      ElementsAre("Definition: Say the colour.\n\n Positive Example 1 -\nInput: sky.\n Output: blue.\n\n"
                  " Positive Example 2 -\nInput: grass?\n Output: green.\n\n"
                  "Now complete the following example -\nInput: coal.\nOutput: ",
                  "black"));
  EXPECT_THAT(
      parts(read(records_of({kTask}), "super_ni:0").examples[1]),
      ElementsAre(
          "Definition: Say the colour.\n\nNow complete the following example -\nInput: snow!\nOutput: ",
          "white"));
  EXPECT_THAT(parts(read(records_of({kTask}), "super_ni:1").examples[1])[0], HasSubstr("Positive Example 1"));
  EXPECT_THAT(failure([] { read(records_of({kTask}), "super_ni:many"); }),
              HasSubstr("expected the number of positive examples"));
  EXPECT_THAT(failure([] { read(records_of({kTask}), "alpaca:2"); }),
              HasSubstr("only glue and super_ni take something after a colon"));
  EXPECT_THAT(failure([] {
                read(records_of({R"({"Definition": "d", "Instances": [{"input": "x", "output": []}]})"}),
                     "super_ni:0");
              }),
              HasSubstr("[file:1, instance 1] \"output\" should be text or a list of texts, got none"));
}

class PublishedFiles : public Files {
 protected:
  std::string nested(const std::string& name, std::string_view content) {
    const std::filesystem::path path = std::filesystem::path(write("x", "")).parent_path() / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << content;
    return path.string();
  }
};

TEST_F(PublishedFiles, ASplitOfSuperNaturalInstructionsReadsItsTasks) {
  std::string many = R"({"Definition": "Count", "Positive Examples": [], "Instances": [)";
  for (int i = 0; i < 130; ++i)
    many += fmt::format("{}{{\"input\": \"{}\", \"output\": \"x\"}}", i > 0 ? "," : "", i);
  nested("tasks/task1_colours.json", kTask);
  nested("tasks/task2_many.json", many + "]}");
  const std::string split = nested("splits/default/train_tasks.txt", "task1_colours\n\ntask2_many\n");
  for (const char* format : {"auto", "super_ni", "super_ni:1"}) {
    const Read r = read_file(split, format);
    EXPECT_EQ(r.format, "super_ni");
    EXPECT_EQ(r.examples.size(), 102u);  // a hundred of each task at most
    EXPECT_EQ(r.examples[0].source, "task1_colours, instance 1");
  }
  const std::string lost = nested("splits/default/test_tasks.txt", "task9_lost\n");
  EXPECT_THAT(failure([&] { read_records(lost); }), HasSubstr("[test_tasks.txt:1] there is no"));
  EXPECT_THAT(failure([&] { read_records(nested("splits/default/test_tasks.txt", "../../etc\n")); }),
              HasSubstr("is no name of a task"));
  EXPECT_THAT(failure([&] { read_records(nested("splits/default/test_tasks.txt", "\n")); }),
              HasSubstr("is empty"));
}

TEST_F(PublishedFiles, FlansChainsOfThoughtAreTablesWithoutNames) {
  const std::string file = write(
      "gsm8k_train.tsv", "How many\\nare there?\t 72 \tThere are 72 of them.\nAnd now?\tno\tIt is not so.\n");
  const Read r = read_file(file);
  EXPECT_EQ(r.format, "flan");
  EXPECT_THAT(parts(r.examples[0]),
              ElementsAre("How many\nare there?", "There are 72 of them.\nTherefore, the answer is 72."));
  EXPECT_EQ(read_file(file, "flan").examples.size(), 2u);
  EXPECT_THAT(failure([&] { read_records(write("b.tsv", "a\tb\n"), "flan"); }),
              HasSubstr("[b.tsv:1] has 2 columns; expected question, answer and rationale"));
}

// Task, texts, label of the first row of a published layout.
struct Layout {
  const char *file, *content, *task, *first, *second;
  double label;
  const char *prompt, *answer;
};

TEST_F(PublishedFiles, GluesNineTasksInTheirOwnTables) {
  const Layout layouts[] = {
      {"CoLA/train.tsv", "gj04\t1\t\tThey drank.\ngj04\t0\t*\tThey drank the \"pub.\n", "cola", "They drank.",
       "", 1, "cola sentence: They drank.", "acceptable"},
      {"SST-2/train.tsv", "sentence\tlabel\nfine film \t1\n", "sst2", "fine film ", "", 1,
       "sst2 sentence: fine film ", "positive"},
      {"lines/dev.tsv", "fine film\t0\nnice\t1\n", "sst2", "fine film", "", 0, "sst2 sentence: fine film",
       "negative"},
      {"MRPC/msr_paraphrase_train.txt",
       "\xEF\xBB\xBFQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tA said \"x\tB\n", "mrpc",
       "A said \"x", "B", 1, "mrpc sentence1: A said \"x sentence2: B", "equivalent"},
      {"STS-B/sts-train.tsv", "main-captions\tMSRvid\t2012test\t0001\t3.8\tA plane.\tAn air plane.\n", "stsb",
       "A plane.", "An air plane.", 3.8, "stsb sentence1: A plane. sentence2: An air plane.", "3.8"},
      {"STS-B/train.tsv",
       "index\tgenre\tfilename\tyear\told_"
       "index\tsource1\tsource2\tsentence1\tsentence2\tscore\n0\tg\tf\ty\t1\tn\tn\tA\tB\t2.73\n",
       "stsb", "A", "B", 2.73, "stsb sentence1: A sentence2: B", "2.8"},
      {"QQP/train.tsv", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\tA?\tB?\t0\n", "qqp",
       "A?", "B?", 0, "qqp question1: A? question2: B?", "not_duplicate"},
      {"MNLI/dev_matched.tsv",
       "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence1\tsentence2\tlabel1\tgold_"
       "label\n0\t1\t1n\tg\t( )\tP\tH\tneutral\tcontradiction\n",
       "mnli", "P", "H", 2, "mnli hypothesis: H premise: P", "contradiction"},
      {"QNLI/dev.tsv", "index\tquestion\tsentence\tlabel\n0\tQ?\tS\tnot_entailment\n", "qnli", "Q?", "S", 1,
       "qnli question: Q? sentence: S", "not_entailment"},
      {"RTE/dev.tsv", "index\tsentence1\tsentence2\tlabel\n0\tA\tB\tentailment\n", "rte", "A", "B", 0,
       "rte sentence1: A sentence2: B", "entailment"},
      {"WNLI/dev.tsv", "index\tsentence1\tsentence2\tlabel\n0\tA\tB\t1\n", "wnli", "A", "B", 1,
       "wnli sentence1: A sentence2: B", "entailment"},
  };
  for (const Layout& l : layouts) {
    SCOPED_TRACE(l.file);
    const std::string file = nested(l.file, l.content);
    const std::vector<GlueExample> examples = read_glue(file);
    EXPECT_EQ(examples[0].first, l.first);
    EXPECT_EQ(examples[0].second, l.second);
    EXPECT_DOUBLE_EQ(examples[0].label, l.label);
    EXPECT_EQ(glue_prompt(glue_task(l.task), examples[0]), l.prompt);
    EXPECT_EQ(read_glue(file, l.task)[0].first, l.first);
    const Read text = read_file(file);
    EXPECT_EQ(text.format, "glue");
    EXPECT_THAT(parts(text.examples[0]), ElementsAre(l.prompt, l.answer));
    EXPECT_THAT(parts(read_file(file, std::string("glue:") + l.task).examples[0]),
                ElementsAre(l.prompt, l.answer));
  }
}

TEST_F(PublishedFiles, GlueAsJson) {
  const std::string mnli = write("a.jsonl", R"({"premise": "P", "hypothesis": "H", "label": 1, "idx": 0})");
  EXPECT_EQ(read_glue(mnli)[0].label, 1);
  EXPECT_THAT(parts(read_file(mnli).examples[0]), ElementsAre("mnli hypothesis: H premise: P", "neutral"));
  const std::string pair = write("b.jsonl", R"({"sentence1": "A", "sentence2": "B", "label": 1})");
  EXPECT_THAT(failure([&] { read_file(pair); }), HasSubstr("say which with format: glue:TASK"));
  EXPECT_THAT(parts(read_file(pair, "glue:rte").examples[0]),
              ElementsAre("rte sentence1: A sentence2: B", "not_entailment"));
  EXPECT_THAT(parts(read_file(pair, "glue:MRPC").examples[0])[1], "equivalent");
}

TEST_F(PublishedFiles, GlueSaysWhatIsWrong) {
  const auto fails = [&](const char* name, const char* content, const char* format, const char* message) {
    EXPECT_THAT(failure([&] { read_file(nested(name, content), format); }), HasSubstr(message)) << name;
  };
  fails("SST-2/a.tsv", "sentence\tlabel\nx\t2\n", "auto",
        "[a.tsv:2] label 2 is outside the range of sst2; expected 0 to 1 or negative, positive");
  fails("RTE/a.tsv", "index\tsentence1\tsentence2\tlabel\n0\tA\tB\tmaybe\n", "auto",
        "\"maybe\" is no label of rte; expected 0 to 1 or entailment");
  fails("s/sts-a.tsv", "m\tn\t0\t1\t5.5\tA\tB\n", "glue:stsb",
        "label 5.5 is outside the range of stsb; expected a score from 0 to 5");
  fails("SST-2/b.tsv", "sentence\tlabel\n", "auto", "is an empty split of sst2: there is no row");
  fails("RTE/b.tsv", "index\tsentence1\tsentence2\n0\tA\tB\n", "auto",
        "[b.tsv:2] has no label; a test split cannot be trained on");
  fails("RTE/c.tsv", "index\tsentence1\tsentence2\tlabel\n0\tA\n", "auto",
        "[c.tsv:2] has 2 columns; expected at least 4");
  fails("any/d.tsv", "index\tsentence1\tsentence2\tlabel\n0\tA\tB\t1\n", "auto",
        "say which with format: glue:rte");
  fails("any/e.tsv", "one\ttwo\nA\tB\n", "glue:rte", "its columns (one, two) do not hold the texts of rte");
  fails("any/f.tsv", "sentence\tlabel\nA\t1\n", "glue:snli",
        "\"snli\" is not a task of GLUE; known are cola");
  EXPECT_THAT(failure([&] { read_glue(nested("any/g.tsv", "one\ttwo\nA\tB\n")); }),
              HasSubstr("is no table of GLUE"));
}

TEST_F(PublishedFiles, GlueSplitsAreFoundByTheirNames) {
  const std::string folder = std::filesystem::path(nested("MNLI/dev_matched.tsv", "")).parent_path().string();
  nested("MNLI/dev_mismatched.tsv", "");
  nested("MNLI/train.tsv", "");
  EXPECT_EQ(glue_files(folder, "mnli", "dev").size(), 2u);
  EXPECT_THAT(glue_files(folder, "mnli", "dev")[1], HasSubstr("dev_mismatched.tsv"));
  EXPECT_EQ(glue_files(folder, "mnli", "train").size(), 1u);
  EXPECT_THAT(failure([&] { glue_files(folder, "mnli", "test"); }),
              HasSubstr("has no test split of mnli; looked for test_matched.tsv"));
  EXPECT_THAT(failure([&] { glue_files(folder, "mnli", "validation"); }), HasSubstr("is no split"));
}

TEST(PublishedData, RealFilesAreRead) {
  if (!std::filesystem::exists(kShared)) GTEST_SKIP() << "needs " << kShared;
  struct Known {
    const char *file, *format;
    size_t count;
  };
  const Known known[] = {{"instruct/flan_v2_cot/gsm8k_train.tsv", "flan", 7473},
                         {"instruct/flan_v2_cot/strategyqa_train.tsv", "flan", 2061},
                         {"glue/CoLA/in_domain_train.tsv", "glue", 8551},
                         {"glue/MRPC/msr_paraphrase_train.txt", "glue", 4076},
                         {"glue/RTE/dev.tsv", "glue", 277},
                         {"glue/SST-2/train.tsv", "glue", 60614},
                         {"glue/SST2-sentences/dev.tsv", "glue", 871},
                         {"glue/STS-B/sts-train.tsv", "glue", 5749},
                         {"glue/STS-B/sts-dev.tsv", "glue", 1500},
                         {"instruct/t0_train_sample.jsonl", "prompt_completion", 1}};
  for (const Known& k : known) {
    SCOPED_TRACE(k.file);
    const Read r = read_file(kShared + k.file);
    EXPECT_EQ(r.format, k.format);
    EXPECT_GE(r.examples.size(), k.count);
    if (k.count > 1) {
      EXPECT_LE(r.examples.size(), k.count + 1);
    }
    for (const Example& e : r.examples)
      EXPECT_THAT(e.segments.back().text, testing::Not(HasSubstr("<|endoftext|>")));
  }
  for (const char* folder : {"CoLA", "MRPC", "RTE", "SST-2", "STS-B"})
    EXPECT_EQ(glue_files(kShared + "glue/" + folder, folder, "train").size(), 1u) << folder;
}

}  // namespace
}  // namespace nibble::data
