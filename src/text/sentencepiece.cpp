// SentencePiece's tokenizer.model / spiece.model: a protocol buffer (sentencepiece_model.proto), read here
// field by field because it is untrusted and because spans and GGUF files need the same machinery without the
// library.
#include <cstring>

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "text/loaders.h"

namespace nibble::text {
namespace {

// A protocol buffer message, field after field.
class Message {
 public:
  Message(std::string_view bytes, const std::string& where) : bytes_(bytes), where_(where) {}

  // Moves to the next field; false at the end.
  bool next() {
    if (bytes_.empty()) return false;
    const uint64_t tag = varint();
    field_ = tag >> 3;
    switch (tag & 7) {
      case 0:
        number_ = varint();
        break;
      case 1:
        number_ = 0;
        take(8);
        break;
      case 2: {
        text_ = take(varint());
        break;
      }
      case 5: {
        uint32_t bits = 0;
        std::memcpy(&bits, take(4).data(), 4);
        number_ = bits;
        break;
      }
      default:
        fail(where_, "is no SentencePiece model: a field has wire type {}", tag & 7);
    }
    wire_ = static_cast<int>(tag & 7);
    return true;
  }
  uint64_t field() const { return field_; }
  uint64_t number(const char* what) const {
    require(wire_ == 0, where_, "is no SentencePiece model: {} is not a number", what);
    return number_;
  }
  float real(const char* what) const {
    require(wire_ == 5, where_, "is no SentencePiece model: {} is not a float", what);
    const auto bits = static_cast<uint32_t>(number_);
    float value = 0;
    std::memcpy(&value, &bits, 4);
    return value;
  }
  std::string_view text(const char* what) const {
    require(wire_ == 2, where_, "is no SentencePiece model: {} is not text", what);
    return text_;
  }

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    fail(where_, "is no SentencePiece model: a number is too long");
  }
  std::string_view take(uint64_t count) {
    require(count <= bytes_.size(), where_,
            "ends inside a field: is it a SentencePiece model, and complete?");
    const auto part = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return part;
  }

  std::string_view bytes_;
  const std::string& where_;
  uint64_t field_ = 0, number_ = 0;
  int wire_ = 0;
  std::string_view text_;
};

constexpr uint64_t kUnigram = 1, kBpe = 2;

struct Trainer {
  uint64_t model_type = kUnigram;
  bool byte_fallback = false, whitespace_suffix = false;
  std::string bos = "<s>", eos = "</s>", pad = "<pad>";
};

void read_piece(std::string_view bytes, ScoredVocab& vocab, const std::string& where) {
  Message m(bytes, where);
  std::string piece;
  float score = 0;
  uint64_t type = 1;
  while (m.next()) {
    if (m.field() == 1) piece = m.text("a piece");
    if (m.field() == 2) score = m.real("a score");
    if (m.field() == 3) type = m.number("a piece's type");
  }
  require(type >= 1 && type <= 6, where, "piece {} has unknown type {}", vocab.pieces.size(), type);
  vocab.pieces.push_back(std::move(piece));
  vocab.scores.push_back(score);
  vocab.types.push_back(static_cast<ScoredVocab::Type>(type));
}

Trainer read_trainer(std::string_view bytes, const std::string& where) {
  Trainer t;
  Message m(bytes, where);
  while (m.next()) {
    if (m.field() == 3) t.model_type = m.number("the model type");
    if (m.field() == 24) t.whitespace_suffix = m.number("treat_whitespace_as_suffix") != 0;
    if (m.field() == 35) t.byte_fallback = m.number("byte_fallback") != 0;
    if (m.field() == 46) t.bos = m.text("bos_piece");
    if (m.field() == 47) t.eos = m.text("eos_piece");
    if (m.field() == 48) t.pad = m.text("pad_piece");
  }
  return t;
}

void read_normalizer(std::string_view bytes, SentencePieceRules& rules, const std::string& where) {
  Message m(bytes, where);
  while (m.next()) {
    if (m.field() == 2) rules.charsmap = Charsmap(m.text("precompiled_charsmap"), where);
    if (m.field() == 3) rules.add_dummy_prefix = m.number("add_dummy_prefix") != 0;
    if (m.field() == 4) rules.remove_extra_whitespaces = m.number("remove_extra_whitespaces") != 0;
    if (m.field() == 5) rules.escape_whitespaces = m.number("escape_whitespaces") != 0;
  }
}

}  // namespace

