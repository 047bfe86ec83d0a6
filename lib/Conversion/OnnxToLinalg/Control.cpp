//===- Control.cpp - If, Loop and Scan ------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "NodeConversion.h"

#include "nibble/Dialect/Onnx/IR/TensorData.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

#include <limits>

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// Bodies
//===----------------------------------------------------------------------===//

/// The plain type of a value in the onnx dialect; null where it is no tensor
/// of numbers with a rank.
static RankedTensorType getPlainType(Type type) {
  auto tensor = dyn_cast<RankedTensorType>(type);
  return tensor ? getStoredType(tensor) : RankedTensorType();
}

/// `value`, which may not be converted yet, as `type`, whose rank and elements
/// are its own.
static Value toPlain(NodeContext &context, Value value, RankedTensorType type) {
  RankedTensorType plain = getPlainType(value.getType());
  if (plain != value.getType())
    value = UnrealizedConversionCastOp::create(context.rewriter, context.loc,
                                               plain, value)
                .getResult(0);
  if (plain != type)
    value = tensor::CastOp::create(context.rewriter, context.loc, type, value);
  return value;
}

static Value toPlain(NodeContext &context, Value value) {
  return toPlain(context, value, getPlainType(value.getType()));
}

static Value castTo(NodeContext &context, Value plain, RankedTensorType type) {
  if (plain.getType() == type)
    return plain;
  return tensor::CastOp::create(context.rewriter, context.loc, type, plain);
}

/// A plain tensor as an argument of a body that is not converted yet.
static Value toArgument(NodeContext &context, Value plain, Type type) {
  plain = castTo(context, plain, getPlainType(type));
  if (plain.getType() == type)
    return plain;
  return UnrealizedConversionCastOp::create(context.rewriter, context.loc, type,
                                            plain)
      .getResult(0);
}

/// Checks that `to` can hold what is of type `from`.
static bool canCast(RankedTensorType from, RankedTensorType to) {
  return from && to && from.getElementType() == to.getElementType() &&
         from.getRank() == to.getRank() &&
         succeeded(verifyCompatibleShape(from, to));
}

/// Moves what a body does to where the rewriter is. Returns what the body
/// returns, in the onnx dialect.
static SmallVector<Value> inlineBody(NodeContext &context, Region &body,
                                     ValueRange arguments) {
  Block &block = body.front();
  Operation *end = block.getTerminator();
  SmallVector<Value> returned(end->getOperands());
  // An argument may be returned as it is.
  for (Value &value : returned)
    if (auto argument = dyn_cast<BlockArgument>(value);
        argument && argument.getOwner() == &block)
      value = arguments[argument.getArgNumber()];
  ConversionPatternRewriter &rewriter = context.rewriter;
  rewriter.eraseOp(end);
  rewriter.inlineBlockBefore(&block, rewriter.getInsertionBlock(),
                             rewriter.getInsertionPoint(), arguments);
  return returned;
}

/// The types that a body returns; fails where one is not known.
static FailureOr<SmallVector<RankedTensorType>>
getReturnedTypes(NodeContext &context, Region &body) {
  SmallVector<RankedTensorType> types;
  for (Value value : body.front().getTerminator()->getOperands()) {
    types.push_back(getPlainType(value.getType()));
    if (!types.back())
      return context.fail("output " + Twine(types.size() - 1) +
                          " of a subgraph is not known to be a tensor of "
                          "numbers with a rank");
  }
  return types;
}

FailureOr<Value> nibble::inlineFunction(NodeContext &context, Region &body,
                                        Value argument) {
  Block &block = body.front();
  auto returned = getReturnedTypes(context, body);
  if (failed(returned))
    return failure();
  if (block.getNumArguments() != 1 || returned->size() != 1 ||
      !canCast(cast<RankedTensorType>(argument.getType()),
               getPlainType(block.getArgument(0).getType())))
    return context.fail("a subgraph does not take one tensor of this type and "
                        "give one");
  Value given = toArgument(context, argument, block.getArgument(0).getType());
  return toPlain(context, inlineBody(context, body, given).front());
}

/// The only element of a tensor: [] or [1, …].
static Value extractOnly(NodeContext &context, Value tensor) {
  int64_t rank = cast<RankedTensorType>(tensor.getType()).getRank();
  SmallVector<Value> indices(rank, context.scalar().index(0));
  return tensor::ExtractOp::create(context.rewriter, context.loc, tensor,
                                   indices);
}

