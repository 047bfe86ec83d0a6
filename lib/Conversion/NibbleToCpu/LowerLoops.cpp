//===- LowerLoops.cpp - Elementwise ops and reductions as loops -----------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Three things that the plain lowering of linalg leaves to chance:
//
//   - dimensions that lie behind each other in all operands become one loop,
//     so that the innermost loop is as long as can be,
//   - what a reduction has so far is carried by its loops and not in memory,
//   - the outer loops run on several threads where there is work enough.
//
// Each op becomes a function (first, end, operands…) that does the rounds from
// `first` to `end` of the outer loops, which are counted as one. Ops that do
// the same share the function.
//
//===----------------------------------------------------------------------===//

#include "KernelBuilder.h"

#include "nibble/Conversion/OutlinedOps.h"
#include "nibble/Conversion/Passes.h"

#include "mlir/Dialect/Affine/Utils.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/IR/SymbolTable.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

namespace nibble {
#define GEN_PASS_DEF_LOWERLOOPS
#include "nibble/Conversion/Passes.h.inc"
} // namespace nibble

using namespace mlir;
using namespace nibble;

/// Elements below which more threads cost more than they save.
static constexpr int64_t kParallelElements = 1 << 15;
/// Elements of a round where the only loop is cut into rounds.
static constexpr int64_t kRound = 4096;
/// Parts of the rounds that threads take: enough that they end together.
static constexpr int64_t kParts = 64;

//===----------------------------------------------------------------------===//
// Dimensions that lie behind each other
//===----------------------------------------------------------------------===//

/// The loop that a dimension of an operand runs along: -1 for one of size 1
/// that is read at 0; none for anything else.
static std::optional<int64_t> getLoop(AffineExpr index, int64_t size) {
  if (auto loop = dyn_cast<AffineDimExpr>(index))
    return loop.getPosition();
  auto constant = dyn_cast<AffineConstantExpr>(index);
  if (constant && constant.getValue() == 0 && size == 1)
    return -1;
  return std::nullopt;
}

/// True where loops `loop` and the next one can be one for an operand.
static bool canMerge(AffineMap map, MemRefType type, int64_t loop) {
  int64_t outer = -1, inner = -1;
  for (auto [axis, index] : llvm::enumerate(map.getResults())) {
    std::optional<int64_t> own = getLoop(index, type.getDimSize(axis));
    if (!own) {
      if (index.isFunctionOfDim(loop) || index.isFunctionOfDim(loop + 1))
        return false;
      continue;
    }
    if (*own == loop)
      outer = outer < 0 ? axis : map.getNumResults();
    if (*own == loop + 1)
      inner = inner < 0 ? axis : map.getNumResults();
  }
  return (outer < 0 && inner < 0) ||
         (outer >= 0 && inner == outer + 1 && type.getLayout().isIdentity());
}

/// The loops of `op` in groups of which each can be one.
static SmallVector<ReassociationIndices> getGroups(linalg::GenericOp op) {
  llvm::SmallBitVector seen(op.getNumLoops());
  op.getRegion().walk([&](linalg::IndexOp index) { seen.set(index.getDim()); });
  SmallVector<utils::IteratorType> kinds = op.getIteratorTypesArray();
  SmallVector<ReassociationIndices> groups;
  for (unsigned loop = 0; loop < op.getNumLoops(); ++loop) {
    bool merges = loop > 0 && !seen.test(loop) && !seen.test(loop - 1) &&
                  kinds[loop] == kinds[loop - 1];
    for (OpOperand &operand : op->getOpOperands()) {
      auto type = dyn_cast<MemRefType>(operand.get().getType());
      merges = merges && (!type || canMerge(op.getMatchingIndexingMap(&operand),
                                            type, loop - 1));
    }
    if (merges)
      groups.back().push_back(loop);
    else
      groups.push_back({loop});
  }
  return groups;
}

namespace {
/// An operand with the dimensions of a group of loops as one.
struct MergedOperand {
  Value value;
  AffineMap map;
};
} // namespace

static MergedOperand mergeOperand(OpBuilder &builder, Location loc, Value value,
                                  AffineMap map, ArrayRef<int64_t> groupOf,
                                  unsigned numGroups) {
  SmallVector<AffineExpr> renamed(map.getNumDims());
  for (auto [loop, group] : llvm::enumerate(groupOf))
    renamed[loop] = builder.getAffineDimExpr(group);
  auto type = dyn_cast<MemRefType>(value.getType());
  SmallVector<ReassociationIndices> axes;
  SmallVector<AffineExpr> indices;
  for (auto [axis, index] : llvm::enumerate(map.getResults())) {
    AffineExpr own = index.replaceDims(renamed);
    bool continues = type && isa<AffineDimExpr>(own) && !indices.empty() &&
                     indices.back() == own && map.getResult(axis - 1) != index;
    if (continues) {
      axes.back().push_back(axis);
      continue;
    }
    axes.push_back({static_cast<int64_t>(axis)});
    indices.push_back(own);
  }
  AffineMap merged =
      AffineMap::get(numGroups, 0, indices, builder.getContext());
  if (type && axes.size() < static_cast<size_t>(type.getRank()))
    value = memref::CollapseShapeOp::create(builder, loc, value, axes);
  return {value, merged};
}

