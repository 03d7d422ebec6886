// Ratings from games: Elo over many random orders, Bradley–Terry beside it, how far judges agree, and whether
// the one shown first has an advantage.
//
// Elo (1978) as QLoRA's evaluation uses it: every system starts at 1000, K is 32, a tie counts half; since
// the result depends on the order of the games, it is the mean over random orders. Bradley–Terry (1952) has
// no order: the strengths that make the games most likely, in Elo's unit (400 per power of ten), their mean
// at the start value; by Hunter's MM algorithm (2004), a tie as half a game won by each.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "eval/games.h"

namespace nibble::eval {

struct EloOptions {
  int64_t orders = 10000;
  double k = 32, start = 1000;
  uint64_t seed = 42;
};

struct Rating {
  std::string name;
  int64_t games = 0;
  double wins = 0;                      // ties as halves
  double elo = 0;                       // mean over the orders
  double low = 0, high = 0;             // 95 % of the orders lie between (2.5th and 97.5th percentile)
  double error = 0;                     // half of the mean's 95 % interval: 1.96 · deviation / √orders
  std::optional<double> bradley_terry;  // nullopt when the games do not determine it
};

// From the highest Elo down. The same for any number of threads. Errors: UsageError for options out of range;
// Error when there is no game or orders · systems is beyond 10⁹.
std::vector<Rating> rate(const std::vector<Game>& games, const EloOptions& options);

// What the order in which answers are shown does.
struct OrderBias {
  int64_t first = 0, second = 0, ties = 0;  // games won by the one shown first, second
  // Of items judged in both orders: the same system won twice (or two ties); whoever stood first won twice;
  // whoever stood second did; one tie and one win.
  int64_t both_orders = 0, consistent = 0, first_twice = 0, second_twice = 0, half = 0;
};
OrderBias order_bias(const std::vector<Game>& games);

// Fleiss' kappa (1971) of votes[item][category]. Errors: items with different numbers of votes, or fewer than
// two. NaN when all votes are in one category.
double fleiss_kappa(const std::vector<std::vector<int64_t>>& votes);

// How far two sets of judgements agree: on systems by rank correlation of their Elo, on single items (a
// question and a pair of systems) by the votes "one, other, tie".
struct Agreement {
  int64_t systems = 0;
  double kendall = 0, spearman = 0;
  int64_t items = 0, raters = 0;  // items with the most frequent number of votes, and that number
  int64_t left_out = 0;           // items with another number
  std::optional<double> kappa;    // nullopt when no item has two votes
};
Agreement agreement(const std::vector<Game>& a, const std::vector<Game>& b, const EloOptions& options);

}  // namespace nibble::eval