/// A tensor of `type`, [] or [1, …], that holds `element`.
static Value makeOnly(NodeContext &context, Value element,
                      RankedTensorType type) {
  auto filled = RankedTensorType::get(SmallVector<int64_t>(type.getRank(), 1),
                                      type.getElementType());
  return tensor::FromElementsOp::create(context.rewriter, context.loc, filled,
                                        element);
}

static bool isOnly(RankedTensorType type) {
  return type && llvm::all_of(type.getShape(), [](int64_t size) {
           return size == 1 || ShapedType::isDynamic(size);
         });
}

//===----------------------------------------------------------------------===//
// If
//===----------------------------------------------------------------------===//

/// Ends a branch: what it returns becomes the results of the scf.if.
static void buildBranch(NodeContext &context, Region &body, Block *block,
                        ArrayRef<RankedTensorType> types) {
  context.rewriter.setInsertionPointToStart(block);
  SmallVector<Value> results;
  for (auto [value, type] : llvm::zip(inlineBody(context, body, {}), types))
    results.push_back(toPlain(context, value, type));
  scf::YieldOp::create(context.rewriter, context.loc, results);
}

static LogicalResult convertIf(NodeContext &context) {
  NodeOp node = context.node;
  if (node->getNumRegions() != 2)
    return context.fail("needs a then_branch and an else_branch");
  Attribute first =
      cast<NodeAttributeAttr>(node.getNodeAttributes()[0]).getName();
  bool thenFirst = first == StringAttr::get(node.getContext(), "then_branch");
  Region &thenBody = node->getRegion(thenFirst ? 0 : 1);
  Region &elseBody = node->getRegion(thenFirst ? 1 : 0);

  // A branch that is never taken is not even looked at.
  if (auto condition = context.getConstantInts(0);
      condition && condition->size() == 1) {
    Region &taken = condition->front() ? thenBody : elseBody;
    if (failed(getReturnedTypes(context, taken)))
      return failure();
    SmallVector<Value> results;
    for (Value value : inlineBody(context, taken, {}))
      results.push_back(toPlain(context, value));
    return context.replace(results);
  }

  auto thenTypes = getReturnedTypes(context, thenBody);
  auto elseTypes = getReturnedTypes(context, elseBody);
  if (failed(thenTypes) || failed(elseTypes))
    return failure();
  SmallVector<RankedTensorType> types;
  SmallVector<Type> resultTypes;
  for (unsigned i = 0; i < node->getNumResults(); ++i) {
    types.push_back(getPlainType(node->getResult(i).getType()));
    resultTypes.push_back(types.back());
    if (!canCast((*thenTypes)[i], types[i]) ||
        !canCast((*elseTypes)[i], types[i]))
      return context.fail("its branches give output " + Twine(i) +
                          " different ranks or element types; make them "
                          "equal, or make the condition constant");
  }
  Value condition = extractOnly(context, context.getInput(0));
  auto branch = scf::IfOp::create(context.rewriter, context.loc, resultTypes,
                                  condition, /*addThenBlock=*/true,
                                  /*addElseBlock=*/true);
  {
    OpBuilder::InsertionGuard guard(context.rewriter);
    buildBranch(context, thenBody, branch.thenBlock(), types);
    buildBranch(context, elseBody, branch.elseBlock(), types);
  }
  return context.replace(branch.getResults());
}

//===----------------------------------------------------------------------===//
// Rows that a loop collects
//===----------------------------------------------------------------------===//

namespace {
/// A tensor that gets one row in each iteration. Where the rows' shape is only
/// known once the first is there, or their number is not, it is made when it is
/// full, and made anew twice as large.
class Rows {
public:
  /// `capacity`: the number of rows, or null where it is not known before.
  Rows(NodeContext &context, RankedTensorType row, Value capacity)
      : context(context), row(row), capacity(capacity) {
    SmallVector<int64_t> shape{ShapedType::kDynamic};
    llvm::append_range(shape, row.getShape());
    type = RankedTensorType::get(shape, row.getElementType());
  }

  RankedTensorType getType() const { return type; }

