// nibble study: a grid of trainings and measurements, and the table that comes of it.
#include "backend/kernel_slot.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/parallel.h"
#include "base/process.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "study/table.h"

namespace nibble::cli {

int run_study(const Arguments& arguments) {
  std::vector<std::string> words;
  std::string out;
  int64_t threads = 0;
  bool json = false;
  Options options(
      "study",
      "Runs a grid of models, data types, data sets and seeds, and writes its table as text, "
      "CSV, JSON, Markdown, LaTeX and "
      "one HTML page.",
      "nibble study recipes/studies/data-types.yaml stories=stories260K.bin text=tinystories.json");
  options.add("study STUDY.yaml [key=value…]", words, "the study (docs/studies.md), and the files it needs");
  options.add("--out DIR", out,
              "where results go (default: studies/NAME); the same command goes on where it was stopped");
  options.add("--threads N", threads, "threads; 0 is one per processor");
  options.flag("--json", json, "one JSON document instead of the table");
  options.footer(
      "JSON: {\"study\", \"rows\": [{\"variant\", \"values\": {COLUMN: {\"mean\", \"half_width_95\", "
      "\"count\"}}}], \"differences\", \"failures\"}");
  if (!options.parse(arguments)) return 0;
  set_threads(static_cast<int>(threads));
  backend::register_cpu_kernels();
  catch_interrupts();
  std::string file;
  study::Given given;
  for (const std::string& word : words) {
    const size_t equals = word.find('=');
    if (equals != std::string::npos && equals > 0)
      given[word.substr(0, equals)] = word.substr(equals + 1);
    else if (file.empty())
      file = word;
    else
      throw UsageError("study", fmt::format("two studies, {} and {}; there is one at a time", file, word));
  }
  if (file.empty()) throw UsageError("study", "give a study: nibble study STUDY.yaml [key=value…]");
  const study::Spec spec = study::read_spec(file, given);
  if (out.empty()) out = "studies/" + spec.name;
  const study::StudyResults results =
      study::run_study(spec, {.out = out, .progress = [](const std::string& line) { log_info("{}", line); }});
  const study::Table table = study::make_table(spec, results);
  const Json document = study::as_json(spec, table, results);
  write_file_atomic(out + "/table.txt", study::as_text(spec, table));
  write_file_atomic(out + "/table.md", study::as_markdown(spec, table));
  write_file_atomic(out + "/table.csv", study::as_csv(table));
  write_file_atomic(out + "/table.tex", study::as_latex(spec, table));
  write_file_atomic(out + "/table.json", document.dump(2) + "\n");
  write_file_atomic(out + "/index.html", study::as_html(spec, table, results));
  if (json)
    print_json(document);
  else
    print(study::as_text(spec, table) + fmt::format("\n{}/index.html has the plots\n", out));
  return results.failed == 0 ? 0 : 1;
}

}  // namespace nibble::cli
