//===- Normalization.cpp - Shapes of normalizations -----------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "ShapeRules.h"

#include "mlir/IR/Builders.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

/// Outputs after the first hold one number a channel.
static void inferBatchNormalization(RuleContext &context) {
  inferSameAsFirst(context);
  if (context.getVersion() < 7)
    return;
  auto shape = context.getShape(0);
  Dimension channels = shape && shape->size() > 1 ? (*shape)[1] : Dimension();
  for (unsigned i = 1; i < context.getNumOutputs(); ++i) {
    // Since opset 14 the statistics have their own type and follow inputs 3, 4.
    unsigned statistic = context.getVersion() >= 14 ? i + 2 : 0;
    context.set(i, context.getElementType(statistic), Shape{channels});
  }
}

/// Y, and the mean and inverse deviation over the axes from `axis` on.
static void inferLayerNormalization(RuleContext &context) {
  inferSameAsFirst(context);
  auto shape = context.getShape(0);
  if (!shape || context.getNumOutputs() < 2)
    return;
  Type type = context.getDataType("stash_type");
  if (!type)
    type = Builder(context.getContext()).getF32Type();
  auto axis = normalizeAxis(context.getInt("axis", -1), shape->size());
  if (!axis)
    return context.reject();
  for (Dimension &dimension : llvm::drop_begin(*shape, *axis))
    dimension = fixed(1);
  for (unsigned i = 1; i < context.getNumOutputs(); ++i)
    context.set(i, type, shape);
}

/// Output 3 is the sum before the normalization (com.microsoft).
static void inferSkipNormalization(RuleContext &context) {
  inferSameAsFirst(context);
  context.setType(3, context.getType(0));
}

/// input_ids, segment_ids, the word table, … → rows [batch, length, width], the
/// mask's index [batch], and the rows before the normalization.
static void inferEmbedLayerNormalization(RuleContext &context) {
  auto ids = context.getShape(0), table = context.getShape(2);
  Type type = context.getElementType(2);
  if (!ids || ids->size() != 2)
    return context.set(0, type);
  Shape rows{(*ids)[0], (*ids)[1],
             table && table->size() == 2 ? (*table)[1] : Dimension()};
  context.set(0, type, rows);
  context.set(1, Builder(context.getContext()).getI32Type(), Shape{(*ids)[0]});
  context.set(2, type, rows);
}

static void inferDropout(RuleContext &context) {
  inferSameAsFirst(context);
  // The mask's type changed from the data's to bool.
  Type type = context.getVersion() >= 10
                  ? Type(Builder(context.getContext()).getI1Type())
                  : context.getElementType(0);
  context.set(1, type, context.getShape(0));
}

void onnx::addNormalizationRules(ShapeRules &rules) {
  rules.add({"BatchNormalization"}, inferBatchNormalization);
  rules.add({"LayerNormalization"}, inferLayerNormalization);
  rules.add({"GroupNormalization", "InstanceNormalization", "LpNormalization",
             "LRN", "MeanVarianceNormalization", "RMSNormalization"},
            inferSameAsFirst);
  rules.add({"Dropout"}, inferDropout);
  // ONNX Runtime fuses into these in its own domain and in ONNX's.
  rules.add({"SimplifiedLayerNormalization"}, inferLayerNormalization);
  rules.add("com.microsoft", "SimplifiedLayerNormalization", 1,
            inferLayerNormalization);
  rules.add("com.microsoft", "EmbedLayerNormalization", 1,
            inferEmbedLayerNormalization);
  for (StringRef opType :
       {"SkipLayerNormalization", "SkipSimplifiedLayerNormalization"})
    rules.add("com.microsoft", opType, 1, inferSkipNormalization);
}
