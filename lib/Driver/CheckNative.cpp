//===- CheckNative.cpp - nibble verify ------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Compile.h"
#include "LoadedModel.h"
#include "Session.h"
#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Dialect/Onnx/Transforms/Passes.h"
#include "nibble/Driver/Driver.h"
#include "nibble/Tools/ModelFile.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Pass/PassManager.h"
#include "llvm/ADT/APFloat.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/raw_ostream.h"

#include <cmath>
#include <limits>

using namespace mlir;
using namespace nibble;

//===----------------------------------------------------------------------===//
// Every value as an output
//===----------------------------------------------------------------------===//

namespace {
/// A result of a node of the main graph.
struct TracedValue {
  std::string node, opType, name;
  Type element;
};
} // namespace

/// Makes every value that a node computes an output of `main`, in their order,
/// instead of what the model returns.
static std::vector<TracedValue> returnAllValues(func::FuncOp main) {
  std::vector<TracedValue> values;
  SmallVector<Value> results;
  for (auto node : main.getBody().front().getOps<onnx::NodeOp>())
    for (auto [index, result] : llvm::enumerate(node.getResults())) {
      auto type = dyn_cast<RankedTensorType>(result.getType());
      StringRef name = cast<StringAttr>(node.getOutputs()[index]).getValue();
      if (!isTensorOfNumbers(type) || name.empty())
        continue;
      values.push_back({node.getDisplayName(), node.getOpType().str(),
                        name.str(), type.getElementType()});
      results.push_back(result);
    }
  main.getBody().front().getTerminator()->setOperands(results);
  main.setFunctionType(FunctionType::get(main.getContext(),
                                         main.getArgumentTypes(),
                                         ValueRange(results).getTypes()));
  main.setResAttrsAttr(nullptr);
  return values;
}

/// The outputs of the model as it is.
static std::vector<TracedValue> describeOutputs(func::FuncOp main) {
  std::vector<TracedValue> values;
  Operation *end = main.getBody().front().getTerminator();
  for (auto [index, value] : llvm::enumerate(end->getOperands())) {
    auto node = value.getDefiningOp<onnx::NodeOp>();
    auto type = dyn_cast<RankedTensorType>(value.getType());
    std::string name = "output " + std::to_string(index);
    values.push_back({node ? node.getDisplayName() : "the model",
                      node ? node.getOpType().str() : "output", name,
                      type ? type.getElementType() : Type()});
  }
  return values;
}

//===----------------------------------------------------------------------===//
// Comparison
//===----------------------------------------------------------------------===//

static double readElement(Type element, const char *bytes, size_t size) {
  uint64_t bits = 0;
  std::memcpy(&bits, bytes, size);
  if (auto type = dyn_cast<FloatType>(element)) {
    llvm::APFloat value(type.getFloatSemantics(),
                        llvm::APInt(type.getWidth(), bits, /*isSigned=*/false,
                                    /*implicitTrunc=*/true));
    bool inexact;
    value.convert(llvm::APFloat::IEEEdouble(),
                  llvm::APFloat::rmNearestTiesToEven, &inexact);
    return value.convertToDouble();
  }
  if (element.isUnsignedInteger() || element.isInteger(1))
    return static_cast<double>(bits);
  unsigned unused = 64 - 8 * size;
  return static_cast<double>(static_cast<int64_t>(bits << unused) >> unused);
}

namespace {
/// How far two tensors are apart.
struct Difference {
  /// The root mean square of the differences over that of the reference, where
  /// both are finite; infinite where shapes or what is not finite differ.
  double relative = 0;
  /// Where the difference is largest.
  size_t position = 0;
  double native = 0, reference = 0;
  bool sameShape = true;
};
} // namespace

