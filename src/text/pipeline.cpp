#include "text/pipeline.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"

namespace nibble::text {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// Each invalid sequence becomes U+FFFD, as Python's errors="replace" has it, and keeps its place in the
// input.
Piece as_valid_utf8(Arena& arena, std::string_view text) {
  const Piece whole{text};
  if (find_invalid_utf8(text) == std::string_view::npos) return whole;
  Rewriter out(arena, whole);
  for (size_t at = 0; at < text.size();) {
    const size_t bad = find_invalid_utf8(text.substr(at));
    if (bad == std::string_view::npos) {
      out.keep(at, text.size());
      break;
    }
    out.keep(at, at + bad);
    at += bad;
    // The longest part that could have become a character is one replacement.
    size_t length = 1;
    while (length < 4 && at + length < text.size() && complete_utf8_prefix(text.substr(at, length + 1)) == 0)
      ++length;
    out.put(kReplacement, at, at + length);
    at += length;
  }
  return out.done();
}

// Ranges in order, without overlap, and covering everything but white space.
void tidy(std::vector<TokenSpan>& spans, std::string_view text, size_t first, size_t last) {
  const auto blank = [&](size_t begin, size_t end) { return trim(text.substr(begin, end - begin)).empty(); };
  size_t done = 0;
  for (size_t i = first; i < last; ++i) {
    TokenSpan& span = spans[i];
    span.begin = std::max(span.begin, done);
    span.end = std::max(span.end, span.begin);
    if (span.begin > done && !blank(done, span.begin))
      (i == first ? span.begin : spans[i - 1].end) = i == first ? 0 : span.begin;
    done = span.end;
  }
  if (last > first && done < text.size() && !blank(done, text.size())) spans[last - 1].end = text.size();
}

}  // namespace

Pipeline::Pipeline(PipelineParts parts, const std::string& where) : parts_(std::move(parts)) {
  auto& spelling = parts_.spelling;
  for (const AddedToken& token : parts_.added) spelling.emplace_back(token.content, token.id);
  spelling_.build(spelling, where);
  spelling.clear();
  spelling.shrink_to_fit();
  special_.assign(static_cast<size_t>(spelling_.size()), false);
  for (const AddedToken& token : parts_.added)
    if (token.special) special_[static_cast<size_t>(token.id)] = true;
  for (const int32_t id : parts_.special)
    if (spelling_.contains(id)) special_[static_cast<size_t>(id)] = true;
  for (const auto* ids : {&parts_.prefix, &parts_.suffix})
    for (const int32_t id : *ids)
      require(spelling_.contains(id), where,
              "the tokenizer adds id {} to every text, which is not in its vocabulary", id);
  for (auto* id : {&parts_.bos, &parts_.eos, &parts_.unk, &parts_.pad})
    if (*id && !spelling_.contains(**id)) id->reset();
  bos = parts_.bos;
  eos = parts_.eos;
  unk = parts_.unk;
  pad = parts_.pad;
  pair = std::move(parts_.pair);
  chat_template = std::move(parts_.chat_template);
  description = fmt::format("{}, {} tokens ({})", parts_.kind, show_count(spelling_.size()), parts_.source);
  raw_added_ = AddedTokens(parts_.added, false, parts_.normalizer.get());
  normalized_added_ = AddedTokens(parts_.added, true, parts_.normalizer.get());
}

std::vector<TokenSpan> Pipeline::encode_spans(std::string_view text, EncodeOptions options) const {
  require(text.size() < UINT32_MAX, "tokenizer",
          "the text has {} bytes; at most 4 GiB can be encoded at once", text.size());
  std::vector<TokenSpan> out;
  out.reserve(text.size() / 4 + 8);
  if (options.add_special)
    for (const int32_t id : parts_.prefix) out.push_back({id, 0, 0});
  const size_t first = out.size();
  Arena arena;
  raw_added_.split(as_valid_utf8(arena, text), options, [&](const Piece& part, const AddedToken* token) {
    if (token != nullptr) return append_token(out, token->id, part, 0, part.text.size());
    encode_text(arena, part, options, out);
  });
  tidy(out, text, first, out.size());
  if (options.add_special)
    for (const int32_t id : parts_.suffix) out.push_back({id, text.size(), text.size()});
  return out;
}

void Pipeline::encode_text(Arena& arena, const Piece& text, const EncodeOptions& options,
                           std::vector<TokenSpan>& out) const {
  const Piece normal = parts_.normalizer ? parts_.normalizer->apply(arena, text) : text;
  const auto word = [&](const Piece& w) {
    if (!w.text.empty()) parts_.model->encode(w, out);
  };
  normalized_added_.split(normal, options, [&](const Piece& part, const AddedToken* token) {
    if (token != nullptr) return append_token(out, token->id, part, 0, part.text.size());
    if (parts_.pre_tokenizer) {
      parts_.pre_tokenizer->split(arena, part, word);
    } else {
      word(part);
    }
  });
}

std::string Pipeline::decode(std::span<const int32_t> ids, bool skip_special) const {
  if (parts_.sentencepiece_decode) return decode_sentencepiece(ids, skip_special);
  std::vector<std::string> pieces;
  pieces.reserve(ids.size());
  for (const int32_t id : ids)
    if (spelling_.contains(id) && !(skip_special && is_special(id))) pieces.emplace_back(spelling_.piece(id));
  std::string out;
  if (parts_.decoder) {
    parts_.decoder->apply(pieces);
    for (const std::string& piece : pieces) out += piece;
  } else {
    for (size_t i = 0; i < pieces.size(); ++i) (i > 0 ? out += ' ' : out) += pieces[i];
  }
  return out;
}

// sentencepiece_processor.cc: the dummy prefix goes, unknown pieces have a surface of their own, bytes are
// bytes.
std::string Pipeline::decode_sentencepiece(std::span<const int32_t> ids, bool skip_special) const {
  std::string out;
  bool start = true, stripped = false;
  for (const int32_t id : ids) {
    if (!spelling_.contains(id)) continue;
    std::string_view piece = spelling_.piece(id);
    if (parts_.unk && id == *parts_.unk) {
      out += " \xE2\x81\x87 ";  // ⁇
      start = false;
      continue;
    }
    if (is_special(id)) {
      if (skip_special) continue;
      out += piece;
      continue;
    }
    if (const int byte = fallback_byte(piece); byte >= 0) {
      out += static_cast<char>(byte);
      start = false;
      continue;
    }
    start = start && out.empty() && (!stripped || parts_.strips_all_leading_space);
    if (start && parts_.strips_leading_space && piece.starts_with(kSpaceSymbol)) {
      piece.remove_prefix(kSpaceSymbol.size());
      stripped = true;
    }
    while (!piece.empty()) {
      const size_t at = piece.find(kSpaceSymbol);
      out += piece.substr(0, at);
      if (at == std::string_view::npos) break;
      out += ' ';
      piece.remove_prefix(at + kSpaceSymbol.size());
    }
  }
  return out;
}

std::string Pipeline::piece(int32_t id) const {
  require(spelling_.contains(id), "tokenizer",
          "there is no token with id {}; the vocabulary has ids from 0 to {}", id, spelling_.size() - 1);
  return std::string(spelling_.piece(id));
}

std::optional<int32_t> Pipeline::id(std::string_view piece) const {
  const int32_t found = spelling_.find(piece);
  return found < 0 ? std::nullopt : std::optional(found);
}

bool Pipeline::is_special(int32_t id) const {
  return id >= 0 && id < spelling_.size() && special_[static_cast<size_t>(id)];
}

}  // namespace nibble::text