  /// The tensor before the first iteration.
  Value begin() {
    ScalarBuilder scalar = context.scalar();
    Value zero = scalar.index(0);
    SmallVector<Value> sizes{isFixed() ? capacity : zero};
    sizes.append(row.getNumDynamicDims(), zero);
    return tensor::EmptyOp::create(context.rewriter, context.loc, type, sizes);
  }

  /// `rows` with the row `element` at `position`, after `count` others have
  /// been added.
  Value add(Value rows, Value element, Value count, Value position) {
    OpBuilder &builder = context.rewriter;
    Location loc = context.loc;
    if (!isFixed())
      rows = grow(rows, element, count);
    Sizes offsets(type.getRank(), builder.getIndexAttr(0));
    Sizes strides(type.getRank(), builder.getIndexAttr(1));
    offsets[0] = position;
    return tensor::InsertSliceOp::create(builder, loc, element, rows, offsets,
                                         getRowSizes(element), strides);
  }

  /// The first `count` rows.
  Value finish(Value rows, Value count) {
    OpBuilder &builder = context.rewriter;
    if (isFixed())
      return rows;
    Sizes sizes = context.getSizes(rows);
    sizes[0] = count;
    return tensor::ExtractSliceOp::create(
        builder, context.loc, rows,
        Sizes(type.getRank(), builder.getIndexAttr(0)), sizes,
        Sizes(type.getRank(), builder.getIndexAttr(1)));
  }

private:
  bool isFixed() const { return capacity && row.hasStaticShape(); }

  /// [1, sizes of `element`]
  Sizes getRowSizes(Value element) {
    Sizes sizes{context.rewriter.getIndexAttr(1)};
    llvm::append_range(sizes, context.getSizes(element));
    return sizes;
  }

  Value grow(Value rows, Value element, Value count) {
    ConversionPatternRewriter &builder = context.rewriter;
    Location loc = context.loc;
    ScalarBuilder scalar = context.scalar();
    Value held = context.toValue(getSize(builder, loc, rows, 0));
    Value isFull = scalar.lessEqual(held, count);
    auto branch = scf::IfOp::create(builder, loc, type, isFull,
                                    /*withElseRegion=*/true);
    {
      OpBuilder::InsertionGuard guard(builder);
      builder.setInsertionPointToStart(branch.elseBlock());
      scf::YieldOp::create(builder, loc, rows);
      builder.setInsertionPointToStart(branch.thenBlock());
      Value least = capacity ? capacity : scalar.index(4);
      Value twice = scalar.add(count, count);
      SmallVector<Value> sizes{scalar.max(least, twice)};
      Sizes kept = getRowSizes(element);
      kept[0] = count;
      for (auto [axis, size] : llvm::enumerate(row.getShape()))
        if (ShapedType::isDynamic(size))
          sizes.push_back(context.toValue(kept[axis + 1]));
      Value larger = tensor::EmptyOp::create(builder, loc, type, sizes);
      Sizes offsets(type.getRank(), builder.getIndexAttr(0));
      Sizes strides(type.getRank(), builder.getIndexAttr(1));
      Value old = tensor::ExtractSliceOp::create(builder, loc, rows, offsets,
                                                 kept, strides);
      Value copied = tensor::InsertSliceOp::create(builder, loc, old, larger,
                                                   offsets, kept, strides);
      scf::YieldOp::create(builder, loc, copied);
    }
    Value result = branch.getResult(0);
    for (auto [axis, size] : llvm::enumerate(row.getShape()))
      if (ShapedType::isDynamic(size)) {
        Value wanted = context.toValue(getSize(builder, loc, result, axis + 1));
        Value given = context.toValue(getSize(builder, loc, element, axis));
        context.check(scalar.equal(wanted, given),
                      "its body gives outputs of different shapes, which "
                      "cannot be stacked");
      }
    return result;
  }

  NodeContext &context;
  RankedTensorType row, type;
  Value capacity;
};
} // namespace

//===----------------------------------------------------------------------===//
// Loop
//===----------------------------------------------------------------------===//

namespace {
/// What goes from one iteration of a Loop to the next: how many there have
/// been, whether another follows, the carried values, the collected rows.
struct LoopState {
  Value count, condition;
  SmallVector<Value> carried, rows;

