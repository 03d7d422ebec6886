#include <CLI/CLI.hpp>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "base/error.h"
#include "base/json.h"
#include "base/parallel.h"
#include "base/process.h"
#include "base/text.h"
#include "cli/command.h"
#include "quant/format.h"

namespace nibble::cli {
namespace {

int64_t to_integer(const std::string& name, const std::string& text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    throw UsageError(name, fmt::format("expected a whole number, got '{}'", text));
  return value;
}

double to_number(const std::string& name, const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    throw UsageError(name, fmt::format("expected a number, got '{}'", text));
  return value;
}

// `text` in lines of at most `width` columns, those after the first indented.
std::string wrap(const std::string& text, size_t indent, size_t width) {
  std::string out;
  size_t column = indent;
  for (const std::string& word : split(text, ' ')) {
    if (column > indent && column + 1 + word.size() > width) {
      out += "\n" + std::string(indent, ' ');
      column = indent;
    } else if (column > indent) {
      out += ' ';
      ++column;
    }
    out += word;
    column += word.size();
  }
  return out;
}

struct Row {
  std::string names, shown, help, initial;
  bool required = false, takes_value = true;
};

}  // namespace

struct Options::Impl {
  std::string command, description, example, footer;
  CLI::App app;
  std::vector<Row> rows;
  std::vector<std::pair<std::string, std::string*>> required;

  // "--model PATH" → names for CLI11 and the placeholder for the help.
  Row& row(const std::string& spelled, const std::string& placeholder, const std::string& help,
           const std::string& initial) {
    Row r;
    const size_t space = spelled.find(' ');
    r.names = spelled.substr(0, space);
    r.help = help;
    r.initial = initial;
    const std::string value = space == std::string::npos ? placeholder : spelled.substr(space + 1);
    for (const std::string& name : split(r.names, ',')) {
      if (!r.shown.empty()) r.shown += ", ";
      r.shown += name.starts_with('!') ? name.substr(1) : name;
    }
    if (!value.empty() && r.names.starts_with('-')) r.shown += " " + value;
    if (!r.names.starts_with('-') && space != std::string::npos) r.shown = value;
    r.takes_value = !placeholder.empty();
    rows.push_back(std::move(r));
    return rows.back();
  }
  std::string first_name(const std::string& names) const {
    return names.substr(0, names.find_first_of(", "));
  }

