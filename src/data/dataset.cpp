#include "data/dataset.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <unordered_map>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "base/text.h"

namespace nibble::data {
namespace {

constexpr int64_t kMostHeldOut = 200;

std::string key_of(const EncodedExample& e) {
  return (e.label ? fmt::format("{} ", *e.label) : "") + hash_bytes(std::as_bytes(std::span(e.ids))) +
         hash_bytes(std::as_bytes(std::span(e.train)));
}

struct Loaded {
  std::vector<EncodedExample> examples;
  std::vector<double> weights;
  std::vector<Example> preview;
  std::string task;
};

// That these are texts with labels, all of one task.
void require_labels(const std::vector<Example>& examples, const DataFormat& format, const std::string& path,
                    std::string& task) {
  for (const Example& e : examples) {
    require(e.label.has_value(), path,
            "the layout {} has no labels of whole texts; to classify takes one of GLUE's tasks (format: "
            "glue:TASK)",
            format.name);
    if (task.empty()) task = e.task;
    require(e.task == task, e.source,
            "is an example of {} beside others of {}; one task is trained at a time", e.task, task);
  }
}

// Tokens of the longer of an example's streams.
int64_t longest_stream(const EncodedExample& e) { return std::max<int64_t>(e.length(), e.source_tokens); }

// Cuts what comes before the first learned token, and what comes from it on, each at its end.
void cut_parts(EncodedExample& e, const DataOptions& options, DataReport& report) {
  if (e.source_tokens > 0) {
    report.source_cut += options.source_max_length > 0 && e.source_tokens > options.source_max_length;
    report.target_cut += options.target_max_length > 0 && e.length() > options.target_max_length;
    Encoder::cut_pair(e, options.source_max_length, options.target_max_length);
    return;
  }
  const auto n = static_cast<int64_t>(e.ids.size());
  const int64_t source = std::find(e.train.begin(), e.train.end(), 1) - e.train.begin();
  const auto keep = [](int64_t length, int64_t limit) {
    return limit > 0 ? std::min(length, limit) : length;
  };
  const int64_t kept_source = keep(source, options.source_max_length),
                kept_target = keep(n - source, options.target_max_length);
  report.source_cut += kept_source < source;
  report.target_cut += kept_target < n - source;
  const auto cut = [&](auto& values) {
    values.resize(static_cast<size_t>(source + kept_target));
    values.erase(values.begin() + kept_source, values.begin() + source);
  };
  cut(e.ids);
  cut(e.train);
}

// Everything up to the last learned token is learned.
void learn_all(EncodedExample& e) {
  const auto last = std::find(e.train.rbegin(), e.train.rend(), 1);
  std::fill(last, e.train.rend(), uint8_t{1});
  if (!e.train.empty()) e.train[0] = 0;
}

Loaded load_sources(const std::vector<DataSource>& sources, const DataOptions& options,
                    const Encoder& encoder, DataReport& report) {
  Loaded loaded;
  for (const DataSource& source : sources) {
    require(source.weight > 0 && std::isfinite(source.weight), source.path,
            "weight should be above 0, got {}", source.weight);
    const Records records = read_records(source.path, source.format);
    const DataFormat& format = choose_format(records, source.format, source.path);
    FormatOptions format_options{.has_chat_template = encoder.has_chat_template(),
                                 .train_on_source = options.train_on_source,
                                 .classify = options.classify};
    apply_format_argument(source.format, source.path, format_options);
    std::vector<Example> examples = format.read(records.records, records.sources, format_options);
    require(!examples.empty(), source.path, "holds no example in the layout {}", format.name);
    const auto count = static_cast<int64_t>(examples.size());
    require(source.skip < count, source.path, "holds {} examples; none is left after the first {} (skip)",
            count, source.skip);
    if (source.take > 0) examples.resize(static_cast<size_t>(std::min(count, source.skip + source.take)));
    examples.erase(examples.begin(), examples.begin() + source.skip);
    if (options.classify) require_labels(examples, format, source.path, loaded.task);
    const bool parts = options.source_max_length > 0 || options.target_max_length > 0;
    // With limits of their own, prompt and response are told apart first.
    if (options.train_on_source && !parts)
      for (Example& e : examples) {
        e.train_all = !e.turn_choices;  // what a turn says of itself goes before what the option says of all
        for (Segment& s : e.segments) s.train = true;
      }
    if (loaded.preview.empty()) loaded.preview.push_back(examples[0]);
    std::vector<EncodedExample> encoded(examples.size());
    parallel_for(static_cast<int64_t>(examples.size()), 64, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        encoded[static_cast<size_t>(i)] = encoder.encode(examples[static_cast<size_t>(i)]);
    });
    if (parts)
      for (size_t i = 0; i < encoded.size(); ++i) {
        cut_parts(encoded[i], options, report);
        if (options.train_on_source && !examples[i].turn_choices) learn_all(encoded[i]);
      }
    report.files.push_back({source.path, format.name, static_cast<int64_t>(encoded.size())});
    for (EncodedExample& e : encoded) {
      loaded.examples.push_back(std::move(e));
      loaded.weights.push_back(source.weight);
    }
  }
  return loaded;
}

// Holds to `limit` tokens as the option says. Counts go into the report.
void fit_length(Loaded& loaded, int64_t limit, Overlong overlong, const Encoder& encoder,
                DataReport& report) {
  Loaded kept;
  kept.preview = std::move(loaded.preview);
  kept.task = loaded.task;
  for (size_t i = 0; i < loaded.examples.size(); ++i) {
    EncodedExample& e = loaded.examples[i];
    const auto n = static_cast<int64_t>(e.ids.size());
    const auto keep = [&](EncodedExample part) {
      kept.examples.push_back(std::move(part));
      kept.weights.push_back(loaded.weights[i]);
    };
    if (longest_stream(e) <= limit) {
      keep(std::move(e));
    } else if (overlong == Overlong::kTruncate) {
      ++report.truncated;
      if (e.source_tokens > 0) {
        Encoder::cut_pair(e, limit, limit);
        keep(std::move(e));
        continue;
      }
      if (e.label) {
        encoder.truncate(e, limit);
        keep(std::move(e));
        continue;
      }
      e.ids.resize(static_cast<size_t>(limit));
      e.train.resize(static_cast<size_t>(limit));
      keep(std::move(e));
    } else if (overlong == Overlong::kSplit) {
      ++report.split;
      for (int64_t at = 0; at < n; at += limit) {
        const int64_t end = std::min(n, at + limit);
        EncodedExample part{{e.ids.begin() + at, e.ids.begin() + end},
                            {e.train.begin() + at, e.train.begin() + end},
                            e.source};
        part.train[0] = 0;
        keep(std::move(part));
      }
    } else {
      ++report.dropped;
    }
  }
  loaded = std::move(kept);
}

}  // namespace

