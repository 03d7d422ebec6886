// The quality of each data type on a real model: perplexity of stories260K (llama2.c), its linears quantized
// with blocks of 64 and no double quantization. The expected figures were computed with a separate numpy
// program. Text: the first 200 stories of TinyStories, blank lines made single, curly double quotes made
// straight; BOS and a leading space (the tokenizer's own) in front; each cut to 400 tokens.
#include <fmt/core.h>

#include "base/file.h"
#include "base/json.h"
#include "eval/perplexity.h"
#include "tests/eval/support.h"

namespace nibble::eval {
namespace {

const std::string kTexts = kSharedData + "/text/tinystories_900.json";

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

const std::vector<std::vector<int32_t>>& stories() {
  static const auto* documents = [] {
    const Json texts = parse_json(read_file(kTexts), kTexts);
    const auto tokenizer = text::load_tokenizer(kStories);
    auto* all = new std::vector<std::vector<int32_t>>;
    for (size_t i = 0; i < 200; ++i) {
      auto story = texts.at(i).get<std::string>();
      replace_all(story, "\n\n", "\n");
      replace_all(story, "“", "\"");
      replace_all(story, "”", "\"");
      std::vector<int32_t> ids = tokenizer->encode(story);
      ids.resize(std::min<size_t>(ids.size(), 400));
      all->push_back(std::move(ids));
    }
    return all;
  }();
  return *documents;
}

struct Figure {
  const char* format;
  double ppl, tolerance;
};

class Stories : public ::testing::TestWithParam<Figure> {};

TEST_P(Stories, PerplexityOfTheDataType) {
  if (!have_stories() || !std::filesystem::exists(kTexts))
    GTEST_SKIP() << "needs " << kStories << " and " << kTexts;
  const Figure& figure = GetParam();
  Loaded loaded(kStories, figure.format);
  const Perplexity result =
      perplexity(loaded.context, *loaded.model, stories(), {.context = 512, .stride = 512, .progress = {}});
  EXPECT_EQ(result.tokens, 73170);
  EXPECT_NEAR(result.ppl, figure.ppl, figure.tolerance);
  fmt::print("{:6} perplexity {:.4f}\n", figure.format, result.ppl);
}

INSTANTIATE_TEST_SUITE_P(DataTypes, Stories,
                         ::testing::Values(Figure{"none", 5.229, 0.002}, Figure{"int8", 5.230, 0.01},
                                           Figure{"nf4", 5.843, 0.01}, Figure{"af4", 5.932, 0.01},
                                           Figure{"e2m1", 6.110, 0.01}, Figure{"int4", 6.208, 0.01},
                                           Figure{"fp4", 6.616, 0.01}, Figure{"e3m0", 10.42, 0.01}),
                         [](const auto& p) { return std::string(p.param.format); });

}  // namespace
}  // namespace nibble::eval
