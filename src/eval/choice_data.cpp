#include "eval/choice_data.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "data/formats.h"
#include "data/table.h"

namespace nibble::eval {
namespace {

namespace fs = std::filesystem;

constexpr const char* kStem = "STEM";
constexpr const char* kHumanities = "humanities";
constexpr const char* kSocial = "social sciences";
constexpr const char* kOther = "other (business, health, misc.)";

// The categories of the original evaluation.
constexpr std::pair<std::string_view, const char*> kSubjects[] = {
    {"abstract_algebra", kStem},
    {"anatomy", kOther},
    {"astronomy", kStem},
    {"business_ethics", kOther},
    {"clinical_knowledge", kOther},
    {"college_biology", kStem},
    {"college_chemistry", kStem},
    {"college_computer_science", kStem},
    {"college_mathematics", kStem},
    {"college_medicine", kOther},
    {"college_physics", kStem},
    {"computer_security", kStem},
    {"conceptual_physics", kStem},
    {"econometrics", kSocial},
    {"electrical_engineering", kStem},
    {"elementary_mathematics", kStem},
    {"formal_logic", kHumanities},
    {"global_facts", kOther},
    {"high_school_biology", kStem},
    {"high_school_chemistry", kStem},
    {"high_school_computer_science", kStem},
    {"high_school_european_history", kHumanities},
    {"high_school_geography", kSocial},
    {"high_school_government_and_politics", kSocial},
    {"high_school_macroeconomics", kSocial},
    {"high_school_mathematics", kStem},
    {"high_school_microeconomics", kSocial},
    {"high_school_physics", kStem},
    {"high_school_psychology", kSocial},
    {"high_school_statistics", kStem},
    {"high_school_us_history", kHumanities},
    {"high_school_world_history", kHumanities},
    {"human_aging", kOther},
    {"human_sexuality", kSocial},
    {"international_law", kHumanities},
    {"jurisprudence", kHumanities},
    {"logical_fallacies", kHumanities},
    {"machine_learning", kStem},
    {"management", kOther},
    {"marketing", kOther},
    {"medical_genetics", kOther},
    {"miscellaneous", kOther},
    {"moral_disputes", kHumanities},
    {"moral_scenarios", kHumanities},
    {"nutrition", kOther},
    {"philosophy", kHumanities},
    {"prehistory", kHumanities},
    {"professional_accounting", kOther},
    {"professional_law", kHumanities},
    {"professional_medicine", kOther},
    {"professional_psychology", kSocial},
    {"public_relations", kSocial},
    {"security_studies", kSocial},
    {"sociology", kSocial},
    {"us_foreign_policy", kSocial},
    {"virology", kOther},
    {"world_religions", kHumanities},
};

std::vector<ChoiceQuestion> read_subject(const fs::path& path, int64_t limit) {
  std::vector<ChoiceQuestion> out;
  for (data::TableRow& row : data::parse_table(path.string(), data::read_text(path.string()), ',')) {
    if (limit > 0 && static_cast<int64_t>(out.size()) == limit) break;
    const std::string where = fmt::format("{}:{}", path.filename().string(), row.line);
    require(row.fields.size() == 6, where, "has {} fields; expected a question, four choices and a letter",
            row.fields.size());
    const std::string_view letter = trim(row.fields[5]);
    require(letter.size() == 1 && letter[0] >= 'A' && letter[0] <= 'D', where,
            "the answer is \"{}\"; expected A, B, C or D", row.fields[5]);
    ChoiceQuestion q;
    q.source = where;
    q.question = std::move(row.fields[0]);
    for (size_t i = 1; i <= 4; ++i) q.choices.push_back(std::move(row.fields[i]));
    q.answer = letter[0] - 'A';
    out.push_back(std::move(q));
  }
  require(!out.empty(), path.string(), "holds no question");
  return out;
}

std::vector<std::string> subjects_in(const fs::path& folder, const std::string& split) {
  std::vector<std::string> names;
  const std::string suffix = "_" + split + ".csv";
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder / split, none)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(suffix) && !name.starts_with("."))
      names.push_back(name.substr(0, name.size() - suffix.size()));
  }
  std::sort(names.begin(), names.end());
  return names;
}

