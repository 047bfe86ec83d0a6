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
/// the recurrence weights are [directions, gates × hidden, hidden]. Y is
/// [sequence, directions, batch, hidden], and the last states [directions,
/// batch, hidden].
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
    hidden = recurrence->back();
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

void onnx::addRecurrentRules(ShapeRules &rules) {
  rules.add({"GRU", "LSTM", "RNN"}, inferRecurrent);
}
