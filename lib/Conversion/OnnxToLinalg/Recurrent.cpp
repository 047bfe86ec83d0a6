//===- Recurrent.cpp - LSTM, GRU and RNN ----------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// For each direction, the products with the input of all steps are one matrix
// product before a loop over the steps:
//
//   gates = X · Wᵀ + bias                    [sequence, batch, gates × hidden]
//   for t: (H, C) = cell(gates[t], H, C);  Y[t] = H
//
// A direction that runs backwards reads and writes mirrored sequences. All of
// it is in computed numbers (ScalarBuilder.h); only the results are rounded.
// Formulas and the order of gates: ONNX's Operators.md, LSTM, GRU, RNN.
//
//===----------------------------------------------------------------------===//

#include "NodeConversion.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "llvm/ADT/StringSwitch.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// Activations
//===----------------------------------------------------------------------===//

namespace {
enum class ActivationKind {
  Affine,
  Elu,
  HardSigmoid,
  LeakyRelu,
  Relu,
  ScaledTanh,
  Sigmoid,
  Softplus,
  Softsign,
  Tanh,
  ThresholdedRelu
};

struct Activation {
  ActivationKind kind;
  double alpha = 0, beta = 0;
};
} // namespace

/// Names are compared without regard to case, as ONNX Runtime does.
static std::optional<Activation> parseActivation(StringRef name) {
  std::string lower = name.lower();
  using Kind = ActivationKind;
  return llvm::StringSwitch<std::optional<Activation>>(lower)
      .Case("affine", Activation{Kind::Affine, 1, 0})
      .Case("elu", Activation{Kind::Elu, 1, 0})
      .Case("hardsigmoid", Activation{Kind::HardSigmoid, 0.2, 0.5})
      .Case("leakyrelu", Activation{Kind::LeakyRelu, 0.01, 0})
      .Case("relu", Activation{Kind::Relu})
      .Case("scaledtanh", Activation{Kind::ScaledTanh, 1, 1})
      .Case("sigmoid", Activation{Kind::Sigmoid})
      .Case("softplus", Activation{Kind::Softplus})
      .Case("softsign", Activation{Kind::Softsign})
      .Case("tanh", Activation{Kind::Tanh})
      .Case("thresholdedrelu", Activation{Kind::ThresholdedRelu, 1, 0})
      .Default(std::nullopt);
}

static bool takesAlpha(ActivationKind kind) {
  using Kind = ActivationKind;
  return llvm::is_contained({Kind::Affine, Kind::Elu, Kind::HardSigmoid,
                             Kind::LeakyRelu, Kind::ScaledTanh,
                             Kind::ThresholdedRelu},
                            kind);
}
static bool takesBeta(ActivationKind kind) {
  using Kind = ActivationKind;
  return llvm::is_contained({Kind::Affine, Kind::HardSigmoid, Kind::ScaledTanh},
                            kind);
}

static Value applyActivation(ScalarBuilder &scalar, const Activation &how,
                             Value x) {
  OpBuilder &builder = scalar.builder;
  Location loc = scalar.loc;
  auto number = [&](double value) {
    return scalar.constant(x.getType(), value);
  };
  auto exp = [&](Value value) -> Value {
    return math::ExpOp::create(builder, loc, value);
  };
  auto tanh = [&](Value value) -> Value {
    return math::TanhOp::create(builder, loc, value);
  };
  auto linear = [&] {
    return scalar.add(scalar.mul(number(how.alpha), x), number(how.beta));
  };
  Value zero = number(0), one = number(1);
  switch (how.kind) {
  case ActivationKind::Affine:
    return linear();
  case ActivationKind::Elu:
    return scalar.select(scalar.less(x, zero),
                         scalar.mul(number(how.alpha), scalar.sub(exp(x), one)),
                         x);
  case ActivationKind::HardSigmoid:
    return scalar.max(zero, scalar.min(one, linear()));
  case ActivationKind::LeakyRelu:
    return scalar.select(scalar.less(x, zero), scalar.mul(number(how.alpha), x),
                         x);
  case ActivationKind::Relu:
    return scalar.max(x, zero);
  case ActivationKind::ScaledTanh:
    return scalar.mul(number(how.alpha), tanh(scalar.mul(number(how.beta), x)));
  case ActivationKind::Sigmoid:
    return scalar.div(one, scalar.add(one, exp(scalar.neg(x))));
  case ActivationKind::Softplus:
    return math::LogOp::create(builder, loc, scalar.add(one, exp(x)));
  case ActivationKind::Softsign:
    return scalar.div(x, scalar.add(one, scalar.abs(x)));
  case ActivationKind::Tanh:
    return tanh(x);
  case ActivationKind::ThresholdedRelu:
    return scalar.select(scalar.less(number(how.alpha), x), x, zero);
  }
  return x;
}

