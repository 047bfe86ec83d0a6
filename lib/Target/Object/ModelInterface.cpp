//===- ModelInterface.cpp - What goes into a model and comes out ----------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Target/ModelInterface.h"

#include "nibble/Conversion/ScalarBuilder.h"
#include "nibble/Dialect/Onnx/IR/ValueNames.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace nibble;

bool nibble::isTensorOfNumbers(Type type) {
  auto tensor = dyn_cast_if_present<RankedTensorType>(type);
  return tensor && getStoredType(tensor);
}

static LogicalResult collect(func::FuncOp main, TypeRange types, StringRef kind,
                             const std::vector<std::string> &names,
                             std::vector<ModelInterface::Value> &values) {
  for (auto [index, type] : llvm::enumerate(types)) {
    std::string name = index < names.size() && !names[index].empty()
                           ? names[index]
                           : (kind + "_" + Twine(index)).str();
    if (!isTensorOfNumbers(type))
      return main.emitError() << kind << " '" << name << "' of the model is no "
                              << "tensor of numbers with a known rank";
    values.push_back({std::move(name), cast<RankedTensorType>(type)});
  }
  return success();
}

FailureOr<ModelInterface> nibble::readInterface(ModuleOp module) {
  auto main = module.lookupSymbol<func::FuncOp>("main");
  if (!main || main.isExternal())
    return module.emitError("has no function 'main' to compile");
  std::vector<std::string> inputs, outputs;
  if (auto graph = main->getAttrOfType<onnx::GraphAttr>(onnx::kGraphAttrName)) {
    inputs = onnx::getInputNames(graph, main.getBody().front());
    outputs = onnx::getOutputNames(graph);
  }
  ModelInterface interface;
  if (failed(collect(main, main.getArgumentTypes(), "input", inputs,
                     interface.inputs)) ||
      failed(collect(main, main.getResultTypes(), "output", outputs,
                     interface.outputs)))
    return failure();
  for (auto [index, input] : llvm::enumerate(interface.inputs))
    input.updated = main.getArgAttr(index, onnx::kUpdatedAttrName) != nullptr;
  return interface;
}

DataType nibble::getDataType(Type element) {
  enum { Int = 0, UInt = 1, Float = 2, BFloat = 4, Bool = 6 };
  if (element.isInteger(1))
    return {Bool, 8};
  if (auto integer = dyn_cast<IntegerType>(element))
    return {static_cast<uint8_t>(integer.isUnsigned() ? UInt : Int),
            static_cast<uint8_t>(std::max(8u, integer.getWidth()))};
  if (element.isBF16())
    return {BFloat, 16};
  // DLPack's numbers for the formats of 8 bits and less.
  auto code = llvm::TypeSwitch<Type, uint8_t>(element)
                  .Case<Float8E3M4Type>([](auto) { return 7; })
                  .Case<Float8E4M3Type>([](auto) { return 8; })
                  .Case<Float8E4M3B11FNUZType>([](auto) { return 9; })
                  .Case<Float8E4M3FNType>([](auto) { return 10; })
                  .Case<Float8E4M3FNUZType>([](auto) { return 11; })
                  .Case<Float8E5M2Type>([](auto) { return 12; })
                  .Case<Float8E5M2FNUZType>([](auto) { return 13; })
                  .Case<Float8E8M0FNUType>([](auto) { return 14; })
                  .Case<Float6E2M3FNType>([](auto) { return 15; })
                  .Case<Float6E3M2FNType>([](auto) { return 16; })
                  .Case<Float4E2M1FNType>([](auto) { return 17; })
                  .Default([](Type) { return Float; });
  return {code,
          static_cast<uint8_t>(std::max(8u, element.getIntOrFloatBitWidth()))};
}