  // One value, converted by `set`, which throws UsageError.
  template <class F>
  void option(const std::string& spelled, const std::string& placeholder, const std::string& help,
              const std::string& initial, F set) {
    const std::string names = row(spelled, placeholder, help, initial).names;
    app.add_option_function<std::string>(names, set, help)->take_last();
  }
  void flag(const std::string& names, const std::string& help, const std::string& initial,
            const std::function<void(int64_t)>& set) {
    row(names, "", help, initial);
    app.add_flag_function(names, set, help)->disable_flag_override();
  }
  std::string usage() const;
  std::string help_text() const;
  std::vector<std::string> known_names() const;
};

std::string Options::Impl::usage() const {
  std::string line = "Usage: nibble " + command;
  for (const Row& r : rows)
    if (!r.names.starts_with('-')) line += r.required ? " " + r.shown : " [" + r.shown + "]";
  return line + " [OPTIONS]\n";
}

std::string Options::Impl::help_text() const {
  constexpr size_t kIndent = 30, kWidth = 110;
  std::string text = usage() + "\n" + wrap(description, 0, kWidth) + "\n\nOptions:\n";
  auto line = [&](const std::string& shown, const std::string& help) {
    text += "  " + shown;
    if (shown.size() + 3 > kIndent)
      text += "\n" + std::string(kIndent, ' ');
    else
      text += std::string(kIndent - 2 - shown.size(), ' ');
    text += wrap(help, kIndent, kWidth) + "\n";
  };
  for (const Row& r : rows)
    line(r.shown, r.help + (r.required          ? " (required)"
                            : r.initial.empty() ? ""
                                                : fmt::format(" (default: {})", r.initial)));
  line("-h, --help", "this text");
  if (!footer.empty()) text += "\n" + footer + (footer.back() == '\n' ? "" : "\n");
  return text + "\nExample:\n  " + example + "\n";
}

std::vector<std::string> Options::Impl::known_names() const {
  std::vector<std::string> names{"--help"};
  for (const Row& r : rows)
    for (const std::string& name : split(r.names, ','))
      if (name.find('-') < 2) names.push_back(name.starts_with('!') ? name.substr(1) : name);
  return names;
}

Options::Options(std::string command, std::string description, std::string example)
    : impl_(std::make_unique<Impl>()) {
  impl_->command = std::move(command);
  impl_->description = std::move(description);
  impl_->example = std::move(example);
  impl_->app.set_help_flag("-h,--help", "");
  impl_->app.allow_extras();  // so that parse() can name them itself
}
Options::~Options() = default;

void Options::add(const std::string& names, std::string& value, const std::string& help, bool required) {
  impl_->option(names, "TEXT", help, value, [&value](const std::string& text) { value = text; });
  impl_->rows.back().required = required;
  if (required) impl_->required.emplace_back(impl_->rows.back().names, &value);
}
void Options::add(const std::string& names, int64_t& value, const std::string& help) {
  impl_->option(
      names, "N", help, std::to_string(value),
      [&value, name = impl_->first_name(names)](const std::string& text) { value = to_integer(name, text); });
}
void Options::add(const std::string& names, double& value, const std::string& help) {
  impl_->option(
      names, "X", help, fmt::format("{}", value),
      [&value, name = impl_->first_name(names)](const std::string& text) { value = to_number(name, text); });
}
void Options::add(const std::string& names, std::vector<std::string>& values, const std::string& help) {
  const std::string cli_names = impl_->row(names, "TEXT", help, "").names;
  CLI::Option* option = impl_->app.add_option_function<std::vector<std::string>>(
      cli_names, [&values](const std::vector<std::string>& given) { values = given; }, help);
  if (cli_names.starts_with('-')) option->allow_extra_args(false);  // one value each time it is given
}
void Options::add(const std::string& names, std::optional<int64_t>& value, const std::string& help) {
  impl_->option(
      names, "N", help, value ? std::to_string(*value) : "",
      [&value, name = impl_->first_name(names)](const std::string& text) { value = to_integer(name, text); });
}
void Options::add(const std::string& names, std::optional<double>& value, const std::string& help) {
  impl_->option(
      names, "X", help, value ? fmt::format("{}", *value) : "",
      [&value, name = impl_->first_name(names)](const std::string& text) { value = to_number(name, text); });
}
void Options::add(const std::string& names, std::optional<std::string>& value, const std::string& help) {
  impl_->option(names, "TEXT", help, value.value_or(""), [&value](const std::string& text) { value = text; });
}

void Options::flag(const std::string& names, bool& value, const std::string& help) {
  impl_->flag(names, help, value ? "on" : "", [&value](int64_t count) { value = count > 0; });
}
void Options::flag(const std::string& names, std::optional<bool>& value, const std::string& help) {
  impl_->flag(names, help,
              !value   ? ""
              : *value ? "on"
                       : "off",
              [&value](int64_t count) { value = count > 0; });
}

void Options::footer(const std::string& text) { impl_->footer = text; }

bool Options::parse(const std::vector<std::string>& arguments) {
  const std::string where = impl_->command;
  const std::string hint = fmt::format("`nibble {} --help` shows the options", where);
  const std::vector<std::string> known = impl_->known_names();
  std::vector<std::string> reversed;  // CLI11 pops from the back
  for (const std::string& argument : arguments) {
    reversed.push_back(argument);
    if (argument.starts_with("--") &&
        argument.ends_with('=')) {  // CLI11 would take the next word as its value
      reversed.back().pop_back();
      reversed.emplace_back();
    }
  }
  std::reverse(reversed.begin(), reversed.end());
  try {
    impl_->app.parse(reversed);
  } catch (const CLI::CallForHelp&) {
    print(impl_->help_text());
    return false;
  } catch (const CLI::ArgumentMismatch& e) {
    const std::string what = e.what();
    if (what.find("missing") != std::string::npos)
      throw UsageError(where, fmt::format("{} needs a value; {}", what.substr(0, what.find(':')), hint));
    throw UsageError(where, fmt::format("--{} takes no value; {}", what.substr(0, what.find(' ')), hint));
  } catch (const CLI::ParseError& e) {
    throw UsageError(where, fmt::format("{}; {}", e.what(), hint));
  }
  for (const std::string& extra : impl_->app.remaining()) {
    if (!extra.starts_with('-') || extra == "-")
      throw UsageError(where, fmt::format("unexpected argument '{}'; {}", extra, hint));
    const std::string name = extra.substr(0, extra.find('=')), nearest = nearest_name(name, known);
    throw UsageError(where,
                     fmt::format("unknown option {}{} {}", name,
                                 nearest.empty() ? ";" : fmt::format("; did you mean {}?", nearest), hint));
  }
  for (const auto& [name, value] : impl_->required)
    if (value->empty()) throw UsageError(where, fmt::format("{} is required; {}", name, hint));
  return true;
}

void ModelOptions::declare(Options& options, bool with_adapter) {
  options.add("--model PATH", model, "model: a directory, .gguf, .safetensors or llama2.c .bin", true);
  options.add("--tokenizer PATH", tokenizer, "tokenizer, when it is not beside the weights");
  if (with_adapter) options.add("--adapter DIR", adapter, "LoRA adapter in PEFT's format");
  std::string names;
  for (const quant::Format& f : quant::formats()) names += std::string(f.name) + " ";
  options.add("--quantize FORMAT", quantize,
              "format of the frozen base: " + names + "none; stored keeps what the file holds");
  options.flag("--double-quant,!--no-double-quant", double_quant, "quantize the block scales as well");
  options.add("--block-size N", block_size, "values that share a scale");
  options.add("--dtype bf16|f32", dtype, "type of the computation");
  options.add("--device cpu|auto", device, "where to compute");
  options.add("--threads N", threads, "threads; 0 is one per processor");
  options.add("--seed N", seed, "seed of everything random");
}

void ModelOptions::apply() const {
  auto check = [](bool ok, const char* name, const std::string& expected, const std::string& got) {
    if (!ok) throw UsageError(name, fmt::format("expected {}, got '{}'", expected, got));
  };
  check(dtype == "bf16" || dtype == "f32", "--dtype", "bf16 or f32", dtype);
  check(device == "cpu" || device == "auto", "--device", "cpu or auto", device);
  check(threads >= 0 && threads <= 4096, "--threads", "a number from 0 to 4096", std::to_string(threads));
  check(seed >= 0, "--seed", "a number that is not negative", std::to_string(seed));
  quant::parse_quantize(quantize, double_quant, block_size);
  set_threads(static_cast<int>(threads));
}

std::function<void(int64_t, int64_t)> live_progress(const char* what) {
  if (!stderr_is_terminal()) return {};
  return [what, start = now_seconds(), shown = 0.0](int64_t done, int64_t total) mutable {
    const double now = now_seconds();
    if (done < total && now - shown < 0.2) return;
    shown = now;
    const double left = (now - start) / static_cast<double>(done) * static_cast<double>(total - done);
    std::fprintf(stderr, "\r%s of %s %s, %s left \033[K%s", show_count(done).c_str(),
                 show_count(total).c_str(), what, show_seconds(left).c_str(), done == total ? "\n" : "");
  };
}

bool print(std::string_view text) {
  errno = 0;
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0)
    return true;
  if (errno == EPIPE) return false;
  fail("standard output", "cannot be written: {}", std::strerror(errno));
}

Json finite_or_null(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

void print_json(const Json& document) {
  print(document.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace nibble::cli