//===----------------------------------------------------------------------===//
// What the three have in common
//===----------------------------------------------------------------------===//

namespace {
/// One step of one direction.
struct Step {
  /// X[t] · Wᵀ + bias: [batch, gates × hidden]
  Value gates;
  /// The states before the step: [batch, hidden]; `cell` for the LSTM only.
  Value hidden, cell;
  /// Which step it is: entries of the batch that have ended keep their states.
  Value number;
};

/// The weights of one direction.
struct Weights {
  /// [gates × hidden, hidden]
  Value recurrence;
  /// The GRU's bias of H · R in its last gate, [hidden], or null.
  Value hiddenBias;
  /// The LSTM's peepholes of i, o and f: [3 × hidden], or null.
  Value peepholes;
  SmallVector<Activation> activations;
};

/// A node, its inputs in computed numbers and with the sequence first.
class RecurrentBuilder {
public:
  RecurrentBuilder(NodeContext &context, int64_t numGates)
      : context(context), rewriter(context.rewriter), loc(context.loc),
        numGates(numGates) {}
  virtual ~RecurrentBuilder() = default;

  LogicalResult convert();

protected:
  virtual SmallVector<StringRef> getDefaultActivations() const = 0;
  /// The weights of X (input 1) or of H (input 2) in computed numbers,
  /// [directions, gates × hidden, X's or H's size].
  virtual Value getWeights(unsigned index) { return getNumbers(index); }
  virtual OpFoldResult getHiddenSize() {
    return getSize(rewriter, loc, context.getInput(2), 2);
  }
  /// What is left out of the bias before the loop, by gate.
  virtual bool leavesHiddenBias(int64_t gate) const { return false; }
  /// The states after the step, cut off where a sequence has ended. Returns
  /// {output, hidden, cell or nothing}, where the output is zero after the end.
  virtual SmallVector<Value> buildStep(const Step &step,
                                       const Weights &weights) = 0;

  /// hidden · recurrenceᵀ, of `count` gates from `first` on, plus `initial`.
  Value buildRecurrence(Value hidden, const Weights &weights, int64_t first,
                        int64_t count, Value initial);
  /// `count` gates of [batch, gates × hidden] from `first` on.
  Value takeGates(Value gates, int64_t first, int64_t count);
  /// A new [batch, hidden] for each of `numResults` numbers that `body` makes.
  SmallVector<Value> buildPointwise(
      ArrayRef<Value> inputs, unsigned numResults,
      function_ref<SmallVector<Value>(ScalarBuilder &, ValueRange)> body);
  /// {output, states…} of a step from the states that it makes, in a
  /// buildPointwise.
  SmallVector<Value> finishStep(ScalarBuilder &scalar, const Step &step,
                                ArrayRef<Value> made, ArrayRef<Value> before);
  Value clip(ScalarBuilder &scalar, Value x);
  Value activate(ScalarBuilder &scalar, const Weights &weights, unsigned which,
                 Value x) {
    return applyActivation(scalar, weights.activations[which], clip(scalar, x));
  }
  OpFoldResult scale(OpFoldResult size, int64_t factor);
  /// An input in computed numbers; null where it is left out.
  Value getNumbers(unsigned index);

  NodeContext &context;
  ConversionPatternRewriter &rewriter;
  Location loc;
  int64_t numGates;
  Type element, computed;
  OpFoldResult batch, hidden;
  /// Lengths of the batch's sequences, [batch], or null.
  Value lengths;
  bool isLSTM = false;

private:
  LogicalResult check();
  FailureOr<SmallVector<Activation>> getActivations(int64_t numDirections);
  /// tensor[position], without the first dimension.
  Value takeFirst(Value tensor, OpFoldResult position);
  /// `element` put into `tensor` at `position` of dimension `axis`.
  Value put(Value element, Value tensor, int64_t axis, OpFoldResult position);
  /// [sequence, batch, x] with each entry's sequence backwards.
  Value mirror(Value tensor);
  Value buildBias(int64_t direction);
  /// initial + lhs · rhs, read and written in loops as `maps` say; the last
  /// loop is summed.
  Value addProducts(Value lhs, Value rhs, Value initial,
                    ArrayRef<AffineMap> maps);
  Value buildInputGates(Value input, Value weights, Value bias);
  /// {Y, last hidden, last cell}
  SmallVector<Value> buildDirection(Value input, int64_t direction,
                                    bool backward,
                                    ArrayRef<Activation> activations);
  Value zeros(ArrayRef<OpFoldResult> sizes);

