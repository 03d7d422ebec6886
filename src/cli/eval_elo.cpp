// nibble eval elo: ratings from pairwise judgements.
#include <cmath>

#include "base/error.h"
#include "base/json.h"
#include "base/parallel.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "eval/elo.h"

namespace nibble::cli {
namespace {

Json to_json(const eval::Rating& r) {
  return {{"name", r.name},   {"elo", r.elo},
          {"low", r.low},     {"high", r.high},
          {"error", r.error}, {"bradley_terry", r.bradley_terry ? Json(*r.bradley_terry) : Json(nullptr)},
          {"games", r.games}, {"wins", r.wins}};
}

Json to_json(const eval::OrderBias& b) {
  return {{"first", b.first},
          {"second", b.second},
          {"ties", b.ties},
          {"both_orders", b.both_orders},
          {"consistent", b.consistent},
          {"first_twice", b.first_twice},
          {"second_twice", b.second_twice},
          {"half", b.half}};
}

void print_ratings(const std::vector<eval::Rating>& ratings, const eval::EloOptions& options) {
  size_t width = 6;
  for (const eval::Rating& r : ratings) width = std::max(width, r.name.size());
  print(fmt::format("{:<{}}      Elo   95 % of {} orders   Bradley–Terry   games\n", "system", width,
                    options.orders));
  for (const eval::Rating& r : ratings)
    print(fmt::format("{:<{}} {:8.1f}   {:8.0f} – {:<8.0f}   {:>13}   {:>5}\n", r.name, width, r.elo, r.low,
                      r.high, r.bradley_terry ? fmt::format("{:.1f}", *r.bradley_terry) : "not defined",
                      r.games));
}

double percent(int64_t part, int64_t whole) {
  return whole == 0 ? 0 : 100 * static_cast<double>(part) / static_cast<double>(whole);
}

void print_bias(const eval::OrderBias& b) {
  const int64_t all = b.first + b.second + b.ties;
  print(fmt::format("\norder    shown first won {:.1f} %, second {:.1f} %, ties {:.1f} %\n",
                    percent(b.first, all), percent(b.second, all), percent(b.ties, all)));
  if (b.both_orders > 0)
    print(
        fmt::format("         of {} judged in both orders {:.1f} % agree, {:.1f} % went to whoever stood "
                    "first, {:.1f} % to the second\n",
                    b.both_orders, percent(b.consistent, b.both_orders),
                    percent(b.first_twice, b.both_orders), percent(b.second_twice, b.both_orders)));
}

}  // namespace

int run_eval_elo(const Arguments& arguments) {
  std::vector<std::string> games, against;
  eval::EloOptions options;
  int64_t seed = 42, threads = 0;
  bool json = false;
  Options cli("eval elo",
              "Elo ratings from pairwise judgements: the mean over random orders with 95 % intervals, "
              "Bradley–Terry beside "
              "it, and what the order of showing does.",
              "nibble eval elo --games judgements/");
  cli.add("--games PATH", games, "a file of judgements or a folder of them; may be given several times");
  cli.add("--against PATH", against,
          "judgements of another judge on the same systems: how far the two agree");
  cli.add("--orders N", options.orders, "random orders to play the games in");
  cli.add("--k K", options.k, "how much one game moves a rating");
  cli.add("--start R", options.start, "the rating everybody begins with");
  cli.add("--seed N", seed, "names the orders");
  cli.add("--threads N", threads, "0 is one per processor");
  cli.flag("--json", json, "one JSON document");
  cli.footer(
      "Records: {\"model_a\", \"model_b\", \"winner\", \"question_id\"} (Chatbot Arena, nibble eval judge), "
      "or "
      "{\"question_id\", \"score\"} in files named <first>-vs-<second>-<judge>.jsonl (the QLoRA reference).\n"
      "JSON: {\"ratings\": [{\"name\", \"elo\", \"low\", \"high\", \"error\", \"bradley_terry\", \"games\", "
      "\"wins\"}], \"games\", "
      "\"invalid\", \"order\": {…}, \"agreement\": {\"kendall\", \"spearman\", \"kappa\", …} with "
      "--against}.");
  if (!cli.parse(arguments)) return 0;
  if (games.empty())
    throw UsageError("eval elo", "give --games PATH, a file of judgements or a folder of them");
  if (threads < 0) throw UsageError("--threads", fmt::format("expected a number from 0 up, got {}", threads));
  set_threads(static_cast<int>(threads));
  options.seed = static_cast<uint64_t>(seed);

  const eval::Games read = eval::read_games(games);
  const std::vector<eval::Rating> ratings = eval::rate(read.games, options);
  const eval::OrderBias bias = eval::order_bias(read.games);
  std::optional<eval::Agreement> agreed;
  if (!against.empty()) agreed = eval::agreement(read.games, eval::read_games(against).games, options);

  if (json) {
    Json document{{"ratings", Json::array()},
                  {"games", read.games.size()},
                  {"invalid", read.invalid},
                  {"order", to_json(bias)}};
    for (const eval::Rating& r : ratings) document["ratings"].push_back(to_json(r));
    if (agreed)
      document["agreement"] = {{"systems", agreed->systems},
                               {"kendall", finite_or_null(agreed->kendall)},
                               {"spearman", finite_or_null(agreed->spearman)},
                               {"kappa", agreed->kappa ? finite_or_null(*agreed->kappa) : Json(nullptr)},
                               {"items", agreed->items},
                               {"raters", agreed->raters},
                               {"left_out", agreed->left_out}};
    print_json(document);
    return 0;
  }
  print_ratings(ratings, options);
  if (!ratings[0].bradley_terry)
    print("Bradley–Terry is not defined: some systems never lose to the others.\n");
  print_bias(bias);
  if (agreed)
    print(
        fmt::format("agreement over {} systems: Kendall tau {:.3f}, Spearman {:.3f}; over {} items with {} "
                    "votes: Fleiss' kappa {}\n",
                    agreed->systems, agreed->kendall, agreed->spearman, agreed->items, agreed->raters,
                    agreed->kappa ? fmt::format("{:.3f}", *agreed->kappa) : "not defined"));
  print(fmt::format("{} games, {} judgements without a verdict\n", read.games.size(), read.invalid));
  return 0;
}

}  // namespace nibble::cli
