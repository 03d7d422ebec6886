// nibble tokenize: ids and pieces of a text with a model's tokenizer, and back.
#include <charconv>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "text/tokenizer.h"

namespace nibble::cli {
namespace {

// Lines without their ends; the last one need not have one.
std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    lines.push_back(text.substr(at, end - at));
    if (lines.back().ends_with('\r')) lines.back().pop_back();
    at = end + 1;
  }
  return lines;
}

// Numbers between spaces, commas, line ends and brackets.
std::vector<int32_t> parse_ids(const std::string& text, const std::string& where) {
  constexpr const char* kBetween = " \t\r\n,[]";
  std::vector<int32_t> ids;
  for (size_t at = text.find_first_not_of(kBetween); at != std::string::npos;) {
    const size_t end = std::min(text.find_first_of(kBetween, at), text.size());
    int32_t id = 0;
    const auto [stop, error] = std::from_chars(text.data() + at, text.data() + end, id);
    require(error == std::errc() && stop == text.data() + end, where, "\"{}\" is no token id",
            replace_invalid_utf8(text.substr(at, std::min<size_t>(end - at, 40))));
    ids.push_back(id);
    at = text.find_first_not_of(kBetween, end);
  }
  return ids;
}

struct Encoded {
  std::vector<int32_t> ids;
  std::vector<std::string> pieces;
};

Encoded encode(const text::Tokenizer& tokenizer, const std::string& text, bool special) {
  Encoded out;
  out.ids = tokenizer.encode(text, {.add_special = special});
  for (const int32_t id : out.ids) out.pieces.push_back(tokenizer.piece(id));
  return out;
}

void print_plain(const Encoded& encoded) {
  std::string out;
  for (size_t i = 0; i < encoded.ids.size(); ++i)
    out += fmt::format("{}\t{}\n", encoded.ids[i],
                       Json(encoded.pieces[i]).dump(-1, ' ', false, Json::error_handler_t::replace));
  print(out);
}

int decode(const text::Tokenizer& tokenizer, const std::string& source, const std::string& where,
           bool special, bool json) {
  const auto ids = parse_ids(source, where);
  for (const int32_t id : ids) (void)tokenizer.piece(id);  // an id outside the vocabulary is an error here
  const std::string text = tokenizer.decode(ids, !special);
  if (json) {
    print_json(Json{{"text", text}});
  } else {
    print(text + "\n");
  }
  return 0;
}

}  // namespace

int run_tokenize(const Arguments& arguments) {
  std::string model, tokenizer_path;
  std::optional<std::string> text, file, lines, ids, ids_file;
  bool no_special = false, json = false;
  Options cli("tokenize", "Ids and pieces of a text with a model's tokenizer, and back.",
              "nibble tokenize --model SmolLM2-135M-Instruct.gguf --text \"Hello world\"");
  cli.add("--model PATH", model, "directory with a tokenizer, a tokenizer's file, .gguf or .bin");
  cli.add("--tokenizer PATH", tokenizer_path, "tokenizer, when it is not beside the weights");
  cli.add("--text TEXT", text, "the text");
  cli.add("--file FILE", file, "a file; all of it is one text");
  cli.add("--lines FILE", lines, "a file; each line is a text of its own, without its line end");
  cli.add("--decode IDS", ids, "ids to turn into text: \"1 2 3\"");
  cli.add("--decode-file FILE", ids_file, "the same from a file");
  cli.flag("--no-special", no_special, "do not add BOS or EOS; with --decode, leave special tokens out");
  cli.flag("--json", json, "one JSON document");
  cli.footer(
      "Without --json: a line with id and piece for each token, and an empty line after each text of "
      "--lines.\n"
      "JSON: {\"ids\": […], \"pieces\": […]}, a list of them for --lines, {\"text\": …} for --decode.");
  if (!cli.parse(arguments)) return 0;
  if (model.empty() && tokenizer_path.empty())
    throw UsageError("tokenize", "give --model PATH (or --tokenizer PATH)");
  if (text.has_value() + file.has_value() + lines.has_value() + ids.has_value() + ids_file.has_value() != 1)
    throw UsageError("tokenize", "give one of --text, --file, --lines, --decode and --decode-file");

  const auto tokenizer = text::load_tokenizer(tokenizer_path.empty() ? model : tokenizer_path);
  if (ids) return decode(*tokenizer, *ids, "--decode", !no_special, json);
  if (ids_file) return decode(*tokenizer, read_file(*ids_file), *ids_file, !no_special, json);
  if (lines) {
    Json list = Json::array();
    for (const std::string& line : lines_of(read_file(*lines))) {
      const Encoded encoded = encode(*tokenizer, line, !no_special);
      if (json) {
        list.push_back(Json{{"ids", encoded.ids}, {"pieces", encoded.pieces}});
      } else {
        print_plain(encoded);
        print("\n");
      }
    }
    if (json) print_json(list);
    return 0;
  }
  const Encoded encoded = encode(*tokenizer, file ? read_file(*file) : *text, !no_special);
  if (json) {
    print_json(Json{{"ids", encoded.ids}, {"pieces", encoded.pieces}});
  } else {
    print_plain(encoded);
  }
  return 0;
}

}  // namespace nibble::cli