  OpFoldResult sequence;
};
} // namespace

OpFoldResult RecurrentBuilder::scale(OpFoldResult size, int64_t factor) {
  if (auto known = getConstantIntValue(size))
    return rewriter.getIndexAttr(*known * factor);
  ScalarBuilder scalar = context.scalar();
  return scalar.mul(context.toValue(size), scalar.index(factor));
}

Value RecurrentBuilder::getNumbers(unsigned index) {
  if (index >= context.getNumInputs() || context.isAbsent(index))
    return {};
  return buildCast(context, context.getInput(index),
                   context.getElementType(index), computed);
}

Value RecurrentBuilder::takeFirst(Value tensor, OpFoldResult position) {
  Sizes sizes = context.getSizes(tensor);
  Sizes offsets(sizes.size(), rewriter.getIndexAttr(0));
  Sizes strides(sizes.size(), rewriter.getIndexAttr(1));
  offsets[0] = position;
  sizes[0] = rewriter.getIndexAttr(1);
  auto type = cast<RankedTensorType>(tensor.getType());
  auto taken = RankedTensorType::get(type.getShape().drop_front(),
                                     type.getElementType());
  return tensor::ExtractSliceOp::create(rewriter, loc, taken, tensor, offsets,
                                        sizes, strides);
}

Value RecurrentBuilder::put(Value value, Value tensor, int64_t axis,
                            OpFoldResult position) {
  Sizes sizes = context.getSizes(value);
  sizes.insert(sizes.begin() + axis, rewriter.getIndexAttr(1));
  Sizes offsets(sizes.size(), rewriter.getIndexAttr(0));
  Sizes strides(sizes.size(), rewriter.getIndexAttr(1));
  offsets[axis] = position;
  return tensor::InsertSliceOp::create(rewriter, loc, value, tensor, offsets,
                                       sizes, strides);
}

Value RecurrentBuilder::zeros(ArrayRef<OpFoldResult> sizes) {
  Value empty = tensor::EmptyOp::create(rewriter, loc, sizes, computed);
  Value zero = context.scalar().constant(computed, 0);
  return linalg::FillOp::create(rewriter, loc, zero, empty).getResult(0);
}

Value RecurrentBuilder::mirror(Value tensor) {
  return buildTensor(
      rewriter, loc, context.getSizes(tensor), computed,
      [&](ScalarBuilder &scalar, ValueRange indices) -> Value {
        Value step = indices[0];
        Value length = toValue(scalar.builder, scalar.loc, sequence);
        if (lengths)
          length = arith::IndexCastOp::create(
              scalar.builder, scalar.loc, scalar.builder.getIndexType(),
              tensor::ExtractOp::create(scalar.builder, scalar.loc, lengths,
                                        indices[1]));
        Value mirrored = scalar.sub(scalar.sub(length, scalar.index(1)), step);
        SmallVector<Value> source(indices);
        source[0] = scalar.select(scalar.less(step, length), mirrored, step);
        return tensor::ExtractOp::create(scalar.builder, scalar.loc, tensor,
                                         source);
      });
}

/// The sum of the biases of X · W and H · R, less what `leavesHiddenBias`.
Value RecurrentBuilder::buildBias(int64_t direction) {
  Value both = getNumbers(3);
  if (!both)
    return {};
  OpFoldResult half = scale(hidden, numGates);
  return buildTensor(
      rewriter, loc, half, computed,
      [&](ScalarBuilder &scalar, ValueRange indices) -> Value {
        auto at = [&](Value index) -> Value {
          return tensor::ExtractOp::create(
              scalar.builder, scalar.loc, both,
              ValueRange{scalar.index(direction), index});
        };
        Value position = indices[0];
        Value input = at(position);
        Value other =
            at(scalar.add(position, toValue(scalar.builder, scalar.loc, half)));
        // Only the last gate may leave its part out.
        if (leavesHiddenBias(numGates - 1)) {
          Value last = scalar.mul(toValue(scalar.builder, scalar.loc, hidden),
                                  scalar.index(numGates - 1));
          other = scalar.select(scalar.less(position, last), other,
                                scalar.constant(computed, 0));
        }
        return scalar.add(input, other);
      });
}

