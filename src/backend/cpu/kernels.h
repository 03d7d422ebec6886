// The CPU's kernels, one function per slot of backend/kernels/*.h (which holds their contracts). register.cpp
// is the one list that puts them into the slots.
#pragma once
#include "backend/kernels/attention.h"
#include "backend/kernels/cast.h"
#include "backend/kernels/cross_entropy.h"
#include "backend/kernels/elementwise.h"
#include "backend/kernels/embedding.h"
#include "backend/kernels/matmul.h"
#include "backend/kernels/matvec.h"
#include "backend/kernels/norm.h"
#include "backend/kernels/optimizer.h"
#include "backend/kernels/quantize.h"
#include "backend/kernels/rope.h"
#include "backend/kernels/squared_error.h"

namespace nibble::backend::cpu {

// elementwise.cpp
void fill(Stream&, Tensor& out, float value);
void accumulate(Stream&, const Tensor& x, Tensor& out, bool accumulate);
void add(Stream&, const Tensor& a, const Tensor& b, Tensor& out);
void add_bias(Stream&, const Tensor& x, const Tensor& bias, Tensor& out);
void scale(Stream&, const Tensor& x, float factor, Tensor& out, bool accumulate);
// reduce.cpp
void sum_rows(Stream&, const Tensor& x, Tensor& out, bool accumulate);
void sum_of_squares(Stream&, const Tensor& x, Tensor& out);
// activation.cpp, gated.cpp
void activation(Stream&, const Tensor& x, Activation f, Tensor& out);
void activation_backward(Stream&, const Tensor& dy, const Tensor& x, Activation f, Tensor& dx,
                         bool accumulate);
void softcap(Stream&, const Tensor& x, float cap, Tensor& out);
void softcap_backward(Stream&, const Tensor& dy, const Tensor& y, float cap, Tensor& dx);
void gated(Stream&, const Tensor& gate, const Tensor& up, Activation f, Tensor& out);
void gated_backward(Stream&, const Tensor& dy, const Tensor& gate, const Tensor& up, Activation f,
                    Tensor& dgate, bool accumulate_gate, Tensor& dup, bool accumulate_up);
// dropout.cpp
void dropout(Stream&, const Tensor& x, float p, uint64_t seed, uint64_t stream_id, Tensor& out,
             bool accumulate);
// rows.cpp
void gather_rows(Stream&, const Tensor& x, const Tensor& rows, Tensor& out);
void scatter_rows(Stream&, const Tensor& x, const Tensor& rows, Tensor& out);
void scatter_add_rows(Stream&, const Tensor& x, const Tensor& rows, Tensor& out);
void take_columns(Stream&, const Tensor& x, Columns columns, Tensor& part);
void add_columns(Stream&, const Tensor& part, Columns columns, Tensor& x);
void embedding(Stream&, const Tensor& ids, const quant::Weight& w, Tensor& out);
void embedding_backward(Stream&, const Tensor& dy, const Tensor& ids, Tensor& dw);
// matmul.cpp
void matmul(Stream&, const Tensor& a, const Tensor& b, Tensor& c, MatmulArgs args);
void low_rank_matmul(Stream& stream, const Tensor& x, const Tensor& w, const Tensor& p, const Tensor& q,
                     Tensor& t, Tensor& c, LowRankArgs args);
void thin_gradient(Stream& stream, const Tensor& s, const Tensor& x, Tensor& g, ThinArgs args);
// norm.cpp
void rms_norm(Stream&, const Tensor& x, const Tensor& w, float eps, float offset, Tensor& y, Tensor& rstd);
void rms_norm_backward(Stream&, const Tensor& dy, const Tensor& x, const Tensor& w, float offset,
                       const Tensor& rstd, Tensor& dx, bool accumulate_dx, Tensor& dw, bool accumulate_dw);
// layer_norm.cpp
void layer_norm(Stream&, const Tensor& x, const Tensor& w, const Tensor& b, float eps, Tensor& y,
                Tensor& mean, Tensor& rstd);
void layer_norm_backward(Stream&, const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& mean,
                         const Tensor& rstd, Tensor& dx, bool accumulate_dx, Tensor& dw, bool accumulate_dw,
                         Tensor& db, bool accumulate_db);
// rope.cpp
void rope(Stream&, const Tensor& x, const Tensor& cos_sin, const Tensor& positions, int64_t head_width,
          int direction, Tensor& out);
// attention.cpp, attention_backward.cpp
void attention(Stream&, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& bias,
               const Tensor& segments, AttentionArgs args, Tensor& out, Tensor& lse);
void attention_backward(Stream&, const Tensor& dout, const Tensor& q, const Tensor& k, const Tensor& v,
                        const Tensor& bias, const Tensor& out, const Tensor& lse, const Tensor& segments,
                        AttentionArgs args, Tensor& dq, Tensor& dk, Tensor& dv, Tensor& dbias,
                        bool accumulate_dbias);
// cross_entropy.cpp
void cross_entropy(Stream&, Tensor& logits, const Tensor& labels, float factor, LossGradient gradient,
                   Tensor& losses);
// squared_error.cpp
void squared_error(Stream&, Tensor& scores, const Tensor& targets, float factor, bool gradient,
                   Tensor& losses);
// optimizer.cpp, optimizer_8bit.cpp
void adamw(Stream&, Tensor& p, const Tensor& g, Tensor& m, Tensor& v, AdamArgs args);
void adamw_8bit(Stream&, Tensor& p, const Tensor& g, Tensor& m_codes, Tensor& m_absmax, Tensor& v_codes,
                Tensor& v_absmax, AdamArgs args);
void sgd(Stream&, Tensor& p, const Tensor& g, Tensor& velocity, SgdArgs args);
void lion(Stream&, Tensor& p, const Tensor& g, Tensor& m, LionArgs args);
// cast.cpp, decode_weight.cpp, encode_weight.cpp, weight_matvec.cpp
void cast(Stream&, const Tensor& in, Tensor& out);
void decode_weight(Stream&, const quant::Weight& w, int64_t begin, int64_t end, Tensor& out);
void encode_weight(Stream&, const Tensor& values, quant::Weight& out);
void weight_matvec(Stream&, const Tensor& x, std::span<Matvec> products);
// row_groups.cpp, rounded_product.cpp
void group_rows(Stream&, const quant::Weight& w, RowGroups& groups);
void rounded_product(Stream&, const Tensor& x, std::span<RoundedMatvec> products);

}  // namespace nibble::backend::cpu
