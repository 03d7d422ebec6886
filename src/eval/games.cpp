#include "eval/games.h"

#include <algorithm>
#include <filesystem>
#include <tuple>

#include "base/error.h"
#include "data/formats.h"

namespace nibble::eval {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kVersus = "-vs-";

std::vector<std::string> files_of(const std::vector<std::string>& paths) {
  std::vector<std::string> files;
  for (const std::string& path : paths) {
    if (!fs::is_directory(path)) {
      files.push_back(path);
      continue;
    }
    std::vector<std::string> inside;
    for (const auto& entry : fs::directory_iterator(path)) {
      const std::string suffix = entry.path().extension().string();
      if (entry.is_regular_file() && (suffix == ".jsonl" || suffix == ".json"))
        inside.push_back(entry.path().string());
    }
    require(!inside.empty(), path, "holds no .jsonl or .json file of judgements");
    std::sort(inside.begin(), inside.end());
    files.insert(files.end(), inside.begin(), inside.end());
  }
  return files;
}

std::string stem_of(const std::string& file) { return fs::path(file).stem().string(); }

// "bard-vs-gpt4-gpt-4-reviewer": where the second name ends and the judge begins is known from the files that
// have it as the first name; without such a file the common ending of the reference is taken off.
std::pair<std::string, std::string> names_of(const std::string& file, const std::vector<std::string>& files) {
  const std::string stem = stem_of(file);
  const size_t versus = stem.find(kVersus);
  require(versus != std::string::npos && versus > 0, file,
          "its records name no systems, and the file is not named <first>-vs-<second>-<judge>.jsonl");
  const std::string first = stem.substr(0, versus), rest = stem.substr(versus + kVersus.size());
  std::string second;
  for (const std::string& other : files) {
    const std::string name = stem_of(other).substr(0, stem_of(other).find(kVersus));
    if ((rest == name || rest.starts_with(name + "-")) && name.size() > second.size()) second = name;
  }
  if (second.empty()) second = rest.substr(0, rest.find("-gpt-4-reviewer"));
  require(!second.empty(), file, "its name does not say who the second system is");
  return {first, second};
}

std::string item_of(const Json& record) {
  if (!record.contains("question_id")) return "";
  const Json& id = record["question_id"];
  return id.is_string() ? id.get<std::string>() : id.dump();
}

}  // namespace

Games read_games(const std::vector<std::string>& paths) {
  const std::vector<std::string> files = files_of(paths);
  Games out;
  for (const std::string& file : files) {
    const data::Records records = data::read_records(file);
    for (size_t i = 0; i < records.records.size(); ++i) {
      const Json& r = records.records[i];
      const std::string& where = records.sources[i];
      require(r.is_object(), where, "expected an object, got {}", r.type_name());
      Game game;
      game.item = item_of(r);
      if (r.contains("winner")) {
        game.first = json_get<std::string>(r, "model_a", where);
        game.second = json_get<std::string>(r, "model_b", where);
        if (r["winner"].is_null()) {
          ++out.invalid;
          continue;
        }
        const std::string winner = json_get<std::string>(r, "winner", where);
        require(winner == "model_a" || winner == "model_b" || winner.starts_with("tie"), where,
                "\"winner\" is \"{}\"; expected model_a, model_b or tie", winner);
        game.score = winner == "model_a" ? 1 : winner == "model_b" ? 0 : 0.5;
      } else {
        require(r.contains("score"), where,
                "has neither \"winner\" (with \"model_a\" and \"model_b\") nor \"score\"");
        const auto score = json_get<int64_t>(r, "score", where);
        require(score == -1 || (score >= 1 && score <= 3), where,
                "\"score\" is {}; expected 1 (the first), 2 (the second), 3 (tie) or -1 (invalid)", score);
        if (score == -1) {
          ++out.invalid;
          continue;
        }
        std::tie(game.first, game.second) = names_of(file, files);
        game.score = score == 1 ? 1 : score == 2 ? 0 : 0.5;
      }
      require(game.first != game.second, where, "{} is compared with itself", game.first);
      out.games.push_back(std::move(game));
    }
  }
  require(!out.games.empty(), paths.empty() ? "games" : paths[0], "holds no judgement with a verdict");
  return out;
}

}  // namespace nibble::eval