bool wanted(const std::vector<std::string>& only, const std::string& name) {
  return only.empty() || std::find(only.begin(), only.end(), name) != only.end();
}

void require_known(const std::vector<std::string>& only, const std::vector<std::string>& known,
                   const std::string& path) {
  for (const std::string& name : only) {
    const std::string near = nearest_name(name, known);
    require(
        std::find(known.begin(), known.end(), name) != known.end(), path, "has no subject \"{}\"{}", name,
        near.empty() ? fmt::format("; it has {}", known.size()) : fmt::format("; did you mean {}?", near));
  }
}

ChoiceSubject& subject_named(std::vector<ChoiceSubject>& all, const std::string& name) {
  for (ChoiceSubject& s : all)
    if (s.name == name) return s;
  return all.emplace_back(ChoiceSubject{name, {}, {}});
}

const Json* member(const Json& record, std::initializer_list<const char*> keys) {
  for (const char* key : keys)
    if (record.contains(key) && !record[key].is_null()) return &record[key];
  return nullptr;
}

std::string text_of(const Json& value, const std::string& where, const char* what) {
  if (value.is_number()) return value.dump();
  require(value.is_string(), where, "{} should be text, got {}", what, value.type_name());
  return value.get<std::string>();
}

std::vector<std::string> texts_of(const Json& list, const std::string& where, const char* what) {
  require(list.is_array(), where, "{} should be a list, got {}", what, list.type_name());
  std::vector<std::string> out;
  for (const Json& one : list) out.push_back(text_of(one, where, what));
  return out;
}

ChoiceQuestion read_question(const Json& record, const std::string& where) {
  require(record.is_object(), where, "expected an object, got {}", record.type_name());
  ChoiceQuestion q;
  q.source = where;
  const Json* question = member(record, {"question", "input"});
  require(question != nullptr, where, "has no \"question\"");
  q.question = text_of(*question, where, "the question");
  std::vector<std::string> labels;
  if (const Json* choices = member(record, {"choices", "options"})) {
    if (choices->is_object() && choices->contains("text")) {  // ARC
      q.choices = texts_of((*choices)["text"], where, "\"choices.text\"");
      if (choices->contains("label")) labels = texts_of((*choices)["label"], where, "\"choices.label\"");
    } else {
      q.choices = texts_of(*choices, where, "\"choices\"");
    }
  } else {
    for (char c = 'A'; c <= 'Z' && record.contains(std::string(1, c)); ++c)
      q.choices.push_back(text_of(record[std::string(1, c)], where, "a choice"));
  }
  require(q.choices.size() >= 2 && q.choices.size() <= 26, where,
          "has {} choices; expected 2 to 26 under \"choices\", \"options\" or \"A\", \"B\", …",
          q.choices.size());
  require(labels.empty() || labels.size() == q.choices.size(), where, "has {} labels for {} choices",
          labels.size(), q.choices.size());

  const Json* answer = member(record, {"answer", "answerKey", "target", "label"});
  require(answer != nullptr, where, "has no \"answer\"");
  const auto count = static_cast<int64_t>(q.choices.size());
  int64_t index = -1;
  const std::string text(trim(text_of(*answer, where, "\"answer\"")));
  const auto find = [&](const std::vector<std::string>& list) {
    const auto it = std::find(list.begin(), list.end(), text);
    if (index < 0 && it != list.end()) index = it - list.begin();
  };
  if (answer->is_number_integer()) {
    const auto n = answer->get<int64_t>();
    index = n >= 0 && n < count ? n : -1;
  } else {
    find(labels);
    if (index < 0 && text.size() == 1 && text[0] >= 'A' && text[0] < 'A' + count) index = text[0] - 'A';
    find(q.choices);
    if (index < 0 && text.size() == 1 && text[0] >= '0' && text[0] < '0' + count) index = text[0] - '0';
  }
  require(index >= 0, where,
          "the answer \"{}\" is none of its {} choices; expected a letter from A to {}, an index from 0 or a "
          "choice's text",
          text, count, static_cast<char>('A' + count - 1));
  q.answer = index;
  return q;
}

