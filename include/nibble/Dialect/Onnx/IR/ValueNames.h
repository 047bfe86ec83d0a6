//===- ValueNames.h - The names of values in a graph ------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_ONNX_IR_VALUENAMES_H
#define NIBBLE_DIALECT_ONNX_IR_VALUENAMES_H

#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"

#include <string>
#include <vector>

namespace nibble::onnx {

/// The names of the inputs of a graph that are no constants, one for each
/// argument of its block.
std::vector<std::string> getInputNames(GraphAttr graph, mlir::Block &block);

/// The name of an entry of a graph's inputs or outputs.
llvm::StringRef getEntryName(mlir::Attribute entry);

/// The names of the outputs of a graph.
std::vector<std::string> getOutputNames(GraphAttr graph);

/// The name of `value`, a node's result, a constant or an input of the model;
/// empty where it has none.
std::string getValueName(mlir::Value value);

} // namespace nibble::onnx

#endif // NIBBLE_DIALECT_ONNX_IR_VALUENAMES_H