/// `op` with each group of its loops as one.
static linalg::GenericOp mergeLoops(RewriterBase &rewriter,
                                    linalg::GenericOp op) {
  SmallVector<ReassociationIndices> groups = getGroups(op);
  if (groups.size() == op.getNumLoops())
    return op;
  SmallVector<int64_t> groupOf;
  SmallVector<utils::IteratorType> kinds;
  for (auto [number, group] : llvm::enumerate(groups)) {
    groupOf.append(group.size(), number);
    kinds.push_back(op.getIteratorTypesArray()[group[0]]);
  }
  rewriter.setInsertionPoint(op);
  Values inputs, outputs;
  SmallVector<AffineMap> maps;
  for (OpOperand &operand : op->getOpOperands()) {
    MergedOperand merged = mergeOperand(rewriter, op.getLoc(), operand.get(),
                                        op.getMatchingIndexingMap(&operand),
                                        groupOf, groups.size());
    (op.isDpsInit(&operand) ? outputs : inputs).push_back(merged.value);
    maps.push_back(merged.map);
  }
  op.getRegion().walk(
      [&](linalg::IndexOp index) { index.setDim(groupOf[index.getDim()]); });
  auto result = linalg::GenericOp::create(rewriter, op.getLoc(), TypeRange(),
                                          inputs, outputs, maps, kinds);
  rewriter.inlineRegionBefore(op.getRegion(), result.getRegion(),
                              result.getRegion().begin());
  rewriter.eraseOp(op);
  return result;
}

//===----------------------------------------------------------------------===//
// Loops
//===----------------------------------------------------------------------===//

namespace {
/// How the loops of an op are run.
struct LoopOrder {
  explicit LoopOrder(linalg::GenericOp op);

  /// Loops that are counted as one.
  SmallVector<unsigned> outer;
  /// The loops in them. All are reductions, or the last one is not.
  SmallVector<unsigned> inner;
  /// Whether the inner loops are reductions only.
  bool carries = false;
  /// Whether the last of the inner loops is cut into rounds, the only outer
  /// loop.
  bool cut = false;
};

/// Writes the loops of an op.
class LoopEmitter {
public:
  LoopEmitter(KernelBuilder &kernel, linalg::GenericOp op);

  /// How often the outer loops run, and elements of all loops.
  Value buildRounds();
  Value buildElements();
  /// The rounds from `first` to `end`.
  void build(Value first, Value end);

private:
  void buildRound(Value round);
  void buildInner(size_t depth);
  Values buildCarried(size_t depth, ValueRange carried);
  /// What the body gives; `carried` stand for the results so far.
  Values buildBody(ValueRange carried);
  Value loadOperand(OpOperand &operand);
  void storeResults(ValueRange results);
  Values getIndices(OpOperand &operand);

  KernelBuilder &kernel;
  linalg::GenericOp op;
  LoopOrder order;
  Values sizes, positions;
  /// Bounds of the loop that is cut.
  Value cutFirst, cutEnd;
};
} // namespace

LoopOrder::LoopOrder(linalg::GenericOp op) {
  SmallVector<utils::IteratorType> kinds = op.getIteratorTypesArray();
  auto isReduction = [&](unsigned loop) {
    return kinds[loop] == utils::IteratorType::reduction;
  };
  unsigned count = op.getNumLoops();
  carries = count > 0 && isReduction(count - 1);
  bool inside = false;
  for (unsigned loop = 0; loop < count; ++loop) {
    inside |= isReduction(loop) || (!carries && loop + 1 == count);
    bool isInner = carries ? isReduction(loop) : inside;
    (isInner ? inner : outer).push_back(loop);
  }
  cut = outer.empty() && !inner.empty() && !carries;
}

LoopEmitter::LoopEmitter(KernelBuilder &kernel, linalg::GenericOp op)
    : kernel(kernel), op(op), order(op), positions(op.getNumLoops()) {
  auto linalg = cast<linalg::LinalgOp>(op.getOperation());
  for (Range range : linalg.createLoopRanges(kernel.builder, kernel.loc))
    sizes.push_back(getValueOrCreateConstantIndexOp(kernel.builder, kernel.loc,
                                                    range.size));
}

Value LoopEmitter::buildRounds() {
  if (order.cut)
    return kernel.divideUp(sizes[order.inner.back()], kRound);
  Value rounds = kernel.index(1);
  for (unsigned loop : order.outer)
    rounds = kernel.mul(rounds, sizes[loop]);
  return rounds;
}