  SmallVector<Value> flatten() const {
    SmallVector<Value> values{count, condition};
    llvm::append_range(values, carried);
    llvm::append_range(values, rows);
    return values;
  }
  static LoopState unflatten(ValueRange values, unsigned numCarried) {
    LoopState state;
    state.count = values[0];
    state.condition = values[1];
    llvm::append_range(state.carried, values.slice(2, numCarried));
    llvm::append_range(state.rows, values.drop_front(2 + numCarried));
    return state;
  }
};
} // namespace

/// The start of every iteration. A model may loop for ever: what is built here
/// is the one place where a run that is to be interrupted would ask for it.
static void beginIteration(NodeContext &context) { (void)context; }

/// Builds one iteration at the rewriter's place.
static LoopState buildIteration(NodeContext &context, Region &body,
                                const LoopState &state,
                                ArrayRef<RankedTensorType> carriedTypes,
                                MutableArrayRef<Rows> collected) {
  ScalarBuilder scalar = context.scalar();
  OpBuilder &builder = context.rewriter;
  beginIteration(context);
  Value number = arith::IndexCastOp::create(builder, context.loc,
                                            builder.getI64Type(), state.count);
  SmallVector<Value> arguments;
  for (BlockArgument argument : body.getArguments()) {
    unsigned index = argument.getArgNumber();
    RankedTensorType type = getPlainType(argument.getType());
    Value value = index == 0   ? makeOnly(context, number, type)
                  : index == 1 ? makeOnly(context, scalar.boolean(true), type)
                               : state.carried[index - 2];
    arguments.push_back(toArgument(context, value, argument.getType()));
  }
  SmallVector<Value> returned = inlineBody(context, body, arguments);
  LoopState next;
  next.count = scalar.add(state.count, scalar.index(1));
  next.condition = extractOnly(context, toPlain(context, returned[0]));
  ArrayRef<Value> rest = ArrayRef(returned).drop_front();
  for (auto [value, type] : llvm::zip(rest, carriedTypes))
    next.carried.push_back(toPlain(context, value, type));
  rest = rest.drop_front(carriedTypes.size());
  for (auto [value, row, rows] : llvm::zip(rest, collected, state.rows))
    next.rows.push_back(
        row.add(rows, toPlain(context, value), state.count, state.count));
  return next;
}

static LogicalResult convertLoop(NodeContext &context) {
  NodeOp node = context.node;
  if (node->getNumRegions() != 1 || context.getNumInputs() < 2)
    return context.fail("needs a body, a trip count and a condition");
  Region &body = node->getRegion(0);
  auto returned = getReturnedTypes(context, body);
  if (failed(returned))
    return failure();
  unsigned numCarried = context.getNumInputs() - 2;
  if (body.getNumArguments() != numCarried + 2 ||
      returned->size() != node->getNumResults() + 1 ||
      node->getNumResults() < numCarried)
    return context.fail("its body has not the inputs and outputs that the "
                        "node's inputs and outputs ask for");
  SmallVector<RankedTensorType> carriedTypes;
  for (unsigned i = 0; i < numCarried; ++i) {
    RankedTensorType type = getPlainType(node->getResult(i).getType());
    RankedTensorType argument = getPlainType(body.getArgument(i + 2).getType());
    carriedTypes.push_back(type);
    if (context.isAbsent(i + 2) ||
        !canCast(getPlainType(node.getInput(i + 2).getType()), type) ||
        !canCast((*returned)[i + 1], type) || !canCast(type, argument))
      return context.fail("value " + Twine(i) +
                          " that it carries changes its rank or is no tensor "
                          "of numbers");
  }
  for (unsigned i : {0u, 1u})
    if (!isOnly(getPlainType(body.getArgument(i).getType())) ||
        (!context.isAbsent(i) && !isOnly(context.getInputType(i))))
      return context.fail("the trip count and the condition must be scalars");
  if (!isOnly(returned->front()))
    return context.fail("its body gives a condition that is no scalar");

  ConversionPatternRewriter &rewriter = context.rewriter;
  ScalarBuilder scalar = context.scalar();
  Location loc = context.loc;
  Value limit = context.isAbsent(0)
                    ? scalar.index(std::numeric_limits<int64_t>::max())
                    : arith::IndexCastOp::create(
                          rewriter, loc, rewriter.getIndexType(),
                          extractOnly(context, context.getInput(0)))
                          .getResult();
  SmallVector<Rows> collected;
  LoopState initial;
  initial.count = scalar.index(0);
  initial.condition = context.isAbsent(1)
                          ? scalar.boolean(true)
                          : extractOnly(context, context.getInput(1));
  for (unsigned i = 0; i < numCarried; ++i)
    initial.carried.push_back(
        castTo(context, context.getInput(i + 2), carriedTypes[i]));
  for (RankedTensorType row : ArrayRef(*returned).drop_front(numCarried + 1)) {
    collected.emplace_back(context, row, /*capacity=*/Value());
    initial.rows.push_back(collected.back().begin());
  }

  SmallVector<Value> operands = initial.flatten();
  SmallVector<Type> types(ValueRange(operands).getTypes());
  auto loop = scf::WhileOp::create(rewriter, loc, types, operands,
                                   /*beforeBuilder=*/nullptr,
                                   /*afterBuilder=*/nullptr);
  {
    OpBuilder::InsertionGuard guard(rewriter);
    Block *before = loop.getBeforeBody();
    rewriter.setInsertionPointToStart(before);
    Value goesOn =
        arith::AndIOp::create(rewriter, loc, before->getArgument(1),
                              scalar.less(before->getArgument(0), limit));
    scf::ConditionOp::create(rewriter, loc, goesOn, before->getArguments());
    Block *after = loop.getAfterBody();
    rewriter.setInsertionPointToStart(after);
    LoopState state = LoopState::unflatten(after->getArguments(), numCarried);
    LoopState next =
        buildIteration(context, body, state, carriedTypes, collected);
    scf::YieldOp::create(rewriter, loc, next.flatten());
  }
  LoopState last = LoopState::unflatten(loop.getResults(), numCarried);
  SmallVector<Value> results(last.carried);
  for (auto [rows, value] : llvm::zip(collected, last.rows))
    results.push_back(rows.finish(value, last.count));
  return context.replace(results);
}

