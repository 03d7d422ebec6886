// What post-processors put around one text and around two.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/json.h"
#include "text/loaders.h"

namespace nibble::text {
namespace {

using testing::ElementsAre;

std::shared_ptr<const Tokenizer> with_processor(const Json& processor) {
  const Json document = {{"model",
                          {{"type", "WordLevel"},
                           {"vocab", {{"[UNK]", 0}, {"[CLS]", 1}, {"[SEP]", 2}, {"a", 3}}},
                           {"unk_token", "[UNK]"}}},
                         {"pre_tokenizer", {{"type", "Whitespace"}}},
                         {"post_processor", processor}};
  return parse_tokenizer_json(document.dump(), {}, "tokenizer.json");
}

Json special(const char* name, int type) { return {{"SpecialToken", {{"id", name}, {"type_id", type}}}}; }
Json sequence(const char* name, int type) { return {{"Sequence", {{"id", name}, {"type_id", type}}}}; }
Json bert_template(int second_type) {
  return {{"type", "TemplateProcessing"},
          {"single", {special("[CLS]", 0), sequence("A", 0), special("[SEP]", 0)}},
          {"pair",
           {special("[CLS]", 0), sequence("A", 0), special("[SEP]", 0), sequence("B", second_type),
            special("[SEP]", second_type)}},
          {"special_tokens",
           {{"[CLS]", {{"id", "[CLS]"}, {"ids", {1}}, {"tokens", {"[CLS]"}}}},
            {"[SEP]", {{"id", "[SEP]"}, {"ids", {2}}, {"tokens", {"[SEP]"}}}}}}};
}

TEST(PairTemplate, ComesFromEachKindOfPostProcessor) {
  const Json cls = {"[CLS]", 1}, sep = {"[SEP]", 2};
  const auto bert = with_processor({{"type", "BertProcessing"}, {"sep", sep}, {"cls", cls}});
  const auto roberta = with_processor({{"type", "RobertaProcessing"}, {"sep", sep}, {"cls", cls}});
  const auto written = with_processor(bert_template(1));
  for (const auto* t : {&bert, &written}) {
    ASSERT_TRUE((*t)->pair.has_value());
    EXPECT_THAT((*t)->pair->before, ElementsAre(1));
    EXPECT_THAT((*t)->pair->between, ElementsAre(2));
    EXPECT_THAT((*t)->pair->after, ElementsAre(2));
    EXPECT_EQ((*t)->pair->second_type, 1);
    EXPECT_THAT((*t)->encode("a a"), ElementsAre(1, 3, 3, 2));
  }
  ASSERT_TRUE(roberta->pair.has_value());
  EXPECT_THAT(roberta->pair->between, ElementsAre(2, 2));
  EXPECT_EQ(roberta->pair->second_type, 0);
  EXPECT_FALSE(with_processor(nullptr)->pair.has_value());
}

TEST(PairTemplate, AnImpossibleTypeIsNamed) {
  try {
    with_processor(bert_template(-1));
    FAIL();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), testing::HasSubstr("the template gives a text the type -1"));
  }
}

}  // namespace
}  // namespace nibble::text
