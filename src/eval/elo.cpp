#include "eval/elo.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "base/error.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "eval/scores.h"

namespace nibble::eval {
namespace {

struct Numbered {
  size_t first, second;
  double score;
};

struct Field {
  std::vector<std::string> names;  // ascending
  std::vector<Numbered> games;
};

Field number(const std::vector<Game>& games) {
  Field field;
  for (const Game& g : games) field.names.insert(field.names.end(), {g.first, g.second});
  std::sort(field.names.begin(), field.names.end());
  field.names.erase(std::unique(field.names.begin(), field.names.end()), field.names.end());
  const auto index = [&](const std::string& name) {
    return static_cast<size_t>(std::lower_bound(field.names.begin(), field.names.end(), name) -
                               field.names.begin());
  };
  for (const Game& g : games) {
    require(g.score >= 0 && g.score <= 1, "elo", "a game's score is {}; expected 0 to 1", g.score);
    field.games.push_back({index(g.first), index(g.second), g.score});
  }
  return field;
}

// Ratings after the games in one order.
void play(const Field& field, const EloOptions& options, uint64_t order, double* ratings) {
  std::fill_n(ratings, field.names.size(), options.start);
  const Rng rng(options.seed, stream_id("elo.order") + order);
  for (const int64_t i : rng.permutation(static_cast<int64_t>(field.games.size()))) {
    const Numbered& g = field.games[static_cast<size_t>(i)];
    const double expected = 1 / (1 + std::pow(10.0, (ratings[g.second] - ratings[g.first]) / 400));
    const double gain = options.k * (g.score - expected);
    ratings[g.first] += gain;
    ratings[g.second] -= gain;
  }
}

// Linear interpolation between order statistics, as NumPy's default.
double percentile(const std::vector<double>& sorted, double p) {
  const double at = p * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

// From everyone there is a chain of wins (or ties) to everyone else: only then a maximum exists.
bool connected(const std::vector<std::vector<double>>& wins) {
  const size_t n = wins.size();
  for (const bool forward : {true, false}) {
    std::vector<bool> seen(n, false);
    std::vector<size_t> open{0};
    seen[0] = true;
    while (!open.empty()) {
      const size_t at = open.back();
      open.pop_back();
      for (size_t to = 0; to < n; ++to)
        if (!seen[to] && (forward ? wins[at][to] : wins[to][at]) > 0) {
          seen[to] = true;
          open.push_back(to);
        }
    }
    if (std::find(seen.begin(), seen.end(), false) != seen.end()) return false;
  }
  return true;
}

std::optional<std::vector<double>> bradley_terry(const Field& field, double start) {
  const size_t n = field.names.size();
  std::vector<std::vector<double>> wins(n, std::vector<double>(n, 0));
  for (const Numbered& g : field.games) {
    wins[g.first][g.second] += g.score;
    wins[g.second][g.first] += 1 - g.score;
  }
  if (!connected(wins)) return std::nullopt;
  std::vector<double> strength(n, 1);
  for (int step = 0; step < 100000; ++step) {
    double change = 0;
    std::vector<double> next(n);
    for (size_t i = 0; i < n; ++i) {
      double won = 0, expected = 0;
      for (size_t j = 0; j < n; ++j) {
        won += wins[i][j];
        expected += (wins[i][j] + wins[j][i]) / (strength[i] + strength[j]);
      }
      next[i] = won / expected;
    }
    double log_mean = 0;
    for (const double s : next) log_mean += std::log(s) / static_cast<double>(n);
    for (size_t i = 0; i < n; ++i) {
      next[i] /= std::exp(log_mean);
      change = std::max(change, std::abs(std::log(next[i] / strength[i])));
    }
    strength = std::move(next);
    if (change < 1e-12) break;
  }
  for (double& s : strength) s = start + 400 * std::log10(s);
  return strength;
}

// What was compared: the question and the two systems, whichever stood first.
std::string key_of(const Game& g) {
  return g.item + '\n' + std::min(g.first, g.second) + '\n' + std::max(g.first, g.second);
}
// The vote as seen from the system whose name comes first in the alphabet: 0 it won, 1 tie, 2 it lost.
size_t vote_of(const Game& g) {
  const double score = g.first < g.second ? g.score : 1 - g.score;
  return score > 0.5 ? 0 : score < 0.5 ? 2 : 1;
}

}  // namespace

std::vector<Rating> rate(const std::vector<Game>& games, const EloOptions& options) {
  if (options.orders < 1)
    throw UsageError("--orders", fmt::format("expected a number above 0, got {}", options.orders));
  if (!(options.k > 0) || !std::isfinite(options.k))
    throw UsageError("--k", fmt::format("expected a number above 0, got {}", options.k));
  if (!std::isfinite(options.start)) throw UsageError("--start", "expected a finite number");
  require(!games.empty(), "elo", "there is no game to rate");
  const Field field = number(games);
  const auto n = static_cast<int64_t>(field.names.size());
  require(options.orders <= 1000000000 / n, "elo", "{} orders of {} systems are too many", options.orders, n);

  std::vector<double> all(static_cast<size_t>(options.orders * n));
  parallel_for(options.orders, 8, [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o) play(field, options, static_cast<uint64_t>(o), all.data() + o * n);
  });

