#include "study/spec.h"

#include <gmock/gmock.h>

#include "base/error.h"

namespace nibble::study {
namespace {

using testing::HasSubstr;

const std::string kGood = R"(
study: small
models: [{name: tiny, path: "${where}/tiny", dtype: f32}]
variants: [{name: a, quantize: nf4}, {name: b, quantize: none, target_modules: [q_proj, v_proj]}]
measures: [{kind: ppl, file: text.txt, documents: 3}]
needs: {where: a directory}
)";

TEST(StudySpec, ReadsWhatItSays) {
  const Spec spec = parse_spec(kGood, "small.yaml", {{"where", "/models"}});
  EXPECT_EQ(spec.name, "small");
  EXPECT_EQ(spec.models.at(0).keys.back(), (std::pair<std::string, std::string>("model", "/models/tiny")));
  EXPECT_EQ(spec.variants.at(1).keys.at(1).second, "[q_proj, v_proj]");
  EXPECT_EQ(spec.measures.at(0).options["documents"], 3);
  EXPECT_EQ(spec.baseline, "a");
  EXPECT_FALSE(spec.trains);
}

std::string message(std::string yaml, const std::string& from, const std::string& to,
                    const Given& given = {{"where", "x"}}) {
  yaml.replace(yaml.find(from), from.size(), to);
  try {
    parse_spec(yaml, "small.yaml", given);
  } catch (const UsageError& e) {
    return e.what();
  }
  return "no error";
}

TEST(StudySpec, SaysWhatIsWrong) {
  EXPECT_THAT(message(kGood, "variants:", "variant:"),
              HasSubstr("unknown key \"variant\" in the study; did you mean \"variants\"?"));
  EXPECT_THAT(message(kGood, "quantize: nf4", "quantise: nf4"),
              HasSubstr("unknown key \"quantise\" in variants \"a\"; did you mean \"quantize\"?"));
  EXPECT_THAT(message(kGood, "name: b", "name: a"), HasSubstr("variants has two entries named \"a\""));
  EXPECT_THAT(message(kGood, "kind: ppl, ", ""), HasSubstr("each entry of measures needs a kind"));
  EXPECT_THAT(message(kGood, "study: small", "study: a b"), HasSubstr("a short name"));
  EXPECT_THAT(message(kGood, "study: small", "study: small\nseeds: [1]"), HasSubstr("add `train:`"));
  EXPECT_THAT(message(kGood, "study: small", "study: small\nbaseline: c"),
              HasSubstr("baseline \"c\" is no variant"));
  EXPECT_THAT(message(kGood, "name: b, ", "name: b, train: maybe, "),
              HasSubstr("train of variants \"b\" should be true or false"));
  EXPECT_THAT(message(kGood, "study: small", "study: [small"), HasSubstr("small.yaml:"));
  EXPECT_THAT(message(kGood, "a directory", "a directory", {}), HasSubstr("needs where=…: a directory"));
  EXPECT_THAT(message(kGood, "a directory", "a directory", {{"where", "x"}, {"were", "y"}}),
              HasSubstr("unknown key \"were\" in key=value; did you mean \"where\"?"));
  EXPECT_THAT(message(kGood, "${where}", "${here}"), HasSubstr("${here} is not among `needs`"));
}

}  // namespace
}  // namespace nibble::study