static Difference compare(Type element, const NpyArray &native,
                          const NpyArray &reference) {
  Difference result;
  if (native.shape != reference.shape || native.kind != reference.kind) {
    result.relative = std::numeric_limits<double>::infinity();
    result.sameShape = false;
    return result;
  }
  unsigned size = 1;
  StringRef(reference.kind).drop_front().getAsInteger(10, size);
  double error = 0, power = 0, largest = 0;
  for (size_t at = 0; at + size <= reference.bytes.size(); at += size) {
    double a = readElement(element, &native.bytes[at], size);
    double b = readElement(element, &reference.bytes[at], size);
    if (a == b || (std::isnan(a) && std::isnan(b))) {
      power += std::isfinite(b) ? b * b : 0;
      continue;
    }
    double distance = std::isfinite(a) && std::isfinite(b)
                          ? std::abs(a - b)
                          : std::numeric_limits<double>::infinity();
    error += distance * distance;
    power += std::isfinite(b) ? b * b : 0;
    if (distance > largest) {
      largest = distance;
      result.position = at / size;
      result.native = a;
      result.reference = b;
    }
  }
  if (error > 0)
    result.relative = power > 0 ? std::sqrt(error / power)
                                : std::numeric_limits<double>::infinity();
  return result;
}

/// "[1, 2]": an element of a tensor.
static std::string describePosition(size_t position, ArrayRef<int64_t> shape) {
  SmallVector<int64_t> index(shape.size());
  for (size_t axis = shape.size(); axis-- > 0;) {
    index[axis] = position % shape[axis];
    position /= shape[axis];
  }
  std::string text = "[";
  llvm::raw_string_ostream os(text);
  llvm::interleaveComma(index, os);
  return text + "]";
}

namespace {
/// How far native code and the reference agree on several values.
struct Agreement {
  size_t values = 0, differing = 0;
  /// The largest relative error of any value, and whose it is.
  double worst = 0;
  std::string worstName;
  /// The node, and what is wrong, of the first value that differs.
  std::string firstNode, first;
};

/// One run of `nibble verify`.
class Checker {
public:
  explicit Checker(const VerifyCommand &command) : command(command) {
    addPipelineDialects(session.getContext());
  }
  int run();

private:
  /// Loads the model and infers its shapes.
  OwningOpRef<ModuleOp> load();
  /// Runs both pipelines; false after an error.
  bool runBoth(bool allValues, std::vector<TracedValue> &values,
               std::vector<NpyArray> &native, std::vector<NpyArray> &reference);
  Agreement compareAll(ArrayRef<TracedValue> values, ArrayRef<NpyArray> native,
                       ArrayRef<NpyArray> reference);
  void print(const Agreement &agreement, StringRef what);

  const VerifyCommand &command;
  Session session;
};
} // namespace

OwningOpRef<ModuleOp> Checker::load() {
  OwningOpRef<ModuleOp> module =
      loadModel(command.input, &session.getContext());
  if (!module)
    return nullptr;
  PassManager shapes(&session.getContext());
  shapes.addPass(onnx::createOnnxInferShapes());
  if (failed(shapes.run(*module)))
    return nullptr;
  return module;
}

bool Checker::runBoth(bool allValues, std::vector<TracedValue> &values,
                      std::vector<NpyArray> &native,
                      std::vector<NpyArray> &reference) {
  for (bool isReference : {false, true}) {
    OwningOpRef<ModuleOp> module = load();
    if (!module)
      return false;
    auto main = module->lookupSymbol<func::FuncOp>("main");
    if (!main || main.isExternal()) {
      fail(command.input + ": has no function 'main' to run");
      return false;
    }
    values = allValues ? returnAllValues(main) : describeOutputs(main);
    CacheOptions cache;
    cache.target = command.target;
    cache.disabled = command.noCache;
    cache.reference = isReference;
    // The reference quantizes no activations that the model does not.
    cache.compute = "f32";
    cache.variant = allValues ? "all values" : "";
    auto prepared =
        prepareRun(command.input, *module, cache, command.arguments);
    if (!prepared)
      return false;
    auto outputs = prepared->model->run(prepared->inputs);
    if (!outputs) {
      fail(command.input + ": the " +
           (isReference ? "reference lowering" : "native code") +
           " stopped: " + llvm::toString(outputs.takeError()));
      return false;
    }
    (isReference ? reference : native) = std::move(*outputs);
  }
  return true;
}