Value LoopEmitter::buildElements() {
  Value elements = kernel.index(1);
  for (Value size : sizes)
    elements = kernel.mul(elements, size);
  return elements;
}

Values LoopEmitter::getIndices(OpOperand &operand) {
  Values indices;
  for (AffineExpr index : op.getMatchingIndexingMap(&operand).getResults())
    indices.push_back(affine::expandAffineExpr(kernel.builder, kernel.loc,
                                               index, positions, {}));
  return indices;
}

Value LoopEmitter::loadOperand(OpOperand &operand) {
  if (!isa<MemRefType>(operand.get().getType()))
    return operand.get();
  return kernel.load(operand.get(), getIndices(operand));
}

Values LoopEmitter::buildBody(ValueRange carried) {
  IRMapping mapping;
  for (OpOperand &operand : op->getOpOperands()) {
    BlockArgument argument = op.getMatchingBlockArgument(&operand);
    unsigned output = operand.getOperandNumber() - op.getNumDpsInputs();
    if (op.isDpsInit(&operand) && !carried.empty())
      mapping.map(argument, carried[output]);
    else if (!argument.use_empty())
      mapping.map(argument, loadOperand(operand));
  }
  return copyBody(kernel.builder, op, mapping, positions);
}

void LoopEmitter::storeResults(ValueRange results) {
  for (auto [result, operand] : llvm::zip(results, op.getDpsInitsMutable()))
    kernel.store(result, operand.get(), getIndices(operand));
}

Values LoopEmitter::buildCarried(size_t depth, ValueRange carried) {
  if (depth == order.inner.size())
    return buildBody(carried);
  unsigned loop = order.inner[depth];
  return kernel.loop(kernel.index(0), sizes[loop], 1, carried,
                     [&](Value position, ValueRange values) {
                       positions[loop] = position;
                       return buildCarried(depth + 1, values);
                     });
}

void LoopEmitter::buildInner(size_t depth) {
  if (depth == order.inner.size())
    return storeResults(buildBody({}));
  unsigned loop = order.inner[depth];
  bool isCut = order.cut && depth + 1 == order.inner.size();
  kernel.loop(isCut ? cutFirst : kernel.index(0), isCut ? cutEnd : sizes[loop],
              1, [&](Value position) {
                positions[loop] = position;
                buildInner(depth + 1);
              });
}

void LoopEmitter::buildRound(Value round) {
  if (order.cut) {
    cutFirst = kernel.mul(round, kRound);
    cutEnd =
        kernel.min(sizes[order.inner.back()], kernel.add(cutFirst, kRound));
  }
  if (!order.carries)
    return buildInner(0);
  Values initial;
  for (OpOperand &operand : op.getDpsInitsMutable())
    initial.push_back(loadOperand(operand));
  storeResults(buildCarried(0, initial));
}

void LoopEmitter::build(Value first, Value end) {
  ArrayRef<unsigned> outer = order.outer;
  if (outer.size() < 2) {
    kernel.loop(first, end, 1, [&](Value round) {
      if (!outer.empty())
        positions[outer[0]] = round;
      buildRound(round);
    });
    return;
  }
  // The places of the outer loops count along: divisions would cost more than
  // a short inner loop.
  Values start(outer.size());
  Value rest = first;
  for (size_t i = outer.size(); i-- > 0;) {
    Value size = kernel.max(sizes[outer[i]], kernel.index(1));
    start[i] = arith::RemUIOp::create(kernel.builder, kernel.loc, rest, size);
    rest = kernel.divide(rest, size);
  }
  kernel.loop(first, end, 1, start, [&](Value round, ValueRange places) {
    for (auto [loop, place] : llvm::zip(outer, places))
      positions[loop] = place;
    buildRound(round);
    Values next(places);
    Value step = kernel.index(1);
    for (size_t i = outer.size(); i-- > 0;) {
      next[i] = kernel.add(next[i], step);
      if (i == 0)
        break;
      Value wraps = arith::CmpIOp::create(kernel.builder, kernel.loc,
                                          arith::CmpIPredicate::eq, next[i],
                                          sizes[outer[i]]);
      next[i] = arith::SelectOp::create(kernel.builder, kernel.loc, wraps,
                                        kernel.index(0), next[i]);
      step = arith::IndexCastUIOp::create(kernel.builder, kernel.loc,
                                          kernel.indexType(), wraps);
    }
    return next;
  });
}

//===----------------------------------------------------------------------===//
// The pass
//===----------------------------------------------------------------------===//