Value RecurrentBuilder::addProducts(Value lhs, Value rhs, Value initial,
                                    ArrayRef<AffineMap> maps) {
  unsigned numLoops = maps.front().getNumDims();
  SmallVector<utils::IteratorType> iterators(numLoops,
                                             utils::IteratorType::parallel);
  iterators.back() = utils::IteratorType::reduction;
  return linalg::GenericOp::create(
             rewriter, loc, initial.getType(), ValueRange{lhs, rhs}, initial,
             maps, iterators,
             [&](OpBuilder &builder, Location nested, ValueRange args) {
               ScalarBuilder scalar(builder, nested);
               linalg::YieldOp::create(
                   builder, nested,
                   scalar.add(args[2], scalar.mul(args[0], args[1])));
             })
      .getResult(0);
}

Value RecurrentBuilder::buildInputGates(Value input, Value weights,
                                        Value bias) {
  MLIRContext *mlir = rewriter.getContext();
  AffineExpr s = getAffineDimExpr(0, mlir), b = getAffineDimExpr(1, mlir),
             g = getAffineDimExpr(2, mlir), k = getAffineDimExpr(3, mlir);
  Sizes sizes{sequence, batch, scale(hidden, numGates)};
  Value initial =
      bias ? buildElementwise(
                 rewriter, loc, bias, AffineMap::get(3, 0, {g}, mlir), sizes,
                 computed,
                 [](ScalarBuilder &, ValueRange args) { return args[0]; })
           : zeros(sizes);
  return addProducts(input, weights, initial,
                     {AffineMap::get(4, 0, {s, b, k}, mlir),
                      AffineMap::get(4, 0, {g, k}, mlir),
                      AffineMap::get(4, 0, {s, b, g}, mlir)});
}

Value RecurrentBuilder::takeGates(Value gates, int64_t first, int64_t count) {
  Sizes offsets{rewriter.getIndexAttr(0), scale(hidden, first)};
  Sizes sizes{batch, scale(hidden, count)};
  Sizes strides(2, rewriter.getIndexAttr(1));
  return tensor::ExtractSliceOp::create(rewriter, loc, gates, offsets, sizes,
                                        strides);
}

Value RecurrentBuilder::buildRecurrence(Value state, const Weights &weights,
                                        int64_t first, int64_t count,
                                        Value initial) {
  MLIRContext *mlir = rewriter.getContext();
  Value recurrence = weights.recurrence;
  if (count != numGates) {
    Sizes offsets{scale(hidden, first), rewriter.getIndexAttr(0)};
    Sizes sizes{scale(hidden, count), hidden};
    Sizes strides(2, rewriter.getIndexAttr(1));
    recurrence = tensor::ExtractSliceOp::create(rewriter, loc, recurrence,
                                                offsets, sizes, strides);
  }
  AffineExpr b = getAffineDimExpr(0, mlir), g = getAffineDimExpr(1, mlir),
             k = getAffineDimExpr(2, mlir);
  return addProducts(state, recurrence, initial,
                     {AffineMap::get(3, 0, {b, k}, mlir),
                      AffineMap::get(3, 0, {g, k}, mlir),
                      AffineMap::get(3, 0, {b, g}, mlir)});
}

/// Inputs of rank 2 are [batch, hidden]; of rank 1, [hidden].
SmallVector<Value> RecurrentBuilder::buildPointwise(
    ArrayRef<Value> inputs, unsigned numResults,
    function_ref<SmallVector<Value>(ScalarBuilder &, ValueRange)> body) {
  MLIRContext *mlir = rewriter.getContext();
  AffineMap all = AffineMap::getMultiDimIdentityMap(2, mlir);
  AffineMap row = AffineMap::get(2, 0, {getAffineDimExpr(1, mlir)}, mlir);
  SmallVector<AffineMap> maps;
  for (Value input : inputs)
    maps.push_back(
        cast<RankedTensorType>(input.getType()).getRank() == 2 ? all : row);
  maps.append(numResults, all);
  SmallVector<Value> outputs;
  SmallVector<Type> types;
  for (unsigned i = 0; i < numResults; ++i) {
    outputs.push_back(
        tensor::EmptyOp::create(rewriter, loc, Sizes{batch, hidden}, computed));
    types.push_back(outputs.back().getType());
  }
  SmallVector<utils::IteratorType> iterators(2, utils::IteratorType::parallel);
  auto generic = linalg::GenericOp::create(
      rewriter, loc, types, inputs, outputs, maps, iterators,
      [&](OpBuilder &builder, Location nested, ValueRange args) {
        ScalarBuilder scalar(builder, nested);
        linalg::YieldOp::create(builder, nested,
                                body(scalar, args.take_front(inputs.size())));
      });
  return llvm::to_vector_of<Value>(generic.getResults());
}

