//===- ModelInterface.h - What goes into a model and comes out --*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_TARGET_MODELINTERFACE_H
#define NIBBLE_TARGET_MODELINTERFACE_H

#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/BuiltinTypes.h"

#include <string>
#include <vector>

namespace nibble {

/// The inputs and outputs of a model, by name, in the types of the onnx
/// dialect.
struct ModelInterface {
  struct Value {
    std::string name;
    mlir::RankedTensorType type;
    /// An input that a run changes (--onnx-update-caches).
    bool updated = false;
  };
  std::vector<Value> inputs, outputs;
};

/// Reads the interface of the function `main` of `module`, whose shapes have
/// been inferred. Values without a name are called "input_0", "output_0", ….
/// Fails on values that are no tensors of numbers with a known rank.
mlir::FailureOr<ModelInterface> readInterface(mlir::ModuleOp module);

/// True for the type of a value that compiled code can take or give: a tensor
/// of numbers with a known rank. `type` may be null.
bool isTensorOfNumbers(mlir::Type type);

/// The type of an element as DLPack has it: code, bits. Elements of less than 8
/// bits take a byte each (ScalarBuilder.h); integers then have that byte's
/// type.
struct DataType {
  uint8_t code, bits;
};
DataType getDataType(mlir::Type element);

} // namespace nibble

#endif // NIBBLE_TARGET_MODELINTERFACE_H