Overlong parse_overlong(std::string_view name) {
  constexpr std::pair<std::string_view, Overlong> kNames[] = {{"error", Overlong::kError},
                                                              {"truncate", Overlong::kTruncate},
                                                              {"drop", Overlong::kDrop},
                                                              {"split", Overlong::kSplit}};
  for (const auto& [known, value] : kNames)
    if (name == known) return value;
  throw UsageError("overlong", fmt::format("\"{}\" is none of error, truncate, drop and split", name));
}

Json DataReport::to_json() const {
  Json j;
  j["files"] = Json::array();
  for (const File& f : files)
    j["files"].push_back({{"path", f.path}, {"format", f.format}, {"examples", f.examples}});
  j["train_examples"] = train_examples;
  j["eval_examples"] = eval_examples;
  j["tokens"] = tokens;
  j["trained_tokens"] = trained_tokens;
  j["longest"] = longest;
  j["longest_source"] = longest_source;
  j["max_seq_length"] = max_seq_length;
  if (max_source_length > 0) j["max_source_length"] = max_source_length;
  j["overlong"] = overlong;
  j["truncated"] = truncated;
  j["dropped"] = dropped;
  j["split"] = split;
  j["source_cut"] = source_cut;
  j["target_cut"] = target_cut;
  j["untrained"] = untrained;
  j["duplicates"] = duplicates;
  j["overlap"] = overlap;
  j["length_histogram"] = length_histogram;
  return j;
}