SmallVector<Value> RecurrentBuilder::finishStep(ScalarBuilder &scalar,
                                                const Step &step,
                                                ArrayRef<Value> made,
                                                ArrayRef<Value> before) {
  SmallVector<Value> results{made.front()};
  llvm::append_range(results, made);
  if (!lengths)
    return results;
  Value entry = linalg::IndexOp::create(scalar.builder, scalar.loc, 0);
  Value length = arith::IndexCastOp::create(
      scalar.builder, scalar.loc, scalar.builder.getIndexType(),
      tensor::ExtractOp::create(scalar.builder, scalar.loc, lengths, entry));
  Value goesOn = scalar.less(step.number, length);
  results[0] = scalar.select(goesOn, results[0], scalar.constant(computed, 0));
  for (auto [i, old] : llvm::enumerate(before))
    results[i + 1] = scalar.select(goesOn, results[i + 1], old);
  return results;
}

Value RecurrentBuilder::clip(ScalarBuilder &scalar, Value x) {
  if (!context.node.getAttributeValue("clip"))
    return x;
  double limit = context.node.getFloat("clip", 0);
  return scalar.max(scalar.constant(computed, -limit),
                    scalar.min(scalar.constant(computed, limit), x));
}

/// The activations of all directions, one direction after the other.
FailureOr<SmallVector<Activation>>
RecurrentBuilder::getActivations(int64_t numDirections) {
  SmallVector<std::string> names;
  if (auto given = dyn_cast_if_present<ArrayAttr>(
          context.node.getAttributeValue("activations"))) {
    for (Attribute name : given)
      if (auto text = dyn_cast<StringAttr>(name))
        names.push_back(text.str());
  } else {
    for (int64_t i = 0; i < numDirections; ++i)
      for (StringRef name : getDefaultActivations())
        names.push_back(name.str());
  }
  size_t wanted = numDirections * getDefaultActivations().size();
  if (names.size() != wanted)
    return context.fail("needs " + Twine(wanted) + " activations");
  auto getFloats = [&](StringRef name) {
    auto given = dyn_cast_if_present<DenseF32ArrayAttr>(
        context.node.getAttributeValue(name));
    return given ? given.asArrayRef() : ArrayRef<float>();
  };
  ArrayRef<float> alphas = getFloats("activation_alpha"),
                  betas = getFloats("activation_beta");
  SmallVector<Activation> activations;
  for (StringRef name : names) {
    auto activation = parseActivation(name);
    if (!activation)
      return context.fail("'" + name + "' is no activation that ONNX defines");
    // Those that take a parameter take the next one that is left.
    if (takesAlpha(activation->kind) && !alphas.empty()) {
      activation->alpha = alphas.front();
      alphas = alphas.drop_front();
    }
    if (takesBeta(activation->kind) && !betas.empty()) {
      activation->beta = betas.front();
      betas = betas.drop_front();
    }
    activations.push_back(*activation);
  }
  return activations;
}

SmallVector<Value>
RecurrentBuilder::buildDirection(Value input, int64_t direction, bool backward,
                                 ArrayRef<Activation> activations) {
  OpFoldResult position = rewriter.getIndexAttr(direction);
  Weights weights;
  weights.recurrence = takeFirst(getWeights(2), position);
  weights.activations.assign(activations.begin(), activations.end());
  if (Value both = getNumbers(3); both && leavesHiddenBias(numGates - 1)) {
    Sizes offsets{scale(hidden, 2 * numGates - 1)}, sizes{hidden},
        strides{rewriter.getIndexAttr(1)};
    weights.hiddenBias = tensor::ExtractSliceOp::create(
        rewriter, loc, takeFirst(both, position), offsets, sizes, strides);
  }
  if (Value peepholes = isLSTM ? getNumbers(7) : Value())
    weights.peepholes = takeFirst(peepholes, position);

  Value gates =
      buildInputGates(backward ? mirror(input) : input,
                      takeFirst(getWeights(1), position), buildBias(direction));
  SmallVector<Value> initial{tensor::EmptyOp::create(
      rewriter, loc, Sizes{sequence, batch, hidden}, computed)};
  for (unsigned i = 0; i < (isLSTM ? 2 : 1); ++i) {
    Value state = getNumbers(5 + i);
    if (state && context.node.getInt("layout", 0))
      state = buildTranspose(context, state, {1, 0, 2});
    state = state ? takeFirst(state, position) : zeros({batch, hidden});
    auto type = cast<RankedTensorType>(
        tensor::EmptyOp::create(rewriter, loc, Sizes{batch, hidden}, computed)
            .getType());
    if (state.getType() != type)
      state = tensor::CastOp::create(rewriter, loc, type, state);
    initial.push_back(state);
  }
  ScalarBuilder scalar = context.scalar();
  auto loop =
      scf::ForOp::create(rewriter, loc, scalar.index(0),
                         context.toValue(sequence), scalar.index(1), initial);
  {
    OpBuilder::InsertionGuard guard(rewriter);
    rewriter.setInsertionPointToStart(loop.getBody());
    Step step;
    step.number = loop.getInductionVar();
    step.gates = takeFirst(gates, step.number);
    step.hidden = loop.getRegionIterArg(1);
    step.cell = isLSTM ? loop.getRegionIterArg(2) : Value();
    SmallVector<Value> results = buildStep(step, weights);
    results[0] = put(results[0], loop.getRegionIterArg(0), 0, step.number);
    scf::YieldOp::create(rewriter, loc, results);
  }
  SmallVector<Value> results(loop.getResults());
  if (backward)
    results[0] = mirror(results[0]);
  return results;
}