std::string subject_of(const Json& record, const std::string& where) {
  const Json* name = record.is_object() ? member(record, {"subject"}) : nullptr;
  return name == nullptr ? "" : text_of(*name, where, "\"subject\"");
}

}  // namespace

std::optional<std::string_view> mmlu_category(std::string_view subject) {
  for (const auto& [name, category] : kSubjects)
    if (name == subject) return category;
  return std::nullopt;
}

std::vector<ChoiceSubject> read_mmlu(const std::string& folder, const std::string& split, int64_t shots,
                                     const std::vector<std::string>& only, int64_t limit) {
  const std::vector<std::string> known = subjects_in(folder, split);
  require(!known.empty(), folder,
          "has no {0}/<subject>_{0}.csv; give the folder with MMLU's dev, val and test", split);
  require_known(only, known, folder);
  std::vector<ChoiceSubject> subjects;
  for (const std::string& name : known) {
    if (!wanted(only, name)) continue;
    ChoiceSubject s;
    s.name = name;
    s.questions = read_subject(fs::path(folder) / split / fmt::format("{}_{}.csv", name, split), limit);
    if (shots > 0) {
      const fs::path dev = fs::path(folder) / "dev" / fmt::format("{}_dev.csv", name);
      s.shots = read_subject(dev, shots);
      require(static_cast<int64_t>(s.shots.size()) == shots, dev.string(),
              "holds {} solved questions, {} shots are asked for", s.shots.size(), shots);
    }
    subjects.push_back(std::move(s));
  }
  return subjects;
}

std::vector<ChoiceSubject> read_mmlu_prompts(const std::string& path, const std::vector<std::string>& only,
                                             int64_t limit) {
  const data::Records records = data::read_records(path);
  std::vector<ChoiceSubject> subjects;
  std::vector<std::string> known;
  for (size_t i = 0; i < records.records.size(); ++i) {
    const std::string& where = records.sources[i];
    const Json& r = records.records[i];
    require(r.is_object(), where, "expected an object, got {}", r.type_name());
    const std::string name = json_get<std::string>(r, "subject", where),
                      letter = json_get<std::string>(r, "output", where);
    require(letter.size() == 1 && letter[0] >= 'A' && letter[0] <= 'D', where,
            "the answer is \"{}\"; expected A, B, C or D", letter);
    if (known.empty() || known.back() != name) known.push_back(name);
    if (!wanted(only, name)) continue;
    std::vector<ChoiceQuestion>& questions = subject_named(subjects, name).questions;
    if (limit > 0 && static_cast<int64_t>(questions.size()) >= limit) continue;
    ChoiceQuestion q;
    q.source = where;
    q.prompt = json_get<std::string>(r, "input", where);
    require(!q.prompt.empty(), where, "\"input\" is empty");
    q.choices = {"A", "B", "C", "D"};
    q.answer = letter[0] - 'A';
    questions.push_back(std::move(q));
  }
  require_known(only, known, path);
  return subjects;
}

std::vector<ChoiceSubject> read_choices(const std::string& path, const std::string& shots_path, int64_t shots,
                                        int64_t limit) {
  std::vector<ChoiceSubject> subjects;
  const auto read = [&](const std::string& file, std::vector<ChoiceQuestion> ChoiceSubject::*part,
                        int64_t most) {
    const data::Records records = data::read_records(file);
    for (size_t i = 0; i < records.records.size(); ++i) {
      ChoiceSubject& s = subject_named(subjects, subject_of(records.records[i], records.sources[i]));
      if (most > 0 && static_cast<int64_t>((s.*part).size()) >= most) continue;
      (s.*part).push_back(read_question(records.records[i], records.sources[i]));
    }
  };
  read(path, &ChoiceSubject::questions, limit);
  if (shots_path.empty() || shots == 0) return subjects;
  const size_t count = subjects.size();
  read(shots_path, &ChoiceSubject::shots, shots);
  subjects.resize(count);  // shots of subjects nobody asks about
  for (const ChoiceSubject& s : subjects)
    require(static_cast<int64_t>(s.shots.size()) == shots, shots_path,
            "holds {} solved questions of subject \"{}\", {} shots are asked for", s.shots.size(), s.name,
            shots);
  return subjects;
}

}  // namespace nibble::eval