//===----------------------------------------------------------------------===//
// Scan
//===----------------------------------------------------------------------===//

namespace {
/// A Scan's inputs and outputs in the order of the body's: states, then what is
/// scanned or stacked along its axis, backwards where `backward`.
struct ScanLayout {
  unsigned states = 0;
  SmallVector<int64_t> inputAxes, outputAxes;
  SmallVector<bool> inputBackward, outputBackward;
};
} // namespace

/// An attribute with one integer for each of `count` tensors, 0 where absent.
static FailureOr<SmallVector<int64_t>>
getPerTensor(NodeContext &context, StringRef name, size_t count) {
  SmallVector<int64_t> values(count, 0);
  if (auto given = context.node.getInts(name))
    values.assign(given->begin(), given->end());
  if (values.size() != count)
    return context.fail("the attribute '" + name + "' needs " + Twine(count) +
                        " integers");
  return values;
}

static FailureOr<ScanLayout> getLayout(NodeContext &context, Region &body) {
  NodeOp node = context.node;
  bool hasBatch = context.version < 9;
  unsigned numInputs = context.getNumInputs() - (hasBatch ? 1 : 0);
  int64_t scanned = node.getInt("num_scan_inputs", 0);
  unsigned numOutputs = node->getNumResults();
  ScanLayout layout;
  if (scanned < 1 || scanned > numInputs ||
      body.getNumArguments() != numInputs ||
      body.front().getTerminator()->getNumOperands() != numOutputs ||
      numInputs - scanned > numOutputs)
    return context.fail("its body has not the inputs and outputs that the "
                        "node's inputs and outputs ask for");
  layout.states = numInputs - scanned;
  auto inputDirections = getPerTensor(
      context, hasBatch ? "directions" : "scan_input_directions", scanned);
  auto inputAxes = getPerTensor(context, "scan_input_axes", scanned);
  auto outputDirections = getPerTensor(context, "scan_output_directions",
                                       numOutputs - layout.states);
  auto outputAxes =
      getPerTensor(context, "scan_output_axes", numOutputs - layout.states);
  if (failed(inputDirections) || failed(inputAxes) ||
      failed(outputDirections) || failed(outputAxes))
    return failure();
  layout.inputAxes = *inputAxes;
  layout.outputAxes = *outputAxes;
  for (int64_t direction : *inputDirections)
    layout.inputBackward.push_back(direction != 0);
  for (int64_t direction : *outputDirections)
    layout.outputBackward.push_back(direction != 0);
  return layout;
}