LogicalResult RecurrentBuilder::check() {
  const std::pair<unsigned, int64_t> ranks[] = {{0, 3}, {1, 3}, {2, 3}, {3, 2},
                                                {4, 1}, {5, 3}, {6, 3}, {7, 2}};
  for (auto [index, rank] : ranks) {
    bool isGiven = index < context.getNumInputs() && !context.isAbsent(index);
    if (!isGiven && index < 3)
      return context.fail("input " + Twine(index) + " is left out");
    if (isGiven && context.getInputType(index).getRank() != rank)
      return context.fail("input " + Twine(index) + " has not rank " +
                          Twine(rank));
  }
  return success();
}

LogicalResult RecurrentBuilder::convert() {
  if (failed(check()))
    return failure();
  element = context.getElementType(0);
  computed = getComputedType(element);
  if (!isa<FloatType>(element))
    return context.fail("its numbers must be floats");
  StringRef name = context.node.getString("direction", "forward");
  if (!llvm::is_contained({"forward", "reverse", "bidirectional"}, name))
    return context.fail("'" + name + "' is no direction");
  int64_t numDirections = name == "bidirectional" ? 2 : 1;
  auto activations = getActivations(numDirections);
  if (failed(activations))
    return failure();
  size_t perDirection = getDefaultActivations().size();

  bool batchFirst = context.node.getInt("layout", 0) != 0;
  Value input = getNumbers(0);
  if (batchFirst)
    input = buildTranspose(context, input, {1, 0, 2});
  Sizes inputSizes = context.getSizes(input);
  sequence = inputSizes[0];
  batch = inputSizes[1];
  hidden = getHiddenSize();
  if (context.getNumInputs() > 4 && !context.isAbsent(4))
    lengths = context.getInput(4);

  Value all = tensor::EmptyOp::create(
      rewriter, loc,
      Sizes{sequence, rewriter.getIndexAttr(numDirections), batch, hidden},
      computed);
  SmallVector<Value> last;
  for (unsigned i = 0; i < (isLSTM ? 2 : 1); ++i)
    last.push_back(tensor::EmptyOp::create(
        rewriter, loc,
        Sizes{rewriter.getIndexAttr(numDirections), batch, hidden}, computed));
  for (int64_t direction = 0; direction < numDirections; ++direction) {
    bool backward = name == "reverse" || direction == 1;
    SmallVector<Value> made = buildDirection(
        input, direction, backward,
        ArrayRef(*activations).slice(direction * perDirection, perDirection));
    OpFoldResult position = rewriter.getIndexAttr(direction);
    all = put(made[0], all, 1, position);
    for (auto [state, value] : llvm::zip(last, llvm::drop_begin(made)))
      state = put(value, state, 0, position);
  }
  if (batchFirst) {
    all = buildTranspose(context, all, {2, 0, 1, 3});
    for (Value &state : last)
      state = buildTranspose(context, state, {1, 0, 2});
  }
  SmallVector<Value> results{all};
  llvm::append_range(results, last);
  results.resize(
      std::min<size_t>(results.size(), context.node->getNumResults()));
  for (Value &result : results)
    result = buildCast(context, result, computed, element);
  return context.replace(results);
}

//===----------------------------------------------------------------------===//
// The cells
//===----------------------------------------------------------------------===//

