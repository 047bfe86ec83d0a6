//===- Attention.cpp - Shapes of attention ops ----------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "ShapeRules.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

namespace {
/// Sizes of one attention input: [batch, heads, sequence, head], or [batch,
/// sequence, heads × head].
struct Heads {
  Dimension batch, heads, sequence, size;
};
} // namespace

static std::optional<Heads> getHeads(const std::optional<Shape> &shape,
                                     int64_t heads) {
  if (!shape)
    return std::nullopt;
  if (shape->size() == 4)
    return Heads{(*shape)[0], (*shape)[1], (*shape)[2], (*shape)[3]};
  if (shape->size() != 3 || heads <= 0)
    return std::nullopt;
  Dimension size =
      (*shape)[2].isStatic() ? fixed((*shape)[2].size / heads) : Dimension();
  return Heads{(*shape)[0], fixed(heads), (*shape)[1], size};
}

/// ONNX's Attention (opset 23): Q, K, V, mask, past_key, past_value → Y,
/// present_key, present_value, scores.
static void inferAttention(RuleContext &context) {
  auto shape = context.getShape(0);
  int64_t keyHeads = context.getInt("kv_num_heads", 0);
  auto query = getHeads(shape, context.getInt("q_num_heads", 0));
  auto key = getHeads(context.getShape(1), keyHeads);
  auto value = getHeads(context.getShape(2), keyHeads);
  Type type = context.getElementType(0);
  if (!query || !key || !value) {
    context.set(0, type);
    return;
  }
  if (shape->size() == 4)
    context.set(
        0, type,
        Shape{query->batch, query->heads, query->sequence, value->size});
  else
    context.set(0, type,
                Shape{query->batch, query->sequence,
                      multiplyDimensions(query->heads, value->size)});
  Dimension total = key->sequence;
  if (context.hasInput(4)) {
    auto past = context.getShape(4);
    total = past && past->size() == 4 ? addDimensions((*past)[2], total)
                                      : Dimension();
  }
  context.set(1, context.getElementType(1),
              Shape{key->batch, key->heads, total, key->size});
  context.set(2, context.getElementType(2),
              Shape{value->batch, value->heads, total, value->size});
  context.set(3, type,
              Shape{query->batch, query->heads, query->sequence, total});
}

/// Q, K, V, all [batch, heads, sequence, size] → Y.
static void inferFlexAttention(RuleContext &context) {
  auto query = context.getShape(0), value = context.getShape(2);
  Type type = context.getElementType(0);
  if (!query || query->size() != 4 || !value || value->size() != 4)
    return context.set(0, type);
  context.set(0, type,
              Shape{(*query)[0], (*query)[1], (*query)[2], (*value)[3]});
}

/// com.microsoft: query, key, value, past_key, past_value, … → output,
/// present_key, present_value. All of Q, K, V may be packed into the query.
static void inferGroupQueryAttention(RuleContext &context) {
  auto query = context.getShape(0);
  int64_t heads = context.getInt("num_heads", 0);
  int64_t keyHeads = context.getInt("kv_num_heads", 0);
  Type type = context.getElementType(0);
  if (!query || query->size() != 3 || heads <= 0 || keyHeads <= 0 ||
      heads > (1 << 20) || keyHeads > (1 << 20))
    return context.set(0, type);
  bool isPacked = !context.hasInput(1);
  int64_t slices = isPacked ? heads + 2 * keyHeads : heads;
  Dimension size = divideDimensions((*query)[2], fixed(slices));
  if (slices == 1)
    size = (*query)[2];
  context.set(
      0, type,
      Shape{(*query)[0], (*query)[1], multiplyDimensions(size, fixed(heads))});
  // The caller may pass a buffer for the longest sequence as the past.
  Shape present{(*query)[0], fixed(keyHeads), Dimension(), size};
  for (unsigned output : {1, 2}) {
    Type pastType = context.getElementType(output + 2);
    context.set(output, pastType ? pastType : type, present);
  }
}

/// com.microsoft: [batch, sequence, hidden], or packed [batch, sequence, heads,
/// 3, head].
static void inferMultiHeadAttention(RuleContext &context) {
  auto query = context.getShape(0), key = context.getShape(1),
       value = context.getShape(2);
  Type type = context.getElementType(0);
  if (!query || query->size() < 3)
    return context.set(0, type);
  int64_t heads = context.getInt("num_heads", 0);
  Dimension hidden;
  if (query->size() == 5)
    hidden = multiplyDimensions((*query)[2], (*query)[4]);
  else if (value && value->size() == 3)
    hidden = (*value)[2];
  else if (value && value->size() == 4)
    hidden = multiplyDimensions(fixed(heads), (*value)[3]);
  else if (key && key->size() == 5)
    hidden = multiplyDimensions((*key)[2], (*key)[4]);
  context.set(0, type, Shape{(*query)[0], (*query)[1], hidden});
  if (context.getNumOutputs() < 2 || heads <= 0)
    return;
  // The past and the new ones.
  for (unsigned output : {1, 2}) {
    auto added = output == 1 ? key : value, past = context.getShape(output + 5);
    Dimension total, size;
    if (added && added->size() == 3) {
      total = (*added)[1];
      size = divideDimensions((*added)[2], fixed(heads));
    }
    if (past && past->size() == 4) {
      total = addDimensions((*past)[2], total);
      size = (*past)[3];
    }
    context.set(output, type, Shape{(*query)[0], fixed(heads), total, size});
  }
}

/// com.microsoft: input [batch, sequence, hidden], weights, bias, mask, past
/// [2, batch, heads, past, size] → output, present.
static void inferPackedAttention(RuleContext &context) {
  auto input = context.getShape(0), weights = context.getShape(1),
       past = context.getShape(4);
  Type type = context.getElementType(0);
  if (!input || input->size() != 3)
    return context.set(0, type);
  int64_t heads = context.getInt("num_heads", 0);
  Dimension key, value;
  if (auto sizes = context.getInts("qkv_hidden_sizes");
      sizes && sizes->size() == 3) {
    key = fixed((*sizes)[1]);
    value = fixed((*sizes)[2]);
  } else if (weights && weights->size() == 2) {
    key = value = divideDimensions((*weights)[1], fixed(3));
  }
  context.set(0, type, Shape{(*input)[0], (*input)[1], value});
  if (context.getNumOutputs() < 2 || heads <= 0)
    return;
  Dimension total = (*input)[1];
  if (past && past->size() == 5)
    total = addDimensions((*past)[3], total);
  context.set(1, type,
              Shape{fixed(2), (*input)[0], fixed(heads), total,
                    divideDimensions(key, fixed(heads))});
}

void onnx::addAttentionRules(ShapeRules &rules) {
  rules.add({"Attention"}, inferAttention);
  rules.add("ai.onnx.preview", "FlexAttention", 1, inferFlexAttention);
  rules.add({"RotaryEmbedding"}, inferSameAsFirst);
  rules.add("com.microsoft", "RotaryEmbedding", 1, inferSameAsFirst);
  rules.add("com.microsoft", "Attention", 1, inferPackedAttention);
  rules.add("com.microsoft", "GroupQueryAttention", 1,
            inferGroupQueryAttention);
  rules.add("com.microsoft", "MultiHeadAttention", 1, inferMultiHeadAttention);
}