/// True where the body of an op does nothing but compute and read: a check
/// may fail on the thread that began the run only.
static bool onlyComputes(linalg::LinalgOp op) {
  return !op.getOperation()
              ->walk([&](Operation *inside) {
                bool isFine = inside == op.getOperation() ||
                              isa<memref::LoadOp>(inside) ||
                              (inside->getNumRegions() == 0 &&
                               isMemoryEffectFree(inside));
                return isFine ? WalkResult::advance() : WalkResult::interrupt();
              })
              .wasInterrupted();
}

namespace {
struct LowerLoops : nibble::impl::LowerLoopsBase<LowerLoops> {
  void runOnOperation() override {
    SmallVector<linalg::LinalgOp> ops;
    getOperation().walk([&](linalg::LinalgOp op) {
      if (op.hasPureBufferSemantics() && op.getNumLoops() > 0 &&
          onlyComputes(op))
        ops.push_back(op);
    });
    SymbolTable symbols(getOperation());
    for (linalg::LinalgOp op : ops)
      lower(op, symbols);
    functions.clear();
  }

private:
  void lower(linalg::LinalgOp op, SymbolTable &symbols);
  func::FuncOp getFunction(linalg::GenericOp op, const OutsideValues &outside,
                           SymbolTable &symbols);

  OutlinedFunctions functions;
};
} // namespace

/// The function (first, end, operands…) that does the rounds of `op`, which
/// stands in `all`.
static func::FuncOp createRounds(linalg::GenericOp op, func::FuncOp all) {
  Location loc = op.getLoc();
  IRRewriter rewriter(op.getContext());
  SmallVector<Type> types(2, rewriter.getIndexType());
  llvm::append_range(types, all.getArgumentTypes());
  func::FuncOp rounds =
      createOutlinedFunction(loc, (all.getName() + "_rounds").str(), types);
  Block &body = rounds.front();
  rewriter.setInsertionPointToStart(&body);
  IRMapping mapping;
  mapping.map(all.getArguments(), body.getArguments().drop_front(2));
  for (Operation &inside : all.front().without_terminator())
    rewriter.clone(inside, mapping);
  auto copy = cast<linalg::GenericOp>(body.getTerminator()->getPrevNode());
  rewriter.setInsertionPoint(copy);
  KernelBuilder kernel(rewriter, loc);
  LoopEmitter(kernel, copy).build(body.getArgument(0), body.getArgument(1));
  rewriter.eraseOp(copy);
  return rounds;
}

/// Replaces `op`, which stands in `all`, by calls of `rounds`.
static void buildCalls(linalg::GenericOp op, func::FuncOp all,
                       func::FuncOp rounds) {
  IRRewriter rewriter(op);
  Location loc = op.getLoc();
  KernelBuilder kernel(rewriter, loc);
  LoopEmitter emitter(kernel, op);
  Value count = emitter.buildRounds(), elements = emitter.buildElements();
  Value zero = kernel.index(0), one = kernel.index(1);
  auto call = [&](Value first, Value end) {
    Values values{first, end};
    llvm::append_range(values, all.getArguments());
    func::CallOp::create(rewriter, loc, rounds, values);
  };
  kernel.ifThen(
      kernel.less(kernel.index(kParallelElements), elements),
      [&] {
        Value size = kernel.divideUp(count, kParts);
        Value parts =
            kernel.divide(kernel.add(count, kernel.sub(size, one)), size);
        scf::ParallelOp::create(
            rewriter, loc, zero, parts, one,
            [&](OpBuilder &, Location, ValueRange part) {
              Value first = kernel.mul(part[0], size);
              call(first, kernel.min(count, kernel.add(first, size)));
            });
      },
      [&] { call(zero, count); });
  rewriter.eraseOp(op);
}

/// The function that does what `op` does with what it reads from outside.
func::FuncOp LowerLoops::getFunction(linalg::GenericOp op,
                                     const OutsideValues &outside,
                                     SymbolTable &symbols) {
  auto [all, copy] = functions.outline(op, outside, "nibble_loop");
  if (!copy)
    return all;
  symbols.insert(all);
  IRRewriter rewriter(copy);
  auto inside = mergeLoops(rewriter, cast<linalg::GenericOp>(copy));
  func::FuncOp rounds = createRounds(inside, all);
  symbols.insert(rounds);
  buildCalls(inside, all, rounds);
  ++numFunctions;
  return all;
}

void LowerLoops::lower(linalg::LinalgOp linalg, SymbolTable &symbols) {
  IRRewriter rewriter(linalg);
  linalg::GenericOp op = generalize(rewriter, linalg);
  if (!op)
    return;
  OutsideValues outside = collectOutsideValues(op, /*repeatsGlobals=*/true);
  func::FuncOp function = getFunction(op, outside, symbols);
  rewriter.setInsertionPoint(op);
  func::CallOp::create(rewriter, op.getLoc(), function, outside.arguments);
  rewriter.eraseOp(op);
  ++numOps;
}