Dataset load_dataset(const DataOptions& options, const Encoder& encoder) {
  require(!options.train.empty(), "data", "no data set is given; name a file with data:");
  Dataset out;
  DataReport& report = out.report;
  if (options.classify && options.overlong == Overlong::kSplit)
    throw UsageError("overlong", "split makes parts that have no label of their own; take truncate or drop");
  if (options.classify && (options.source_max_length > 0 || options.target_max_length > 0))
    throw UsageError("source_max_length",
                     "is of prompts and responses; texts with a label have max_seq_length");
  if (options.seq2seq && options.overlong == Overlong::kSplit)
    throw UsageError("overlong",
                     "split is for texts of one stream; an encoder–decoder's pairs take truncate or drop");
  if (options.seq2seq && options.train_on_source)
    throw UsageError("train_on_source", "an encoder–decoder reads its source and never writes it");
  Loaded train = load_sources(options.train, options, encoder, report);
  Loaded eval;
  if (!options.eval.empty()) eval = load_sources(options.eval, options, encoder, report);
  require(eval.task.empty() || eval.task == train.task, "eval_data", "is of {}, the training data of {}",
          eval.task, train.task);
  out.task = train.task;
  out.preview = std::move(train.preview);

  for (const Loaded* part : {&train, &eval})
    for (const EncodedExample& e : part->examples)
      if (longest_stream(e) > report.longest) {
        report.longest = longest_stream(e);
        report.longest_source = e.source;
      }
  for (const EncodedExample& e : train.examples) {
    report.tokens += static_cast<int64_t>(e.ids.size());
    report.trained_tokens += e.trained();
  }
  report.length_histogram.assign(16, 0);
  for (const EncodedExample& e : train.examples)
    ++report.length_histogram[static_cast<size_t>(
        std::min<int64_t>(15, static_cast<int64_t>(e.ids.size()) * 16 / (report.longest + 1)))];

  require(options.context == 0 || options.max_seq_length <= options.context, "max_seq_length",
          "is {}, but the model's context is {} tokens", options.max_seq_length, options.context);
  int64_t limit = options.max_seq_length;
  if (limit == 0) limit = options.context > 0 ? std::min(report.longest, options.context) : report.longest;
  limit = std::max<int64_t>(limit, 2);
  report.max_seq_length = limit;
  const auto too_long = [&](const EncodedExample& e) { return longest_stream(e) > limit; };
  report.overlong = std::count_if(train.examples.begin(), train.examples.end(), too_long) +
                    std::count_if(eval.examples.begin(), eval.examples.end(), too_long);
  require(report.overlong == 0 || options.overlong != Overlong::kError, "data",
          "{} of {} examples are longer than {} tokens; the longest, {}, has {}. Raise max_seq_length{}, or "
          "say with "
          "overlong: truncate, drop or split what should become of them",
          report.overlong, train.examples.size() + eval.examples.size(), limit, report.longest_source,
          report.longest,
          options.context > 0 ? fmt::format(" (the model's context is {})", options.context) : "");
  fit_length(train, limit, options.overlong, encoder, report);
  fit_length(eval, limit, options.overlong, encoder, report);

  if (options.seq2seq) {
    // Without a length that was asked for, each stream is as long as its own longest.
    int64_t source = 0, target = 2;
    for (const Loaded* part : {&train, &eval})
      for (const EncodedExample& e : part->examples) {
        source = std::max<int64_t>(source, e.source_tokens);
        target = std::max(target, e.length());
      }
    report.max_source_length = options.max_seq_length > 0 ? limit : source;
    report.max_seq_length = options.max_seq_length > 0 ? limit : target;
  }

  // Examples in which nothing is learned teach nothing: they go, and are counted.
  for (Loaded* part : {&train, &eval}) {
    Loaded kept;
    for (size_t i = 0; i < part->examples.size(); ++i) {
      if (part->examples[i].trained() == 0) {
        ++report.untrained;
        continue;
      }
      kept.examples.push_back(std::move(part->examples[i]));
      kept.weights.push_back(part->weights[i]);
    }
    *part = std::move(kept);
  }
  require(!train.examples.empty(), "data",
          "no token is learned in any of the examples; look at them with nibble inspect data");

  // The held-out part, by a permutation that the seed names.
  if (options.eval.empty() && options.eval_fraction > 0) {
    const auto n = static_cast<int64_t>(train.examples.size());
    const int64_t count =
        n < 10 ? 0
               : std::min(kMostHeldOut,
                          std::max<int64_t>(1, std::llround(options.eval_fraction * static_cast<double>(n))));
    auto order = Rng(options.seed, stream_id("data.holdout")).permutation(n);
    order.resize(static_cast<size_t>(count));
    std::vector<bool> held(static_cast<size_t>(n), false);
    for (const int64_t i : order) held[static_cast<size_t>(i)] = true;
    Loaded rest;
    for (size_t i = 0; i < train.examples.size(); ++i) {
      Loaded& to = held[i] ? eval : rest;
      to.examples.push_back(std::move(train.examples[i]));
      to.weights.push_back(train.weights[i]);
    }
    train = std::move(rest);
  }

  std::unordered_map<std::string, int64_t> seen;
  for (const EncodedExample& e : train.examples) report.duplicates += seen[key_of(e)]++ > 0;
  for (const EncodedExample& e : eval.examples)
    if (const auto it = seen.find(key_of(e)); it != seen.end()) {
      report.overlap += it->second;
      it->second = 0;
    }

  report.train_examples = static_cast<int64_t>(train.examples.size());
  report.eval_examples = static_cast<int64_t>(eval.examples.size());
  out.train = std::move(train.examples);
  out.train_weights = std::move(train.weights);
  out.eval = std::move(eval.examples);
  return out;
}

std::string show_example(const EncodedExample& example, const text::Tokenizer& tokenizer, bool colour) {
  const char* const on = colour ? "\033[32m" : "«";
  const char* const off = colour ? "\033[0m" : "»";
  std::string out;
  // Runs of one kind are decoded together, so that no character is torn.
  for (size_t i = 0; i < example.ids.size();) {
    size_t end = i;
    while (end < example.ids.size() && example.train[end] == example.train[i]) ++end;
    const std::string piece = replace_invalid_utf8(
        tokenizer.decode(std::span(example.ids).subspan(i, end - i), /*skip_special=*/false));
    out += example.train[i] != 0 ? on + piece + off : piece;
    i = end;
  }
  if (example.label) out += fmt::format(" → {}{}{}", on, *example.label, off);
  return out;
}

}  // namespace nibble::data