namespace {
/// H = f(gates + H · Rᵀ)
class RNNBuilder : public RecurrentBuilder {
public:
  explicit RNNBuilder(NodeContext &context) : RecurrentBuilder(context, 1) {}
  SmallVector<StringRef> getDefaultActivations() const override {
    return {"Tanh"};
  }
  SmallVector<Value> buildStep(const Step &step,
                               const Weights &weights) override {
    Value sum = buildRecurrence(step.hidden, weights, 0, 1, step.gates);
    return buildPointwise({sum, step.hidden}, 2,
                          [&](ScalarBuilder &scalar, ValueRange args) {
                            Value h = activate(scalar, weights, 0, args[0]);
                            return finishStep(scalar, step, h, args[1]);
                          });
  }
};

/// Gates z (update), r (reset), h (hidden):
///   z = f(…), r = f(…)
///   h = g(Xh + (r ∘ H) · Rhᵀ + biases), or with linear_before_reset
///   h = g(Xh + r ∘ (H · Rhᵀ + Rbh) + Wbh)
///   H = (1 - z) ∘ h + z ∘ H
class GRUBuilder : public RecurrentBuilder {
public:
  explicit GRUBuilder(NodeContext &context)
      : RecurrentBuilder(context, 3),
        linearBeforeReset(context.node.getInt("linear_before_reset", 0) != 0) {}
  SmallVector<StringRef> getDefaultActivations() const override {
    return {"Sigmoid", "Tanh"};
  }
  bool leavesHiddenBias(int64_t gate) const override {
    return linearBeforeReset && gate == 2;
  }

  SmallVector<Value> buildStep(const Step &step,
                               const Weights &weights) override {
    Value sums = buildRecurrence(step.hidden, weights, 0, 2,
                                 takeGates(step.gates, 0, 2));
    Value update = takeGates(sums, 0, 1), reset = takeGates(sums, 1, 1);
    Value fromInput = takeGates(step.gates, 2, 1);
    Value sum = linearBeforeReset ? buildLinear(step, weights, reset, fromInput)
                                  : buildReset(step, weights, reset, fromInput);
    return buildPointwise({sum, update, step.hidden}, 2,
                          [&](ScalarBuilder &scalar, ValueRange args) {
                            Value h = activate(scalar, weights, 1, args[0]);
                            Value z = activate(scalar, weights, 0, args[1]);
                            Value one = scalar.constant(computed, 1);
                            Value next =
                                scalar.add(scalar.mul(scalar.sub(one, z), h),
                                           scalar.mul(z, args[2]));
                            return finishStep(scalar, step, next, args[2]);
                          });
  }

private:
  /// Xh + (r ∘ H) · Rhᵀ
  Value buildReset(const Step &step, const Weights &weights, Value reset,
                   Value fromInput) {
    Value kept =
        buildPointwise({reset, step.hidden}, 1,
                       [&](ScalarBuilder &scalar, ValueRange args) {
                         Value r = activate(scalar, weights, 0, args[0]);
                         return SmallVector<Value>{scalar.mul(r, args[1])};
                       })
            .front();
    return buildRecurrence(kept, weights, 2, 1, fromInput);
  }

  /// Xh + r ∘ (H · Rhᵀ + Rbh)
  Value buildLinear(const Step &step, const Weights &weights, Value reset,
                    Value fromInput) {
    Value initial =
        buildPointwise(weights.hiddenBias ? ArrayRef(weights.hiddenBias)
                                          : ArrayRef<Value>(),
                       1,
                       [&](ScalarBuilder &scalar, ValueRange args) {
                         return SmallVector<Value>{
                             args.empty() ? scalar.constant(computed, 0)
                                          : args[0]};
                       })
            .front();
    Value product = buildRecurrence(step.hidden, weights, 2, 1, initial);
    return buildPointwise({reset, product, fromInput}, 1,
                          [&](ScalarBuilder &scalar, ValueRange args) {
                            Value r = activate(scalar, weights, 0, args[0]);
                            return SmallVector<Value>{
                                scalar.add(args[2], scalar.mul(r, args[1]))};
                          })
        .front();
  }

  bool linearBeforeReset;
};

/// Gates i (input), o (output), f (forget), c (cell); P: peepholes.
///   i = f(… + Pi ∘ C), f = f(… + Pf ∘ C), or 1 - i with input_forget
///   C = f ∘ C + i ∘ g(c);  o = f(… + Po ∘ C);  H = o ∘ h(C)
class LSTMBuilder : public RecurrentBuilder {
public:
  explicit LSTMBuilder(NodeContext &context) : RecurrentBuilder(context, 4) {
    isLSTM = true;
  }
  SmallVector<StringRef> getDefaultActivations() const override {
    return {"Sigmoid", "Tanh", "Tanh"};
  }