std::shared_ptr<const Tokenizer> parse_sentencepiece(std::string_view bytes, const SideFiles& side,
                                                     const std::string& where) {
  ScoredVocab vocab;
  Trainer trainer;
  Message m(bytes, where);
  while (m.next()) {
    if (m.field() == 1) read_piece(m.text("a piece"), vocab, where);
    if (m.field() == 2) trainer = read_trainer(m.text("trainer_spec"), where);
    if (m.field() == 3) read_normalizer(m.text("normalizer_spec"), vocab.rules, where);
  }
  require(!vocab.pieces.empty(), where, "holds no pieces: is it a SentencePiece model?");
  require(trainer.model_type == kUnigram || trainer.model_type == kBpe, where,
          "is a SentencePiece model of type {}; unigram and BPE can be used",
          trainer.model_type == 3 ? "word" : "char");
  vocab.unigram = trainer.model_type == kUnigram;
  vocab.byte_fallback = trainer.byte_fallback;
  vocab.rules.treat_whitespace_as_suffix = trainer.whitespace_suffix;

  PipelineParts parts;
  for (size_t i = 0; i < vocab.pieces.size(); ++i) {
    const auto id = static_cast<int32_t>(i);
    if (vocab.types[i] != ScoredVocab::kControl) continue;
    if (vocab.pieces[i] == trainer.bos) parts.bos = id;
    if (vocab.pieces[i] == trainer.eos) parts.eos = id;
    if (vocab.pieces[i] == trainer.pad) parts.pad = id;
    AddedToken token;
    token.id = id;
    token.content = vocab.pieces[i];
    token.special = true;
    parts.added.push_back(std::move(token));
  }
  parts.kind = vocab.unigram ? "SentencePiece unigram" : "SentencePiece BPE";
  parts.source = "sentencepiece";
  const bool has_bos = parts.bos.has_value();
  build_scored(parts, std::move(vocab), where);
  // LLaMA's code puts BOS in front, T5's (which has none) EOS behind.
  apply_side_files(parts, side, has_bos, !has_bos, where);
  return std::make_shared<Pipeline>(std::move(parts), where);
}

std::shared_ptr<const Tokenizer> load_sentencepiece(const std::string& path, const SideFiles& side) {
  return parse_sentencepiece(read_file(path, uint64_t{1} << 30), side, path);
}

VocabSource read_llama2c_vocab(const std::string& path) {
  const std::string bytes = read_file(path, uint64_t{1} << 30);
  VocabSource source;
  source.kind = VocabSource::Kind::kScored;
  ScoredVocab& vocab = source.scored;
  PipelineParts& parts = source.parts;
  size_t at = 4;
  const auto take = [&](auto& value) {
    require(bytes.size() - at >= sizeof value, path, "ends inside piece {}: is it llama2.c's tokenizer.bin?",
            vocab.pieces.size());
    std::memcpy(&value, bytes.data() + at, sizeof value);
    at += sizeof value;
  };
  require(bytes.size() >= 4, path, "is too short to be llama2.c's tokenizer.bin");
  while (at < bytes.size()) {
    float score = 0;
    int32_t length = 0;
    take(score);
    take(length);
    require(length >= 0 && static_cast<size_t>(length) <= bytes.size() - at, path,
            "piece {} claims {} bytes but {} are left: is it llama2.c's tokenizer.bin?", vocab.pieces.size(),
            length, bytes.size() - at);
    const std::string_view stored = std::string_view(bytes).substr(at, static_cast<size_t>(length));
    at += static_cast<size_t>(length);
    const size_t id = vocab.pieces.size();
    // The exporter writes spaces for ▁ and puts BOS and EOS on lines of their own.
    auto type = ScoredVocab::kNormal;
    std::string piece;
    if (id < 3) {
      constexpr const char* kNames[] = {"<unk>", "<s>", "</s>"};
      piece = kNames[id];
      type = id == 0 ? ScoredVocab::kUnknown : ScoredVocab::kControl;
    } else if (fallback_byte(stored) >= 0) {
      piece = stored;
      type = ScoredVocab::kByte;
      vocab.byte_fallback = true;
    } else {
      for (const char c : stored) c == ' ' ? piece += kSpaceSymbol : piece += c;
    }
    vocab.pieces.push_back(std::move(piece));
    vocab.scores.push_back(score);
    vocab.types.push_back(type);
  }
  require(vocab.pieces.size() > 3, path, "holds {} pieces: is it llama2.c's tokenizer.bin?",
          vocab.pieces.size());
  vocab.rules.remove_extra_whitespaces = false;
  parts.bos = 1;
  parts.eos = 2;
  parts.prefix = {1};
  for (const int32_t id : {1, 2}) {
    AddedToken token;
    token.id = id;
    token.content = id == 1 ? "<s>" : "</s>";
    token.special = true;
    parts.added.push_back(std::move(token));
  }
  parts.kind = "SentencePiece BPE";
  parts.source = "llama2.c";
  source.tokens = vocab.pieces;
  return source;
}

std::shared_ptr<const Tokenizer> load_llama2c(const std::string& path) {
  VocabSource source = read_llama2c_vocab(path);
  PipelineParts parts = std::move(source.parts);
  build_scored(parts, std::move(source.scored), path);
  return std::make_shared<Pipeline>(std::move(parts), path);
}

}  // namespace nibble::text
