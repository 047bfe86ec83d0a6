//===- SparseProduct.cpp - Products with sparse matrices ------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Indexing.h"

#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

/// y[…, n] = Σ x[…, inputs[i]] values[i] over the entries i behind offsets[n],
/// up to offsets[n + 1]; in ascending order.
static LogicalResult convertSparseMatMul(NodeContext &context) {
  Value x = context.getInput(0), inputs = context.getInput(1),
        values = context.getInput(2), offsets = context.getInput(3);
  Sizes sizes = context.getSizes(x);
  int64_t outputs = context.getInputType(3).getDimSize(0) - 1;
  sizes.back() = context.rewriter.getIndexAttr(outputs);
  int64_t columnRank = context.getInputType(2).getRank();
  Type f32 = context.rewriter.getF32Type();
  auto sum = [&](ScalarBuilder &scalar, ValueRange loops) -> Value {
    OpBuilder &builder = scalar.builder;
    Value one = scalar.index(1);
    auto getOffset = [&](Value output) {
      return scalar.add(toIndex(scalar, extract(scalar, offsets, output)), one);
    };
    Value begin = getOffset(loops.back());
    Value end = getOffset(scalar.add(loops.back(), one));
    auto addEntry = [&](OpBuilder &nested, Location loc, Value entry,
                        ValueRange carried) {
      ScalarBuilder body(nested, loc);
      SmallVector<Value> place(loops), column(columnRank, body.index(0));
      place.back() = toIndex(body, extract(body, inputs, entry));
      column.front() = entry;
      Value product =
          body.mul(extract(body, x, place), extract(body, values, column));
      Value next = body.add(carried.front(), product);
      scf::YieldOp::create(nested, loc, next);
    };
    Value zero = scalar.constant(f32, 0);
    return scf::ForOp::create(builder, scalar.loc, begin, end, one, zero,
                              addEntry)
        .getResult(0);
  };
  return context.replace(
      buildTensor(context.rewriter, context.loc, sizes, f32, sum));
}

void nibble::addSparseProductConversions(NodeConversions &conversions) {
  conversions.add("nibble", "SparseMatMul", 0, convertSparseMatMul);
}
