//===- Recurrent.cpp - Shapes of recurrent ops ----------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "ShapeRules.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

/// X is [sequence, batch, input], or [batch, sequence, input] with layout 1;
/// the recurrence weights are [directions, gates × hidden, hidden], with the
/// last two swapped in DynamicQuantizeLSTM. Y is [sequence, directions, batch,
/// hidden], and the last states [directions, batch, hidden].
template <unsigned hiddenAxis>
static void inferRecurrent(RuleContext &context) {
  Type type = context.getElementType(0);
  auto input = context.getShape(0), recurrence = context.getShape(2);
  if (input && input->size() != 3)
    return context.reject();
  bool isBatchFirst = context.getInt("layout", 0) != 0;
  Dimension sequence, batch, hidden;
  if (input) {
    sequence = (*input)[isBatchFirst ? 1 : 0];
    batch = (*input)[isBatchFirst ? 0 : 1];
  }
  int64_t size = context.getInt("hidden_size", 0);
  if (size > 0)
    hidden = fixed(size);
  else if (recurrence && recurrence->size() == 3)
    hidden = (*recurrence)[hiddenAxis];
  StringRef direction = context.getString("direction", "forward");
  Dimension directions = fixed(direction == "bidirectional" ? 2 : 1);
  Shape state{directions, batch, hidden};
  Shape all{sequence, directions, batch, hidden};
  if (isBatchFirst) {
    state = {batch, directions, hidden};
    all = {batch, sequence, directions, hidden};
  }
  context.set(0, type, all);
  for (unsigned i = 1; i < context.getNumOutputs(); ++i)
    context.set(i, type, state);
}

/// The output is [batch, time, query heads × value size], the state [batch,
/// heads, key size, value size].
static void inferLinearAttention(RuleContext &context) {
  auto query = context.getShape(0), key = context.getShape(1),
       value = context.getShape(2);
  int64_t heads = context.getInt("kv_num_heads", 0),
          queryHeads = context.getInt("q_num_heads", 0);
  if (heads < 1 || queryHeads < 1 || !query || !key || !value)
    return context.set(0, context.getElementType(0));
  if (query->size() != 3 || key->size() != 3 || value->size() != 3)
    return context.reject();
  Dimension keySize = divideDimensions(key->back(), fixed(heads)),
            valueSize = divideDimensions(value->back(), fixed(heads));
  context.set(0, context.getElementType(0),
              Shape{(*query)[0], (*query)[1],
                    multiplyDimensions(valueSize, fixed(queryHeads))});
  context.set(1, context.getElementType(context.hasInput(3) ? 3 : 0),
              Shape{(*query)[0], fixed(heads), keySize, valueSize});
}

/// The state holds one element less than the kernel.
static void inferCausalConv(RuleContext &context) {
  inferSameAsFirst(context);
  auto shape = context.getShape(0), kernel = context.getShape(1);
  if (!shape || shape->size() != 3 || !kernel || kernel->size() != 3)
    return;
  (*shape)[2] = subtractDimensions(kernel->back(), fixed(1));
  context.set(1, context.getElementType(0), shape);
}

void onnx::addRecurrentRules(ShapeRules &rules) {
  rules.add({"LinearAttention"}, inferLinearAttention);
  rules.add({"CausalConvWithState"}, inferCausalConv);
  rules.add({"GRU", "LSTM", "RNN"}, inferRecurrent<2>);
  rules.add("com.microsoft", "DynamicQuantizeLSTM", 1, inferRecurrent<1>);
}