static std::string describeDifference(const TracedValue &value,
                                      const Difference &difference,
                                      const NpyArray &native,
                                      const NpyArray &reference) {
  std::string text = "node '" + value.node + "' (" + value.opType +
                     "), value '" + value.name + "' " +
                     describeArray(reference.kind, reference.shape);
  if (!difference.sameShape)
    return text + ": native code gives " +
           describeArray(native.kind, native.shape);
  return text +
         llvm::formatv(": relative error {0:e2}; largest at {1}: native {2}, "
                       "reference {3}",
                       difference.relative,
                       describePosition(difference.position, reference.shape),
                       difference.native, difference.reference)
             .str();
}

Agreement Checker::compareAll(ArrayRef<TracedValue> values,
                              ArrayRef<NpyArray> native,
                              ArrayRef<NpyArray> reference) {
  Agreement result;
  result.values = values.size();
  for (auto [value, a, b] : llvm::zip_equal(values, native, reference)) {
    Difference difference = compare(value.element, a, b);
    if (difference.relative > result.worst) {
      result.worst = difference.relative;
      result.worstName = value.name;
    }
    if (difference.relative <= command.tolerance)
      continue;
    if (++result.differing > 1)
      continue;
    result.firstNode = value.node;
    result.first = describeDifference(value, difference, a, b);
  }
  return result;
}

void Checker::print(const Agreement &agreement, StringRef what) {
  llvm::raw_ostream &os = llvm::outs();
  if (agreement.differing) {
    os << "first difference: " << agreement.first << "\n"
       << agreement.differing << " of " << agreement.values << " " << what
       << " differ by more than "
       << llvm::formatv("{0:e1}\n", command.tolerance);
    return;
  }
  os << "all " << agreement.values << " " << what << " agree";
  if (agreement.worst > 0)
    os << llvm::formatv("; the largest relative error is {0:e2}, of '{1}'",
                        agreement.worst, agreement.worstName);
  os << "\n";
}

static llvm::json::Object toJSON(const Agreement &agreement) {
  llvm::json::Object object{{"compared", agreement.values},
                            {"differing", agreement.differing}};
  // A value of another shape has no error in numbers, and JSON no infinity.
  if (agreement.worst > 0 && std::isfinite(agreement.worst)) {
    object["largest_relative_error"] = agreement.worst;
    object["largest_error_of"] = agreement.worstName;
  }
  if (agreement.differing) {
    object["first_node"] = agreement.firstNode;
    object["first_difference"] = agreement.first;
  }
  return object;
}

int Checker::run() {
  std::vector<TracedValue> values;
  std::vector<NpyArray> native, reference;
  if (!runBoth(/*allValues=*/true, values, native, reference))
    return ExitFailure;
  Agreement inside = compareAll(values, native, reference);
  if (!command.json)
    print(inside, "values");
  // What the optimizer does with the model when nobody looks inside.
  if (!runBoth(/*allValues=*/false, values, native, reference))
    return ExitFailure;
  Agreement outputs = compareAll(values, native, reference);
  if (!command.json)
    print(outputs, "outputs of the whole model");
  else
    llvm::outs() << llvm::formatv(
        "{0:2}\n",
        llvm::json::Value(llvm::json::Object{{"input", command.input},
                                             {"tolerance", command.tolerance},
                                             {"values", toJSON(inside)},
                                             {"outputs", toJSON(outputs)}}));
  return inside.differing + outputs.differing == 0 ? ExitSuccess : ExitFailure;
}

int nibble::verify(const VerifyCommand &command) {
  auto target = parseTarget(command.target);
  if (!target)
    return fail(llvm::toString(target.takeError()));
  Checker checker(command);
  return checker.run();
}