/// `tensor` at `position` of `axis`, without the axis.
static Value takeAt(NodeContext &context, Value tensor, int64_t axis,
                    Value position) {
  OpBuilder &builder = context.rewriter;
  Sizes sizes = context.getSizes(tensor);
  Sizes offsets(sizes.size(), builder.getIndexAttr(0));
  Sizes strides(sizes.size(), builder.getIndexAttr(1));
  sizes[axis] = builder.getIndexAttr(1);
  offsets[axis] = position;
  auto type = cast<RankedTensorType>(tensor.getType());
  SmallVector<int64_t> shape(type.getShape());
  shape.erase(shape.begin() + axis);
  return tensor::ExtractSliceOp::create(
      builder, context.loc, RankedTensorType::get(shape, type.getElementType()),
      tensor, offsets, sizes, strides);
}

/// `rows` with its first dimension moved to `axis`.
static Value moveFirstTo(NodeContext &context, Value rows, int64_t axis) {
  int64_t rank = cast<RankedTensorType>(rows.getType()).getRank();
  if (axis == 0)
    return rows;
  SmallVector<int64_t> order;
  for (int64_t i = 1; i < rank; ++i)
    order.push_back(i);
  order.insert(order.begin() + axis, 0);
  return buildTranspose(context, rows, order);
}

/// Runs the body over `length` elements of `scanned`. Returns the last states
/// and the stacked outputs.
static SmallVector<Value> buildScan(NodeContext &context, Region &body,
                                    const ScanLayout &layout,
                                    ArrayRef<Value> states,
                                    ArrayRef<Value> scanned, Value length,
                                    ArrayRef<RankedTensorType> returned) {
  ConversionPatternRewriter &rewriter = context.rewriter;
  Location loc = context.loc;
  ScalarBuilder scalar = context.scalar();
  SmallVector<Value> initial(states);
  SmallVector<Rows> collected;
  for (RankedTensorType row : returned.drop_front(layout.states)) {
    collected.emplace_back(context, row, length);
    initial.push_back(collected.back().begin());
  }
  auto loop = scf::ForOp::create(rewriter, loc, scalar.index(0), length,
                                 scalar.index(1), initial);
  {
    OpBuilder::InsertionGuard guard(rewriter);
    rewriter.setInsertionPointToStart(loop.getBody());
    Value count = loop.getInductionVar();
    Value mirrored = scalar.sub(scalar.sub(length, scalar.index(1)), count);
    beginIteration(context);
    SmallVector<Value> arguments;
    for (auto [index, argument] : llvm::enumerate(body.getArguments())) {
      Value value;
      if (index < layout.states) {
        value = loop.getRegionIterArg(index);
      } else {
        size_t i = index - layout.states;
        value = takeAt(context, scanned[i], layout.inputAxes[i],
                       layout.inputBackward[i] ? mirrored : count);
      }
      arguments.push_back(toArgument(context, value, argument.getType()));
    }
    SmallVector<Value> next;
    for (auto [index, value] :
         llvm::enumerate(inlineBody(context, body, arguments))) {
      Value before = loop.getRegionIterArg(index);
      auto type = cast<RankedTensorType>(before.getType());
      if (index < layout.states) {
        next.push_back(toPlain(context, value, type));
        continue;
      }
      size_t i = index - layout.states;
      next.push_back(
          collected[i].add(before, toPlain(context, value), count,
                           layout.outputBackward[i] ? mirrored : count));
    }
    scf::YieldOp::create(rewriter, loc, next);
  }
  SmallVector<Value> results(loop.getResults());
  for (auto [i, rows] : llvm::enumerate(collected)) {
    Value &result = results[layout.states + i];
    result =
        moveFirstTo(context, rows.finish(result, length), layout.outputAxes[i]);
  }
  return results;
}

