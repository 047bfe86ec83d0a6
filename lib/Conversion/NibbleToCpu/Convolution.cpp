//===- Convolution.cpp - Sums of products over windows --------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Convolution.h"
#include "Contraction.h"

#include "mlir/Dialect/Arith/IR/Arith.h"

using namespace mlir;
using namespace nibble;

namespace {
/// A loop, times a number.
struct Term {
  unsigned loop;
  int64_t factor;
};
} // namespace

static std::optional<Term> getTerm(AffineExpr expression) {
  if (auto loop = dyn_cast<AffineDimExpr>(expression))
    return Term{loop.getPosition(), 1};
  auto product = dyn_cast<AffineBinaryOpExpr>(expression);
  if (!product || product.getKind() != AffineExprKind::Mul)
    return std::nullopt;
  auto loop = dyn_cast<AffineDimExpr>(product.getLHS());
  auto factor = dyn_cast<AffineConstantExpr>(product.getRHS());
  if (!loop || !factor || factor.getValue() < 1)
    return std::nullopt;
  return Term{loop.getPosition(), factor.getValue()};
}

/// The loops that the dimensions of an operand run along, each once; none
/// where it is not so.
static SmallVector<unsigned> getLoops(AffineMap map) {
  SmallVector<unsigned> loops;
  if (!map.isProjectedPermutation())
    return loops;
  for (unsigned i = 0; i < map.getNumResults(); ++i)
    loops.push_back(map.getDimPosition(i));
  return loops;
}

/// True for `%a = extui %x, %b = extsi %w, %p = muli %a, %b,
/// %t = addi %out, %p; yield %t` on i8 and i32.
static bool addsProductsOfBytes(linalg::GenericOp op) {
  Block &body = op.getRegion().front();
  auto yield = cast<linalg::YieldOp>(body.getTerminator());
  auto sum = yield.getValues()[0].getDefiningOp<arith::AddIOp>();
  if (!sum || body.getOperations().size() != 5 ||
      sum.getLhs() != body.getArgument(2))
    return false;
  auto product = sum.getRhs().getDefiningOp<arith::MulIOp>();
  if (!product || !product.getType().isInteger(32))
    return false;
  auto x = product.getLhs().getDefiningOp<arith::ExtUIOp>();
  auto w = product.getRhs().getDefiningOp<arith::ExtSIOp>();
  return x && w && x.getIn() == body.getArgument(0) &&
         w.getIn() == body.getArgument(1) && x.getIn().getType().isInteger(8) &&
         w.getIn().getType().isInteger(8);
}

std::optional<Convolution> nibble::matchConvolution(linalg::GenericOp op) {
  if (op.getNumDpsInputs() != 2 || op.getNumDpsInits() != 1)
    return std::nullopt;
  bool hasBytes = addsProductsOfBytes(op);
  if (!hasBytes && !addsProducts(op))
    return std::nullopt;
  SmallVector<AffineMap> maps = op.getIndexingMapsArray();
  SmallVector<unsigned> y = getLoops(maps[2]), w = getLoops(maps[1]);
  int64_t rank = maps[0].getNumResults();
  Convolution result;
  result.hasBytes = hasBytes;
  // y is [n, g, m, o…] or [n, m, o…], w is [g, m, c, k…] or [m, c, k…].
  result.grouped = y.size() > 2 && w.size() > 1 && y[2] == w[1];
  int64_t leading = result.leading(), spatial = rank - leading;
  if (spatial < 1 || static_cast<int64_t>(y.size()) != rank ||
      static_cast<int64_t>(w.size()) != rank)
    return std::nullopt;
  unsigned m = y[leading - 1], c = w[leading - 1];
  if (w[leading - 2] != m || llvm::is_contained(y, c) ||
      static_cast<int64_t>(op.getNumLoops()) != leading + 1 + 2 * spatial)
    return std::nullopt;
  ArrayRef<AffineExpr> x = maps[0].getResults();
  auto isLoop = [&](AffineExpr expression, unsigned loop) {
    auto dimension = dyn_cast<AffineDimExpr>(expression);
    return dimension && dimension.getPosition() == loop;
  };
  if (!isLoop(x[0], y[0]) || (result.grouped && !isLoop(x[1], y[1])) ||
      !isLoop(x[leading - 1], c))
    return std::nullopt;
  for (int64_t i = 0; i < spatial; ++i) {
    auto sum = dyn_cast<AffineBinaryOpExpr>(x[leading + i]);
    if (!sum || sum.getKind() != AffineExprKind::Add)
      return std::nullopt;
    std::optional<Term> a = getTerm(sum.getLHS()), b = getTerm(sum.getRHS());
    unsigned o = y[leading + i], k = w[leading + i];
    if (a && b && a->loop == k)
      std::swap(a, b);
    if (!a || !b || a->loop != o || b->loop != k)
      return std::nullopt;
    result.strides.push_back(a->factor);
    result.dilations.push_back(b->factor);
  }
  return result;
}
