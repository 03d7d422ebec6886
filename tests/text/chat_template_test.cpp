// Chat templates: text equal to Transformers' and provenance of every character. Goldens:
// goldens/make_chat_template.py.
#include "text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"

namespace nibble::text {
namespace {

using testing::HasSubstr;

const std::string kTemplates = NIBBLE_SOURCE_DIR "/tests/goldens/chat_template/";

const Json& goldens() {
  static const Json json = parse_json(read_file(kTemplates + "cases.json"), "cases.json");
  return json;
}

std::string template_source(const std::string& name) {
  return read_file(kTemplates + "templates/" + name + ".jinja");
}

ChatTemplate make(const std::string& source) {
  ChatTemplate t(source, goldens()["variables"]);
  t.set_clock(goldens()["clock"].get<int64_t>());
  return t;
}

Json chat(const std::string& name) { return goldens()["chats"][name]; }

std::string failure(const std::string& source, const Json& messages = Json::array(),
                    const Json& extra = Json::object()) {
  try {
    return "rendered: " + make(source).render(messages, false, extra).text;
  } catch (const Error& e) {
    return e.what();
  }
}

void expect_runs_cover(const RenderedChat& r) {
  size_t at = 0;
  for (const ProvenanceRun& run : r.runs) {
    ASSERT_EQ(run.begin, at);
    ASSERT_GT(run.end, run.begin);
    at = run.end;
  }
  ASSERT_EQ(at, r.text.size());
}

const ProvenanceRun& run_at(const RenderedChat& r, size_t at) {
  for (const ProvenanceRun& run : r.runs)
    if (at < run.end) return run;
  throw std::out_of_range("no run there");
}

TEST(ChatTemplate, PublishedTemplatesEqualTransformers) {
  std::map<std::string, int> rendered;
  for (const Json& c : goldens()["cases"]) {
    const auto name = c["template"].get<std::string>();
    SCOPED_TRACE(name + " / " + c["chat"].get<std::string>() + " / " + c["extra"].dump().substr(0, 20));
    const ChatTemplate t = make(template_source(name));
    if (c.contains("error")) {
      EXPECT_THROW(t.render(chat(c["chat"]), c["prompt"], c["extra"]), Error);
      continue;
    }
    const RenderedChat r = t.render(chat(c["chat"]), c["prompt"], c["extra"]);
    ASSERT_EQ(r.text, c["text"].get<std::string>());
    expect_runs_cover(r);
    ++rendered[name];
  }
  EXPECT_GE(rendered.size(), 20u);
  for (const auto& [name, count] : rendered) EXPECT_GE(count, 6) << name;
}

TEST(ChatTemplate, ConstructsEqualJinja) {
  for (const Json& c : goldens()["constructs"]) {
    const auto source = c["template"].get<std::string>();
    SCOPED_TRACE(source);
    if (c.contains("error")) {
      EXPECT_THROW(make(source).render(goldens()["construct_chat"], false), Error);
    } else {
      EXPECT_EQ(make(source).render(goldens()["construct_chat"], false).text, c["text"].get<std::string>());
    }
  }
}

// The contents of these chats are found once each in the text; what lies there must be known to come from
// them, and nothing else may claim to.
TEST(ChatTemplate, ContentsKnowTheirMessageInEveryTemplate) {
  std::map<std::string, int> checked;
  for (const Json& c : goldens()["cases"]) {
    if (c.contains("error") || !(c["chat"] == "turns" || c["chat"] == "system" || c["chat"] == "open"))
      continue;
    const auto name = c["template"].get<std::string>();
    SCOPED_TRACE(name + " / " + c["chat"].get<std::string>());
    const Json messages = chat(c["chat"]);
    const RenderedChat r = make(template_source(name)).render(messages, c["prompt"], c["extra"]);
    std::set<size_t> of_messages;
    for (int i = 0; i < static_cast<int>(messages.size()); ++i) {
      auto content = messages[static_cast<size_t>(i)]["content"].get<std::string>();
      content = content.substr(content.find_first_not_of(" \n"),
                               content.find_last_not_of(" \n") + 1 - content.find_first_not_of(" \n"));
      if (content.starts_with("<think>")) content = "reply 1";  // some templates drop earlier reasoning
      if (content.starts_with("Rules")) content = "Rules";      // and switches in the system message
      const size_t at = r.text.find(content);
      if (at == std::string::npos) {
        EXPECT_EQ(i, 0) << content;  // only a system message may be left out
        continue;
      }
      for (size_t k = at; k < at + content.size(); ++k) {
        const ProvenanceRun& run = run_at(r, k);
        ASSERT_EQ(run.origin, Origin::kMessage) << content;
        ASSERT_EQ(run.message, i);
        ASSERT_EQ(run.turn, i);
      }
      ++checked[name];
      if (messages[static_cast<size_t>(i)]["role"] == "assistant" && at + content.size() < r.text.size()) {
        size_t after = at + content.size();
        while (after < r.text.size() && run_at(r, after).origin == Origin::kMessage)
          ++after;  // white space of the content
        // GLM has no token for the end of a turn: the next role's token is it.
        if (after == r.text.size() || name == "glm-5.1") continue;
        EXPECT_EQ(run_at(r, after).turn, i) << "the end of the turn";
      }
    }
    for (const ProvenanceRun& run : r.runs) {
      if (run.origin != Origin::kMessage) continue;
      const auto content = messages[static_cast<size_t>(run.message)]["content"].get<std::string>();
      EXPECT_THAT(content, HasSubstr(r.text.substr(run.begin, run.end - run.begin)));
    }
  }
  EXPECT_GE(checked.size(), 20u);
}

TEST(ChatTemplate, RunsOfSmolLm2) {
  const RenderedChat r = make(template_source("smollm2")).render(chat("turns"), true);
  struct Expected {
    std::string text;
    Origin origin;
    int message, turn;
  };
  const std::vector<Expected> expected = {
      {"<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
       "Face<|im_end|>\n<|im_start|>",
       Origin::kTemplate, -1, 0},
      {"user", Origin::kRole, 0, 0},
      {"\n", Origin::kTemplate, -1, 0},
      {"alpha", Origin::kMessage, 0, 0},
      {"<|im_end|>\n", Origin::kTemplate, -1, 0},
      {"<|im_start|>", Origin::kTemplate, -1, 1},
      {"assistant", Origin::kRole, 1, 1},
      {"\n", Origin::kTemplate, -1, 1},
      {"beta", Origin::kMessage, 1, 1},
      {"<|im_end|>\n", Origin::kTemplate, -1, 1},
      {"<|im_start|>", Origin::kTemplate, -1, 2},
      {"user", Origin::kRole, 2, 2},
      {"\n", Origin::kTemplate, -1, 2},
      {"gamma", Origin::kMessage, 2, 2},
      {"<|im_end|>\n", Origin::kTemplate, -1, 2},
      {"<|im_start|>", Origin::kTemplate, -1, 3},
      {"assistant", Origin::kRole, 3, 3},
      {"\n", Origin::kTemplate, -1, 3},
      {"delta <|im_end|> {{ x }}", Origin::kMessage, 3, 3},
      {"<|im_end|>\n", Origin::kTemplate, -1, 3},
      {"<|im_start|>assistant\n", Origin::kTemplate, -1, -1},
  };
  ASSERT_EQ(r.runs.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(r.text.substr(r.runs[i].begin, r.runs[i].end - r.runs[i].begin), expected[i].text);
    EXPECT_EQ(r.runs[i].origin, expected[i].origin) << i;
    EXPECT_EQ(r.runs[i].message, expected[i].message) << i;
    EXPECT_EQ(r.runs[i].turn, expected[i].turn) << i;
    EXPECT_FALSE(r.runs[i].generation);
  }
  EXPECT_FALSE(r.has_generation_blocks);
}

TEST(ChatTemplate, ProvenanceSurvivesStringOperations) {
  const Json messages = {{{"role", "user"}, {"content", " one, Two é "}}};
  const char* expressions[] = {
      "messages[0].content | trim",
      "messages[0].content[1:-1]",
      "messages[0].content.split(',') | join(';')",
      "messages[0].content.replace('one', 'X')",
      "messages[0].content | upper",
      "messages[0].content | title",
      "messages[0].content | tojson",
      "[messages[0].content] | string",
      "'%s' % messages[0].content",
      "'{}'.format(messages[0].content)",
      "messages[0].content | e",
      "messages[0].content[::-1]",
      "messages[0].content | indent",
      "messages[0] | tojson",
      "(messages[0].content ~ 'a').rstrip('a')",
      "messages[0].content.partition(',')[2]",
  };
  for (const char* expression : expressions) {
    SCOPED_TRACE(expression);
    const RenderedChat r = make("{% for m in messages %}<{{ " + std::string(expression) + " }}>{% endfor %}")
                               .render(messages, false);
    expect_runs_cover(r);
    std::string of_message, of_template;
    for (const ProvenanceRun& run : r.runs) {
      (run.message == 0 ? of_message : of_template) += r.text.substr(run.begin, run.end - run.begin);
      EXPECT_EQ(run.turn, 0);
    }
    for (const char c : std::string("<>;X")) EXPECT_EQ(of_message.find(c), std::string::npos) << of_message;
    EXPECT_EQ(of_template.find_first_not_of("<>;X '[]"), std::string::npos) << of_template;
    EXPECT_GT(of_message.size(), 4u);
  }
}

TEST(ChatTemplate, TurnFollowsTheMessageNotThePlaceInTheLoop) {
  const Json messages = chat("turns");
  const char* loops[] = {
      "{% set rest = messages[1:] %}{% for m in rest %}[{{ m.content }}]{% endfor %}",
      "{% for m in messages | reverse %}[{{ m.content }}]{% endfor %}",
      "{% for i in range(messages | length) %}{% set m = messages[i] %}[{{ m.content }}]{% endfor %}",
      "{% for i in range(messages | length) %}{{ '[' + messages[i].content + ']' }}{% endfor %}",
      "{% macro say(x) %}[{{ x.content }}]{% endmacro %}{% for m in messages if m.role == 'assistant' %}{{ "
      "say(m) }}{% endfor %}",
      "{% for m in messages %}{% set text %}[{{ m.content }}]{% endset %}{{ text }}{% endfor %}",
      "{% for m in messages %}{% for part in [m.content] %}[{{ part }}]{% endfor %}{% endfor %}",
  };
  for (const char* loop : loops) {
    SCOPED_TRACE(loop);
    const RenderedChat r = make(loop).render(messages, false);
    int seen = 0;
    for (size_t k = 0; k < r.runs.size(); ++k) {
      if (r.runs[k].origin != Origin::kMessage) continue;
      ++seen;
      ASSERT_GT(k, 0u);
      EXPECT_EQ(r.runs[k].turn, r.runs[k].message);
      EXPECT_EQ(r.runs[k - 1].turn, r.runs[k].message);
      EXPECT_EQ(r.runs[k + 1].turn, r.runs[k].message);
    }
    EXPECT_GE(seen, 2);
  }
}

TEST(ChatTemplate, GenerationBlocksAreMarked) {
  const RenderedChat r = make(template_source("own-tools")).render(chat("turns"), false);
  EXPECT_TRUE(r.has_generation_blocks);
  for (const ProvenanceRun& run : r.runs)
    EXPECT_EQ(run.generation, run.origin == Origin::kMessage)
        << r.text.substr(run.begin, run.end - run.begin);
}

TEST(ChatTemplate, OriginsOfRolesToolsAndVariables) {
  const Json extra = {{"tools", {{{"name", "t"}}}}, {"note", "n"}};
  const RenderedChat r = make(
                             "{{ bos_token }}{{ messages[0].role }}{{ tools[0].name }}{{ note }}{{ "
                             "messages[0].calls[0] | tojson }}")
                             .render(Json{{{"role", "user"}, {"calls", {{{"a", 1.5}}}}}}, false, extra);
  EXPECT_EQ(r.text, "<s>usertn{\"a\": 1.5}");
  ASSERT_EQ(r.runs.size(), 4u);
  EXPECT_EQ(r.runs[0].origin, Origin::kTemplate);
  EXPECT_EQ(r.runs[1].origin, Origin::kRole);
  EXPECT_EQ(r.runs[1].message, 0);
  EXPECT_EQ(r.runs[2].origin, Origin::kOther);
  EXPECT_EQ(r.runs[3].origin, Origin::kMessage);
}

TEST(ChatTemplate, ErrorsNameLineAndConstruct) {
  EXPECT_EQ(failure("a\n{% include 'x' %}"),
            "[chat template] line 2: the tag {% include %} is not supported");
  EXPECT_EQ(failure("\n\n{{ 'a' | urlize }}"),
            "[chat template] line 3: the filter 'urlize' is not supported");
  EXPECT_EQ(failure("{{ 1 is wet }}"), "[chat template] line 1: the test 'wet' is not supported");
  EXPECT_EQ(failure("{% for a in b recursive %}{% endfor %}"),
            "[chat template] line 1: recursive loops are not supported");
  EXPECT_EQ(failure("{% if true %}\n\nx"), "[chat template] line 1: {% if %} is not closed by {% endif %}");
  EXPECT_THAT(failure("{{ messages[0].a.b }}", chat("one")),
              HasSubstr("line 1: 'a' is undefined, so it has no 'b'"));
  EXPECT_THAT(failure("{{ raise_exception('no system role') }}"),
              HasSubstr("the template refuses these messages: no system role"));
  EXPECT_THAT(failure("{{ 'x' + 1 }}"), HasSubstr("cannot compute str + int"));
  EXPECT_THAT(failure("{{ [1].append(2) }}"), HasSubstr("list.append() changes its object"));
  EXPECT_THAT(failure("{{ 'a"), HasSubstr("a string is not closed"));
  EXPECT_THAT(failure("{{ 1 "), HasSubstr("a tag is not closed by }}"));
  EXPECT_THAT(failure("{# x"), HasSubstr("a comment {# is not closed"));
  EXPECT_THAT(failure("{% raw %} x"), HasSubstr("is not closed by {% endraw %}"));
  EXPECT_THAT(failure("{% break %}"), HasSubstr("{% break %} outside a loop"));
  EXPECT_THAT(failure("\xff"), HasSubstr("not valid UTF-8 at byte 0"));
  EXPECT_THAT(failure("{{ 9223372036854775807 + 1 }}"), HasSubstr("does not fit in 64 bits"));
  EXPECT_THAT(failure("{{ messages }}", Json::object()), HasSubstr("messages should be a list, got object"));
  EXPECT_THAT(failure("{{ n }}", Json::array(), Json{{"n", UINT64_MAX}}),
              HasSubstr("does not fit in 64 bits"));
}

std::string repeat(const std::string& what, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += what;
  return out;
}

TEST(ChatTemplate, LimitsHold) {
  const std::string loops = repeat("{% for i in range(99999) %}", 6) + "x" + repeat("{% endfor %}", 6);
  EXPECT_THAT(failure(loops), HasSubstr("1,000,000 steps"));
  EXPECT_THAT(
      failure("{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}"),
      HasSubstr("16 MiB"));
  EXPECT_THAT(failure("{{ 'ab' * 99999999999 }}"), HasSubstr("16 MiB"));
  EXPECT_THAT(failure("{{ [1] * 99999999999 }}"), HasSubstr("steps"));
  EXPECT_THAT(failure("{{ 'a'.ljust(99999999999) }}"), HasSubstr("16 MiB"));
  EXPECT_THAT(failure("{{ range(999999999) }}"), HasSubstr("range() of more than 100000"));
  EXPECT_THAT(
      failure("{% set n = namespace(l=[1]) %}{% for i in range(60) %}{% set n.l = n.l + n.l %}{% endfor %}"),
      HasSubstr("steps"));
  EXPECT_THAT(failure("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"), HasSubstr("100 levels deep"));
  EXPECT_THAT(failure("{{ " + repeat("(", 5000) + "1" + repeat(")", 5000) + " }}"),
              HasSubstr("nested more than 100 levels"));
  EXPECT_THAT(failure("{{ " + repeat("not ", 50000) + "1 }}"), HasSubstr("nested more than 100 levels"));
  EXPECT_THAT(failure("{{ " + repeat("-", 50000) + "1 }}"), HasSubstr("nested more than 100 levels"));
  EXPECT_THAT(failure(repeat("{% if 1 %}", 500)), HasSubstr("nested more than 100 levels"));
  EXPECT_THAT(failure("{{ 1" + repeat(" + 1", 50000) + " }}"), HasSubstr("nested too deeply"));
  EXPECT_THAT(failure("{{ x" + repeat(".a", 50000) + " }}"), HasSubstr("nested too deeply"));
  EXPECT_EQ(failure("{{ 'a'" + repeat(" | upper", 50000) + " }}"), "rendered: A");
  EXPECT_THAT(failure("{% set n = namespace(l=[]) %}{% for i in range(2000) %}{% set n.l = [n.l] %}{% endfor "
                      "%}{{ n.l }}"),
              HasSubstr("more than 100 levels"));
  EXPECT_THAT(failure("{% set n = namespace() %}{% set n.n = n %}{{ n.n.n | tojson }}"),
              HasSubstr("Namespace cannot be written as JSON"));
  // Patterns that make a plain search quadratic end in time.
  EXPECT_EQ(failure("{% set a = 'a' * 4000000 %}{{ (a ~ 'b') in (a ~ a) }}"), "rendered: False");
}

TEST(ChatTemplate, ClockOfTheCallerIsUsed) {
  ChatTemplate t("{{ strftime_now('%Y-%m-%d %H:%M') }}", Json::object());
  t.set_clock(86400);
  EXPECT_EQ(t.render(Json::array(), false).text, "1970-01-02 00:00");
}

}  // namespace
}  // namespace nibble::text