/// Makes the axes count from the front and checks what is scanned. `batch`: the
/// number of dimensions before those that the axes count.
static LogicalResult checkScan(NodeContext &context, Region &body,
                               ScanLayout &layout, unsigned batch,
                               ArrayRef<RankedTensorType> returned) {
  unsigned first = batch;
  for (unsigned i = 0; i < body.getNumArguments(); ++i) {
    if (context.isAbsent(first + i))
      return context.fail("input " + Twine(first + i) + " is left out");
    RankedTensorType given = context.getInputType(first + i);
    RankedTensorType argument = getPlainType(body.getArgument(i).getType());
    bool isState = i < layout.states;
    int64_t rank = given.getRank() - batch;
    if (!isState) {
      int64_t &axis = layout.inputAxes[i - layout.states];
      std::optional<int64_t> normal = normalizeAxis(axis, rank);
      if (!normal)
        return context.fail("axis " + Twine(axis) + " is out of range");
      axis = *normal;
      --rank;
    }
    if (!argument || argument.getRank() != rank)
      return context.fail("input " + Twine(i) + " of its body has not rank " +
                          Twine(rank));
    if (isState && (!returned[i] || returned[i].getRank() != rank))
      return context.fail("state " + Twine(i) + " changes its rank");
  }
  for (auto [axis, row] :
       llvm::zip(layout.outputAxes, returned.drop_front(layout.states))) {
    std::optional<int64_t> normal = normalizeAxis(axis, row.getRank() + 1);
    if (!normal)
      return context.fail("axis " + Twine(axis) + " is out of range");
    axis = *normal;
  }
  return success();
}

/// A state's type: what holds what goes in and what the body returns.
static RankedTensorType joinShapes(RankedTensorType left,
                                   RankedTensorType right) {
  SmallVector<int64_t> shape;
  for (auto [a, b] : llvm::zip(left.getShape(), right.getShape()))
    shape.push_back(a == b ? a : ShapedType::kDynamic);
  return RankedTensorType::get(shape, left.getElementType());
}

namespace {
/// The body of a Scan, what it returns and what it scans, checked.
struct ScanBody {
  Region &region;
  SmallVector<RankedTensorType> returned;
  ScanLayout layout;
};
} // namespace

/// `batch`: the number of dimensions before those that the axes count.
static FailureOr<ScanBody> getScanBody(NodeContext &context, unsigned batch) {
  if (context.node->getNumRegions() != 1 || context.getNumInputs() < 1 + batch)
    return context.fail("needs a body and something to scan");
  Region &region = context.node->getRegion(0);
  auto returned = getReturnedTypes(context, region);
  if (failed(returned))
    return failure();
  auto layout = getLayout(context, region);
  if (failed(layout) ||
      failed(checkScan(context, region, *layout, batch, *returned)))
    return failure();
  return ScanBody{region, std::move(*returned), std::move(*layout)};
}

static LogicalResult convertScan(NodeContext &context) {
  auto scan = getScanBody(context, /*batch=*/0);
  if (failed(scan))
    return failure();
  auto &[body, returned, layout] = *scan;
  SmallVector<Value> states, scanned;
  for (unsigned i = 0; i < context.getNumInputs(); ++i) {
    Value input = context.getInput(i);
    if (i < layout.states)
      states.push_back(castTo(
          context, input,
          joinShapes(cast<RankedTensorType>(input.getType()), returned[i])));
    else
      scanned.push_back(input);
  }
  Value length = context.toValue(
      getSize(context.rewriter, context.loc, scanned[0], layout.inputAxes[0]));
  ScalarBuilder scalar = context.scalar();
  for (size_t i = 1; i < scanned.size(); ++i)
    context.check(scalar.equal(length, context.toValue(getSize(
                                           context.rewriter, context.loc,
                                           scanned[i], layout.inputAxes[i]))),
                  "the scanned inputs have different lengths");
  return context.replace(
      buildScan(context, body, layout, states, scanned, length, returned));
}

/// Copies `element` into `tensor` at `position` of its first dimension.
static Value putAt(NodeContext &context, Value element, Value tensor,
                   Value position) {
  OpBuilder &builder = context.rewriter;
  Sizes sizes{builder.getIndexAttr(1)};
  llvm::append_range(sizes, context.getSizes(element));
  Sizes offsets(sizes.size(), builder.getIndexAttr(0));
  Sizes strides(sizes.size(), builder.getIndexAttr(1));
  offsets[0] = position;
  return tensor::InsertSliceOp::create(builder, context.loc, element, tensor,
                                       offsets, sizes, strides);
}