  std::vector<Rating> ratings(field.names.size());
  for (const Numbered& g : field.games) {
    ++ratings[g.first].games;
    ++ratings[g.second].games;
    ratings[g.first].wins += g.score;
    ratings[g.second].wins += 1 - g.score;
  }
  const auto strengths = bradley_terry(field, options.start);
  for (size_t i = 0; i < ratings.size(); ++i) {
    Rating& r = ratings[i];
    std::vector<double> values;
    for (int64_t o = 0; o < options.orders; ++o) values.push_back(all[static_cast<size_t>(o * n) + i]);
    const auto count = static_cast<double>(options.orders);
    r.name = field.names[i];
    r.elo = std::accumulate(values.begin(), values.end(), 0.0) / count;
    double squares = 0;
    for (const double v : values) squares += (v - r.elo) * (v - r.elo);
    if (options.orders > 1) r.error = 1.959963984540054 * std::sqrt(squares / (count - 1) / count);
    std::sort(values.begin(), values.end());
    r.low = percentile(values, 0.025);
    r.high = percentile(values, 0.975);
    if (strengths) r.bradley_terry = (*strengths)[i];
  }
  std::stable_sort(ratings.begin(), ratings.end(),
                   [](const Rating& a, const Rating& b) { return a.elo > b.elo; });
  return ratings;
}

OrderBias order_bias(const std::vector<Game>& games) {
  OrderBias bias;
  std::map<std::string, std::vector<const Game*>> items;
  for (const Game& g : games) {
    bias.first += g.score > 0.5;
    bias.second += g.score < 0.5;
    bias.ties += g.score == 0.5;
    if (!g.item.empty()) items[key_of(g)].push_back(&g);
  }
  for (const auto& [key, pair] : items) {
    if (pair.size() != 2 || pair[0]->first == pair[1]->first) continue;
    ++bias.both_orders;
    const double a = pair[0]->score, b = pair[1]->score;
    if (a == 1 - b)
      ++bias.consistent;
    else if (a == b)
      ++(a > 0.5 ? bias.first_twice : bias.second_twice);
    else
      ++bias.half;
  }
  return bias;
}

double fleiss_kappa(const std::vector<std::vector<int64_t>>& votes) {
  require(!votes.empty(), "kappa", "there is no item with votes");
  const size_t categories = votes[0].size();
  const int64_t raters = std::accumulate(votes[0].begin(), votes[0].end(), int64_t{0});
  require(raters >= 2, "kappa", "an item needs at least two votes, got {}", raters);
  const auto n = static_cast<double>(raters), items = static_cast<double>(votes.size());
  std::vector<double> share(categories, 0);
  double agreed = 0;
  for (const std::vector<int64_t>& item : votes) {
    require(item.size() == categories && std::accumulate(item.begin(), item.end(), int64_t{0}) == raters,
            "kappa", "every item should have {} votes in {} categories", raters, categories);
    double squares = 0;
    for (size_t c = 0; c < categories; ++c) {
      const auto v = static_cast<double>(item[c]);
      squares += v * v;
      share[c] += v / (n * items);
    }
    agreed += (squares - n) / (n * (n - 1)) / items;
  }
  double chance = 0;
  for (const double s : share) chance += s * s;
  return chance == 1 ? std::numeric_limits<double>::quiet_NaN() : (agreed - chance) / (1 - chance);
}

Agreement agreement(const std::vector<Game>& a, const std::vector<Game>& b, const EloOptions& options) {
  Agreement out;
  std::map<std::string, double> other;
  for (const Rating& r : rate(b, options)) other[r.name] = r.elo;
  std::vector<double> x, y;
  for (const Rating& r : rate(a, options))
    if (const auto it = other.find(r.name); it != other.end()) {
      x.push_back(r.elo);
      y.push_back(it->second);
    }
  require(x.size() >= 2, "agreement", "the two sets of judgements share {} system{}; at least two are needed",
          x.size(), x.size() == 1 ? "" : "s");
  out.systems = static_cast<int64_t>(x.size());
  out.kendall = kendall(x, y);
  out.spearman = spearman(x, y);

  std::map<std::string, std::vector<int64_t>> votes;
  for (const auto* side : {&a, &b})
    for (const Game& g : *side)
      if (!g.item.empty()) {
        auto& item = votes[key_of(g)];
        item.resize(3);
        ++item[vote_of(g)];
      }
  std::map<int64_t, std::vector<std::vector<int64_t>>> by_count;
  for (const auto& [key, item] : votes) {
    const int64_t count = item[0] + item[1] + item[2];
    if (count >= 2) by_count[count].push_back(item);
  }
  const std::vector<std::vector<int64_t>>* most = nullptr;
  for (const auto& [count, items] : by_count)
    if (most == nullptr || items.size() > most->size()) {
      most = &items;
      out.raters = count;
    }
  if (most != nullptr) {
    out.items = static_cast<int64_t>(most->size());
    out.kappa = fleiss_kappa(*most);
  }
  out.left_out = static_cast<int64_t>(votes.size()) - out.items;
  return out;
}

}  // namespace nibble::eval