  SmallVector<Value> buildStep(const Step &step,
                               const Weights &weights) override {
    Value sums = buildRecurrence(step.hidden, weights, 0, 4, step.gates);
    SmallVector<Value> inputs;
    for (int64_t gate = 0; gate < 4; ++gate)
      inputs.push_back(takeGates(sums, gate, 1));
    inputs.append({step.hidden, step.cell});
    for (int64_t i = 0; weights.peepholes && i < 3; ++i)
      inputs.push_back(tensor::ExtractSliceOp::create(
          rewriter, loc, weights.peepholes, Sizes{scale(hidden, i)},
          Sizes{hidden}, Sizes{rewriter.getIndexAttr(1)}));
    bool couples = context.node.getInt("input_forget", 0) != 0;
    return buildPointwise(
        inputs, 3, [&](ScalarBuilder &scalar, ValueRange args) {
          auto peep = [&](Value x, unsigned which, Value cell) {
            return weights.peepholes
                       ? scalar.add(x, scalar.mul(args[6 + which], cell))
                       : x;
          };
          Value hiddenBefore = args[4], cellBefore = args[5];
          Value i = activate(scalar, weights, 0, peep(args[0], 0, cellBefore));
          Value f = couples ? scalar.sub(scalar.constant(computed, 1), i)
                            : activate(scalar, weights, 0,
                                       peep(args[2], 2, cellBefore));
          Value c = activate(scalar, weights, 1, args[3]);
          Value cell = scalar.add(scalar.mul(f, cellBefore), scalar.mul(i, c));
          Value o = activate(scalar, weights, 0, peep(args[1], 1, cell));
          // ONNX Runtime does not clip what h is applied to.
          Value h = scalar.mul(
              o, applyActivation(scalar, weights.activations[2], cell));
          return finishStep(scalar, step, {h, cell},
                            {hiddenBefore, cellBefore});
        });
  }
};

/// com.microsoft's DynamicQuantizeLSTM, which ONNX Runtime's dynamic
/// quantization makes of an LSTM: the weights are codes, [directions, size,
/// 4 × hidden], with a scale and a zero point for each direction or for each
/// of its outputs (inputs 8 to 11). Weights are dequantized once a run; X and H
/// stay floats, where ONNX Runtime rounds them to 8 bits.
class QuantizedLSTMBuilder : public LSTMBuilder {
public:
  using LSTMBuilder::LSTMBuilder;

  LogicalResult checkQuantization() {
    for (unsigned index : {1, 2}) {
      if (!isa<IntegerType>(context.getElementType(index)))
        return context.fail("input " + Twine(index) + " holds no codes");
      for (unsigned part : {getScale(index), getScale(index) + 1}) {
        if (part >= context.getNumInputs() || context.isAbsent(part))
          return context.fail("input " + Twine(part) + " is left out");
        int64_t rank = context.getInputType(part).getRank();
        if (rank != 1 && rank != 2)
          return context.fail("input " + Twine(part) +
                              " has neither rank 1 nor rank 2");
      }
    }
    return success();
  }

protected:
  OpFoldResult getHiddenSize() override {
    return getSize(rewriter, loc, context.getInput(2), 1);
  }

  /// (code - zero point) · scale, transposed.
  Value getWeights(unsigned index) override {
    Value codes = getNumbers(index), scales = getNumbers(getScale(index)),
          zeros = getNumbers(getScale(index) + 1);
    Sizes sizes = context.getSizes(codes);
    std::swap(sizes[1], sizes[2]);
    return buildTensor(
        rewriter, loc, sizes, computed,
        [&](ScalarBuilder &scalar, ValueRange indices) -> Value {
          auto at = [&](Value tensor, ValueRange position) -> Value {
            return tensor::ExtractOp::create(scalar.builder, scalar.loc, tensor,
                                             position);
          };
          auto atOutput = [&](Value tensor) {
            unsigned rank = cast<RankedTensorType>(tensor.getType()).getRank();
            return at(tensor, indices.take_front(rank));
          };
          Value code = at(codes, {indices[0], indices[2], indices[1]});
          return scalar.mul(scalar.sub(code, atOutput(zeros)),
                            atOutput(scales));
        });
  }

private:
  /// The scales of input 1 or 2; its zero points follow.
  static unsigned getScale(unsigned index) { return 6 + 2 * index; }
};
} // namespace

void nibble::addRecurrentConversions(NodeConversions &conversions) {
  conversions.add("RNN", 1, [](NodeContext &context) {
    return RNNBuilder(context).convert();
  });
  conversions.add("GRU", 1, [](NodeContext &context) {
    return GRUBuilder(context).convert();
  });
  conversions.add("LSTM", 1, [](NodeContext &context) {
    return LSTMBuilder(context).convert();
  });
  conversions.add("com.microsoft", "DynamicQuantizeLSTM", 1,
                  [](NodeContext &context) -> LogicalResult {
                    QuantizedLSTMBuilder builder(context);
                    if (failed(builder.checkQuantization()))
                      return failure();
                    return builder.convert();
                  });
}