/// Until version 8 every tensor but the lengths has a batch in front, and an
/// entry of the batch may be shorter: then the rest of its outputs is zero.
static LogicalResult convertBatchedScan(NodeContext &context) {
  auto scan = getScanBody(context, /*batch=*/1);
  if (failed(scan))
    return failure();
  auto &[body, returned, layout] = *scan;
  for (RankedTensorType type : returned)
    if (!type.hasStaticShape())
      return context.fail("before version 9 the outputs of its body must have "
                          "known sizes; convert the model to a later opset");
  ConversionPatternRewriter &rewriter = context.rewriter;
  Location loc = context.loc;
  ScalarBuilder scalar = context.scalar();
  Value first = context.getInput(layout.states + 1);
  Value batch = context.toValue(getSize(rewriter, loc, first, 0));
  Value longest = context.toValue(getSize(rewriter, loc, first, 1));

  SmallVector<Value> initial;
  for (auto [i, type] : llvm::enumerate(returned)) {
    Sizes sizes{batch};
    if (i >= layout.states)
      sizes.push_back(longest);
    for (int64_t size : type.getShape())
      sizes.push_back(rewriter.getIndexAttr(size));
    Value zero = arith::ConstantOp::create(
        rewriter, loc, rewriter.getZeroAttr(type.getElementType()));
    Value empty =
        tensor::EmptyOp::create(rewriter, loc, sizes, type.getElementType());
    initial.push_back(
        linalg::FillOp::create(rewriter, loc, zero, empty).getResult(0));
  }
  auto loop = scf::ForOp::create(rewriter, loc, scalar.index(0), batch,
                                 scalar.index(1), initial);
  {
    OpBuilder::InsertionGuard guard(rewriter);
    rewriter.setInsertionPointToStart(loop.getBody());
    Value entry = loop.getInductionVar();
    Value length = longest;
    if (!context.isAbsent(0)) {
      Value given =
          tensor::ExtractOp::create(rewriter, loc, context.getInput(0), entry);
      length = scalar.min(
          longest, arith::IndexCastOp::create(rewriter, loc,
                                              rewriter.getIndexType(), given));
    }
    SmallVector<Value> states, scanned;
    for (unsigned i = 1; i < context.getNumInputs(); ++i)
      (i <= layout.states ? states : scanned)
          .push_back(takeAt(context, context.getInput(i), 0, entry));
    for (auto [state, type] : llvm::zip(states, returned))
      state = castTo(context, state, type);
    SmallVector<Value> next;
    for (auto [i, value] : llvm::enumerate(buildScan(
             context, body, layout, states, scanned, length, returned))) {
      Value before = loop.getRegionIterArg(i);
      if (i < layout.states) {
        next.push_back(putAt(context, value, before, entry));
        continue;
      }
      // The rows of this entry, as many as there are.
      Sizes sizes{rewriter.getIndexAttr(1)};
      llvm::append_range(sizes, context.getSizes(value));
      Sizes offsets(sizes.size(), rewriter.getIndexAttr(0));
      Sizes strides(sizes.size(), rewriter.getIndexAttr(1));
      offsets[0] = entry;
      next.push_back(tensor::InsertSliceOp::create(rewriter, loc, value, before,
                                                   offsets, sizes, strides));
    }
    scf::YieldOp::create(rewriter, loc, next);
  }
  return context.replace(loop.getResults());
}

/// What --onnx-choose-branches leaves: the condition must be as it was assumed.
static LogicalResult convertCheck(NodeContext &context) {
  ScalarBuilder scalar = context.scalar();
  bool expected = context.node.getInt("expected", 1) != 0;
  Value condition = extractOnly(context, context.getInput(0));
  context.check(scalar.equal(condition, scalar.boolean(expected)),
                "takes the branch that gives another rank, which is not "
                "compiled: what follows takes the lower rank");
  return context.replace({});
}

void nibble::addControlConversions(NodeConversions &conversions) {
  conversions.add("nibble", "Check", 0, convertCheck);
  conversions.add("If", 1, convertIf);
  conversions.add("Loop", 1, convertLoop);
  conversions.add("Scan", 8, convertBatchedScan);
  conversions.add("Scan", 9, convertScan);
}
